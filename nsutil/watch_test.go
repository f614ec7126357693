package nsutil_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/test/lab"
)

func TestWatchMounts(t *testing.T) {
	lab.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	changes, err := nsutil.WatchMounts(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ns := newNamespace(t)
	const name = "/run/netns/vs8"
	for range 3 { // the name comes, and goes
		if err := ns.Publish(name); err != nil {
			t.Fatal(err)
		}
		awaitEvent(t, changes)
		quiet(changes)
		if err := nsutil.Unpublish(name); err != nil {
			t.Fatal(err)
		}
		awaitEvent(t, changes)
		quiet(changes)
	}
	begin := time.Now()
	for range 100 {
		if err := errors.Join(unix.Mount("none", "/mnt", "tmpfs", 0, ""), unix.Unmount("/mnt", 0)); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(begin)
	if n, most := quiet(changes), 3+int(took/(50*time.Millisecond)); n == 0 || n > most {
		t.Errorf("%d events of 200 changes in %v, want at most %d", n, took, most)
	}
	cancel()
	if _, open := <-changes; open {
		if _, open = <-changes; open {
			t.Error("the channel is open after the end")
		}
	}
}

func awaitEvent(t *testing.T, changes <-chan struct{}) {
	t.Helper()
	select {
	case <-changes:
	case <-time.After(10 * time.Second):
		t.Fatal("no event after 10 s")
	}
}

// quiet counts events until there are none for a while.
func quiet(changes <-chan struct{}) (n int) {
	for {
		select {
		case <-changes:
			n++
		case <-time.After(200 * time.Millisecond):
			return n
		}
	}
}

func TestName(t *testing.T) {
	lab.New(t)
	a, b := newNamespace(t), newNamespace(t)
	idOf := func(id nsutil.ID, err error) nsutil.ID {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	const path = "/run/netns/vs8"
	name, err := nsutil.NameOf(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := name.ID(); !errors.Is(err, unix.ENOENT) {
		t.Errorf("before it is published: %v", err)
	}
	for _, ns := range []*nsutil.Namespace{a, b} {
		if err := ns.Publish(path); err != nil {
			t.Fatal(err)
		}
		if id := idOf(name.ID()); id != idOf(ns.ID()) || id == idOf(a.ID()) != (ns == a) {
			t.Errorf("the name has %v, the namespaces %v and %v", id, idOf(a.ID()), idOf(b.ID()))
		}
		if n := testing.AllocsPerRun(10, func() { name.ID() }); n != 0 {
			t.Errorf("%v allocations", n)
		}
		if err := nsutil.Unpublish(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := nsutil.NameOf("a\x00b"); err == nil {
		t.Error("a name with a zero byte")
	}
}

// A path that the kernel has escaped is the path again.
func FuzzUnescape(f *testing.F) {
	f.Add("/run/netns/a b\tc\\d\ne")
	f.Add("\\04")
	f.Fuzz(func(t *testing.T, path string) {
		nsutil.Unescape(path)
		var kernel strings.Builder // fs/proc_namespace.c, mangle
		for _, c := range []byte(path) {
			if strings.ContainsRune(" \t\n\\#", rune(c)) {
				fmt.Fprintf(&kernel, "\\%03o", c)
			} else {
				kernel.WriteByte(c)
			}
		}
		if got := nsutil.Unescape(kernel.String()); got != path {
			t.Errorf("%q, as %q, is %q", path, kernel.String(), got)
		}
	})
}
