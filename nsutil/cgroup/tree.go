package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
)

// top is the directory of all virtual servers in each hierarchy.
const top = "vsrun"

// The controllers that limits and figures need: those of v2, and the names that v1
// has for them.
var (
	controllers = []string{"memory", "cpu", "pids", "io"}
	legacy      = []string{"memory", "cpu", "cpuacct", "pids", "blkio"}
)

// ErrBusy is the error for a cgroup that processes are left in.
var ErrBusy = errors.New("processes are left in it")

// patience is how long Make and Remove wait for processes to end.
const patience = 2 * time.Second

// A Tree is where the host's hierarchies are mounted, that of v2 first.
type Tree struct {
	paths []string
	err   error // of looking for them
}

// Find finds the hierarchies that are of use. One that is mounted twice is used
// once, and one that is covered not.
func Find() *Tree {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return &Tree{err: err}
	}
	defer f.Close()
	var unified, others []string
	had := map[string]bool{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[2], "cgroup") {
			continue
		}
		path := nsutil.Unescape(fields[1])
		name := firstOf(legacy, strings.Split(fields[3], ","))
		switch {
		case fields[2] == "cgroup2" && unified == nil && isOn(path, unix.CGROUP2_SUPER_MAGIC):
			unified = []string{path}
		case fields[2] == "cgroup" && name != "" && !had[name] && isOn(path, unix.CGROUP_SUPER_MAGIC):
			had[name] = true
			others = append(others, path)
		}
	}
	return &Tree{append(unified, others...), lines.Err()}
}

func firstOf(words, among []string) string {
	k := slices.IndexFunc(words, func(w string) bool { return slices.Contains(among, w) })
	if k < 0 {
		return ""
	}
	return words[k]
}

func isOn(path string, magic int64) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && int64(st.Type) == magic
}

// Make makes the cgroup of a virtual server, a new one: what an earlier one of the
// name has been left by is waited for, for two seconds, and after that is ErrBusy.
// Controllers are handed down to it, but not further (see HandDown). It is nil where
// the host has no hierarchy that can be written.
func (t *Tree) Make(name string) (*Group, error) {
	if t.err != nil { // an init without a cgroup would stay so
		return nil, fmt.Errorf("cannot find the cgroups: %w", t.err)
	}
	if err := t.vacate(name, func(*Group) {}); err != nil {
		return nil, err
	}
	held, err := t.hold(name)
	if err != nil {
		return nil, err
	}
	var errs []error
	g := t.each(func(path string) (*os.File, error) {
		d, err := makeIn(path, name)
		if !mayNot(err) {
			errs = append(errs, err)
		}
		return d, err
	})
	if err := errors.Join(errs...); err != nil {
		g.Close()
		held.Close()
		return nil, errors.Join(fmt.Errorf("cannot make the cgroup %s: %w", name, err), t.remove(name))
	}
	if g == nil {
		held.Close()
		return nil, nil
	}
	g.held = held
	return g, nil
}

// mayNot: the hierarchy is another's, and does without.
func mayNot(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS)
}

// hold makes the scope, where systemd is to be asked for one.
func (t *Tree) hold(name string) (*holder, error) {
	for _, path := range t.paths {
		if systemd(path) {
			return holdScope(path, name)
		}
	}
	return nil, nil
}

// each is the cgroup of what open opens in the hierarchies, nil of nothing.
func (t *Tree) each(open func(path string) (*os.File, error)) *Group {
	g := &Group{}
	if t == nil {
		return nil
	}
	for _, path := range t.paths {
		if dir, err := open(path); err == nil {
			g.dirs = append(g.dirs, dir)
		}
	}
	if g.dirs == nil {
		return nil
	}
	return g
}

func makeIn(hierarchy, name string) (d *os.File, err error) {
	dir := place(hierarchy, name)
	for range 3 { // the last virtual server takes the top along, maybe just now
		err = os.MkdirAll(dir, 0o755)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if !systemd(hierarchy) { // else it has done so
		handDown(hierarchy)
		handDown(filepath.Dir(dir))
	}
	return openDir(dir)
}

// handDown lets what is below have the controllers that are there. Those of v1 are
// there anyway.
func handDown(dir string) {
	for _, c := range controllers {
		f, err := os.OpenFile(filepath.Join(dir, "cgroup.subtree_control"), os.O_WRONLY, 0)
		if err == nil {
			f.WriteString("+" + c)
			f.Close()
		}
	}
}

// Open is the cgroup of a virtual server; nil when there is none.
func (t *Tree) Open(name string) *Group {
	return t.each(func(path string) (*os.File, error) { return openDir(place(path, name)) })
}

// Numbers are those of the virtual servers that have a cgroup in any hierarchy.
func (t *Tree) Numbers() (ids []int) {
	for _, path := range t.paths {
		found, _ := filepath.Glob(place(path, "vs*"))
		for _, dir := range found {
			if id := Number(filepath.Base(dir)); id > 0 {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
}

// Remove removes the cgroup of a virtual server and those below it, and ends what
// is left in them. Absent already is success.
func (t *Tree) Remove(name string) error { return t.vacate(name, (*Group).Kill) }

// RemoveEmpty removes a cgroup in which nothing is left, and waits for what is just
// ending. ErrBusy is the error of one that somebody uses.
func (t *Tree) RemoveEmpty(name string) error { return t.vacate(name, func(*Group) {}) }

// vacate removes a cgroup when nothing is left in it, which hurry may see to.
func (t *Tree) vacate(name string, hurry func(*Group)) error {
	for end := time.Now().Add(patience); ; {
		err := t.remove(name)
		switch {
		case !errors.Is(err, unix.EBUSY):
			return err
		case time.Now().After(end):
			return fmt.Errorf("cannot remove the cgroup %s: %w", name, ErrBusy)
		}
		if g := t.Open(name); g != nil {
			hurry(g)
			g.awaitChange(100 * time.Millisecond)
			g.Close()
		}
	}
}

// remove removes the directories in all hierarchies, and the top with the last.
func (t *Tree) remove(name string) error {
	var errs []error
	for _, path := range t.paths {
		dir := place(path, name)
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		for _, e := range entries {
			if e.IsDir() {
				errs = append(errs, removeDir(filepath.Join(dir, e.Name())))
			}
		}
		err = removeDir(dir)
		if err == nil && systemd(path) {
			err = endScope(path, name)
		}
		errs = append(errs, err)
		unix.Rmdir(filepath.Join(path, top))
	}
	return errors.Join(errs...)
}

func removeDir(path string) error {
	if err := unix.Rmdir(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot remove the cgroup %s: %w", path, err)
	}
	return nil
}
