package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/stats"
)

// Whatever happens to the records, the next answer is what reading all of them gives.
func TestListing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := OpenStore(dir)
	l := s.Listing("/run/netns")
	defer l.Close()
	save := func(vs VirtualServer) func() error { return func() error { return s.save(vs) } }
	file := func(name string) string { return filepath.Join(dir, name) }
	for _, step := range []struct {
		what string
		do   func() error
		want string
	}{
		{"no directory", func() error { return nil }, ""},
		{"an empty directory", func() error { return os.Mkdir(dir, 0o755) }, ""},
		{"one is saved", save(VirtualServer{ID: 9}), "vs9"},
		{"another one is", save(VirtualServer{ID: 8, Name: "web"}), "web vs9"},
		{"nothing", func() error { return nil }, "web vs9"},
		{"one is renamed", save(VirtualServer{ID: 9, Name: "finance"}), "web finance"},
		{"one is disabled", save(VirtualServer{ID: 8, Name: "web", Disabled: true}), "finance"},
		{"it is enabled", save(VirtualServer{ID: 8, Name: "web"}), "web finance"},
		{"one is forgotten", func() error { return s.forget(8) }, "finance"},
		{"a port is saved", func() error { return os.WriteFile(file("port-bond0.json"), nil, 0o600) }, "finance"},
		{"a record is spoiled", func() error { return os.WriteFile(file("vs9.json"), []byte("{"), 0o600) }, "error: vs9.json"},
		{"it is moved away", func() error { return os.Rename(file("vs9.json"), file("old")) }, ""},
		{"two at once", func() error { save(VirtualServer{ID: 8})(); return s.save(VirtualServer{ID: 10}) }, "vs8 vs10"},
		{"another directory in its place", func() error {
			if err := os.Rename(dir, dir+".old"); err != nil {
				return err
			}
			return os.Mkdir(dir, 0o755)
		}, ""},
		{"one is saved there", save(VirtualServer{ID: 11}), "vs11"},
		{"no directory again", func() error { return os.RemoveAll(dir) }, ""},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		got, err := l.Sources()
		whole, wholeErr := s.Sources("/run/netns")
		for i := range got { // one tree for all, found at another time
			got[i].Groups, whole[i].Groups = nil, nil
		}
		if d := cmp.Diff(whole, got); d != "" || fmt.Sprint(err) != fmt.Sprint(wholeErr) {
			t.Errorf("%s: %v, reading all: %v\n%s", step.what, err, wholeErr, d)
		}
		if names := titles(got, err); names != step.want {
			t.Errorf("%s: %s, want %s", step.what, names, step.want)
		}
	}
}

// What has not changed costs no reading, and is the same slice.
func TestListingReadsOnlyWhatChanged(t *testing.T) {
	s := OpenStore(t.TempDir())
	for id := 1; id <= 200; id++ {
		if err := s.save(VirtualServer{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	l := s.Listing("/run/netns")
	defer l.Close()
	first, err := l.Sources()
	if err != nil || len(first) != 200 {
		t.Fatal(len(first), err)
	}
	again, _ := l.Sources()
	if &again[0] != &first[0] {
		t.Error("it was read again")
	}
	if n := testing.AllocsPerRun(10, func() { l.Sources() }); n > 10 {
		t.Errorf("%v allocations where nothing has changed", n)
	}
	if err := s.save(VirtualServer{ID: 7, Name: "seven"}); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1, func() {
		if list, _ := l.Sources(); list[6].Name != "seven" || first[6].Name != "vs7" {
			t.Errorf("%s, and before %s", list[6].Name, first[6].Name)
		}
	}); n > 10*200 {
		t.Errorf("%v allocations for one change", n)
	}
	// More at once than the kernel queues (max_queued_events).
	for range 6000 {
		os.WriteFile(filepath.Join(s.dir, "x"), nil, 0o600)
		os.Remove(filepath.Join(s.dir, "x"))
	}
	if err := s.save(VirtualServer{ID: 300}); err != nil {
		t.Fatal(err)
	}
	if list, err := l.Sources(); err != nil || len(list) != 201 {
		t.Errorf("%d after more events than fit, %v", len(list), err)
	}
}

func titles(list []stats.Source, err error) string {
	var names []string
	for _, src := range list {
		names = append(names, src.Name)
	}
	if err != nil {
		_, at, _ := strings.Cut(err.Error(), "vs")
		names = append(names, "error: vs"+strings.SplitN(at, ":", 2)[0])
	}
	return strings.Join(names, " ")
}

func BenchmarkListing(b *testing.B) {
	s := OpenStore(b.TempDir())
	for id := 1; id <= 1000; id++ {
		if err := s.save(VirtualServer{ID: id}); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("watched", func(b *testing.B) {
		l := s.Listing("/run/netns")
		defer l.Close()
		for b.Loop() {
			l.Sources()
		}
	})
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			s.Sources("/run/netns")
		}
	})
}
