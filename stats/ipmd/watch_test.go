package ipmd

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// Every way in which files are renewed is noticed, and nothing else is.
func TestWatchPaths(t *testing.T) {
	root := t.TempDir()
	in := func(names ...string) string { return filepath.Join(append([]string{root}, names...)...) }
	for _, dir := range []string{"etc", "etc/..1", "etc/..2", "archive", "plain", "old", "new"} {
		must(t, os.MkdirAll(in(dir), 0o700))
	}
	for _, file := range []string{"etc/..1/crt", "etc/..2/crt", "archive/crt1", "archive/crt2", "plain/crt", "old/crt", "new/crt"} {
		must(t, os.WriteFile(in(file), []byte(file), 0o600))
	}
	must(t, os.Symlink("..1", in("etc/..data"))) // as Kubernetes mounts a secret
	must(t, os.Symlink("..data/crt", in("etc/crt")))
	must(t, os.Symlink(in("archive/crt1"), in("live"))) // as certbot does
	must(t, os.Symlink("../plain", in("old/link")))

	paths := []string{in("etc/crt"), in("live"), in("plain/crt"), in("old/crt"), in("later/dir/crt"), in("old/link/other")}
	w, err := newPathWatch()
	must(t, err)
	defer w.close()
	w.follow(paths...)
	relink := func(target, name string) {
		must(t, os.Symlink(target, name+".next"))
		must(t, os.Rename(name+".next", name))
	}
	for _, change := range []struct {
		name string
		make func()
		hit  bool
	}{
		{"nothing", func() {}, false},
		{"another file", func() { must(t, os.WriteFile(in("plain/other2"), nil, 0o600)) }, false},
		{"written in place", func() { must(t, os.WriteFile(in("plain/crt"), []byte("x"), 0o600)) }, true},
		{"renamed into place", func() { lab.Replace(t, in("plain/crt"), []byte("y")) }, true},
		{"behind a symlink", func() { must(t, os.WriteFile(in("plain/other"), nil, 0o600)) }, true},
		{"Kubernetes", func() { relink("..2", in("etc/..data")) }, true},
		{"its former directory", func() { must(t, os.Remove(in("etc/..1/crt"))) }, false},
		{"its new directory", func() { lab.Replace(t, in("etc/..2/crt"), []byte("z")) }, true},
		{"certbot", func() { relink(in("archive/crt2"), in("live")) }, true},
		{"certbot's former file", func() { must(t, os.Remove(in("archive/crt1"))) }, false},
		{"a directory renamed", func() {
			must(t, os.Rename(in("old"), in("older")))
			must(t, os.Rename(in("new"), in("old")))
		}, true},
		{"in that directory", func() { lab.Replace(t, in("old/crt"), nil) }, true},
		{"a directory that was not there", func() { must(t, os.MkdirAll(in("later/dir"), 0o700)) }, true},
		{"a file in it", func() { lab.Replace(t, in("later/dir/crt"), nil) }, true},
		{"a loop", func() { relink("live", in("live")) }, true},
		{"gone", func() { must(t, os.RemoveAll(in("etc"))) }, true},
	} {
		change.make()
		wait := 5 * time.Second
		if !change.hit {
			wait = 50 * time.Millisecond
		}
		select {
		case <-w.hits:
			if !change.hit {
				t.Errorf("%s: noticed", change.name)
			}
		case <-time.After(wait):
			if change.hit {
				t.Errorf("%s: not noticed", change.name)
			}
		}
		for again := true; again; { // until it is quiet
			w.follow(paths...)
			select {
			case <-w.hits:
			case <-time.After(20 * time.Millisecond):
				again = false
			}
		}
	}
}

// Whatever is read from inotify, no name is taken from beyond it.
func FuzzConcerned(f *testing.F) {
	event := append([]byte{1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0}, "crt\x00"...)
	f.Add(event)
	f.Add(event[:18])
	f.Fuzz(func(_ *testing.T, events []byte) {
		w := &pathWatch{looked: map[int32]map[string]bool{1: {"crt": true}}}
		w.concerned(events)
	})
}
