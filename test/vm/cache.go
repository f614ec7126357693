package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A cache keeps directories that take long to make. Each has in its name a hash
// of what it was made from.
type cache struct{ dir string }

func openCache(dir string) (cache, error) {
	return cache{dir}, os.MkdirAll(dir, 0o755)
}

// get returns the directory that fill makes from the recipe. It is made by one
// process at a time and appears whole; those of other recipes go.
func (c cache) get(name string, recipe []string, fill func(dir string) error) (string, error) {
	sum := sha256.Sum256([]byte(strings.Join(recipe, "\x00")))
	path := filepath.Join(c.dir, fmt.Sprintf("%s-%x", name, sum[:6]))
	if exists(path) {
		return path, nil
	}
	lock, err := c.lock()
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if exists(path) {
		return path, nil
	}
	c.remove("new-*") // of processes that were killed: they would hold the lock
	begun := time.Now()
	fmt.Fprintf(os.Stderr, "vm: making %s …\n", name)
	room, err := os.MkdirTemp(c.dir, "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(room)
	if err := fill(room); err != nil {
		return "", fmt.Errorf("cannot make %s: %w", name, err)
	}
	c.remove(name + "-*")
	if err := os.Chmod(room, 0o755); err != nil {
		return "", err
	}
	fmt.Fprintf(os.Stderr, "vm: made %s in %.0f s\n", name, time.Since(begun).Seconds())
	return path, os.Rename(room, path)
}

func (c cache) remove(pattern string) {
	old, _ := filepath.Glob(filepath.Join(c.dir, pattern))
	for _, path := range old {
		os.RemoveAll(path)
	}
}

// lock waits for others that make something. Closing the file unlocks.
func (c cache) lock() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(c.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		return f, nil
	}
	fmt.Fprintln(os.Stderr, "vm: waiting for another that fills the cache …")
	return f, syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// commandOutput runs a command and returns what it prints; its error has what it said.
func commandOutput(dir string, argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, strings.TrimSpace(said.String()))
	}
	return string(out), nil
}
