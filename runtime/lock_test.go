package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var sorted = cmpopts.SortSlices(func(a, b string) bool { return a < b })

// asCounter makes TestCounterRole what another process does: it counts, from
// what a file says, under a lock.
const asCounter = "LOCK_TEST_COUNT"

const counts = 50

func TestCounterRole(t *testing.T) {
	dir := os.Getenv(asCounter)
	if dir == "" {
		return // this is no such process
	}
	s, file := OpenStore(dir), filepath.Join(dir, "count")
	for range counts {
		unlock, err := s.lock(t.Context(), 8)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(string(text))
		if err != nil {
			t.Fatalf("somebody was at it: %v", err)
		}
		if err := os.WriteFile(file, []byte(strconv.Itoa(n+1)), 0o600); err != nil {
			t.Fatal(err)
		}
		unlock()
	}
}

// Of several processes one at a time has the lock.
func TestLockSerialises(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "count"), []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	var counters []*exec.Cmd
	for range 4 {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestCounterRole$")
		cmd.Env = append(os.Environ(), asCounter+"="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		counters = append(counters, cmd)
	}
	for _, cmd := range counters {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, "count")); string(text) != fmt.Sprint(4*counts) {
		t.Errorf("counted to %s, %v; want %d", text, err, 4*counts)
	}
}

// awaitWaiters returns when n are waiting for locks of the store.
func awaitWaiters(t *testing.T, s *Store, n int) {
	t.Helper()
	fi, err := os.Stat(filepath.Join(s.dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	inode := fmt.Sprintf(":%d ", fi.Sys().(*syscall.Stat_t).Ino)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			t.Fatal(err)
		}
		waiting := 0
		for line := range strings.Lines(string(locks)) {
			if strings.Contains(line, "->") && strings.Contains(line, inode) {
				waiting++
			}
		}
		if waiting == n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d wait, not %d:\n%s", waiting, n, locks)
		}
	}
}

// Who waits gets the lock when it is free, and whoever gives up waiting leaves
// nothing behind.
func TestLockIsWaitedFor(t *testing.T) {
	s := OpenStore(t.TempDir())
	unlock, err := s.lock(t.Context(), 8)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	wait := func(ctx context.Context) {
		unlock, err := s.lock(ctx, 8)
		got <- err
		if err == nil {
			unlock()
		}
	}
	ctx, giveUp := context.WithCancelCause(t.Context())
	go wait(ctx)
	awaitWaiters(t, s, 1)
	reason := errors.New("enough")
	giveUp(reason)
	if err := <-got; !errors.Is(err, reason) || err.Error() != "another vsrun is at work on vs8: enough" {
		t.Errorf("got %v", err)
	}
	go wait(t.Context())
	awaitWaiters(t, s, 2) // the one that has given up waits on, for nobody
	unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
	// The one that has given up lets go too.
	unlock, err = s.lock(t.Context(), 8)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	awaitDescriptors(t, filepath.Join(s.dir, "lock"), 0)
}

// awaitDescriptors returns when a file is open n times in this process.
func awaitDescriptors(t *testing.T, path string, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		links, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		open := slices.DeleteFunc(links, func(link string) bool {
			to, err := os.Readlink(link)
			return err != nil || to != path
		})
		if len(open) == n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is open %d times, not %d", path, len(open), n)
		}
	}
}

// Work on one virtual server does not wait for work on another, nor for what
// concerns all.
func TestLocksAreApart(t *testing.T) {
	s := OpenStore(t.TempDir())
	var unlocks []func()
	for id := range MaxID + 1 {
		if id > 20 && id < MaxID-20 {
			continue
		}
		unlock, err := s.lock(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		unlocks = append(unlocks, unlock)
	}
	awaitWaiters(t, s, 0)
	for _, unlock := range unlocks {
		unlock()
	}
	if d := cmp.Diff([]string{"lock"}, strings.Fields(files(t, s.dir))); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
}
