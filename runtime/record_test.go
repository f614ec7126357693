package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// However much of a record a crash or a full disk has left: it is no record, and
// is not changed.
func TestPartsOfARecord(t *testing.T) {
	s := OpenStore(t.TempDir())
	whole := serverOf(t, everything).record()
	for n := range len(whole) - 2 { // all but the last brace and the line feed
		if err := os.WriteFile(s.path(8), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if vs, err := s.Load(8); err == nil {
			t.Fatalf("%d of %d bytes are %+v", n, len(whole), vs)
		}
	}
	left, err := os.ReadFile(s.path(8))
	if err != nil || string(left) != string(whole[:len(whole)-3]) {
		t.Errorf("it is %q now, %v", left, err)
	}
}

// What it was before is a virtual server like any other, and the same one.
func TestRecordOfTwo(t *testing.T) {
	for text, wanted := range map[string]bool{
		`{"id": 8, "before": {"id": 8, "name": "finance"}}`:                  true,
		`{"id": 8, "before": {"id": 9}}`:                                     false,
		`{"id": 8, "before": {"id": 8, "name": "-"}}`:                        false,
		`{"id": 8, "before": {"id": 8, "before": {"id": 8, "name": "one"}}}`: false,
	} {
		if vs, err := decodeRecord([]byte(text)); (err == nil) != wanted {
			t.Errorf("%s is %+v, %v", text, vs, err)
		}
	}
}

// What is in the store's directory and is no record is nothing to the store.
func TestForeignFilesInTheStore(t *testing.T) {
	s := OpenStore(t.TempDir())
	for _, id := range []int{4094, 10, 9, 8} {
		if err := s.save(VirtualServer{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"notes.txt", "vs08.json", "vs7.json~", "vs7.json.bak", "vs12345.json", "vs0.json", "vs-7.json", "VS7.json", ".vs7.json.new", "#vs7.json#"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.dir, "vs8"), 0o700); err != nil {
		t.Fatal(err)
	}
	before := files(t, s.dir)
	list, err := s.List()
	var ids []int
	for _, vs := range list {
		ids = append(ids, vs.ID)
	}
	if d := cmp.Diff([]int{8, 9, 10, 4094}, ids); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	if err := s.claim(t.Context(), VirtualServer{ID: 11}, machine); err != nil {
		t.Error(err)
	}
	if err := s.forget(11); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff(strings.Fields("lock "+before), strings.Fields(files(t, s.dir)), sorted); d != "" {
		t.Errorf("files (-before +after):\n%s", d)
	}
}

// One that cannot be a record at all hides nobody either.
func TestUnreadableRecord(t *testing.T) {
	s := OpenStore(t.TempDir())
	if err := s.save(VirtualServer{ID: 9}); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.path(8), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", s.path(7)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(8); err == nil || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), s.path(8)) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := s.Load(7); err == nil || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), s.path(7)) {
		t.Errorf("a link to nothing: %v", err)
	}
	if list, err := s.List(); len(list) != 1 || err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("%v, %v", list, err)
	}
}

// Whoever reads while somebody writes gets the old record or the new one.
func TestSaveIsAtomic(t *testing.T) {
	s := OpenStore(t.TempDir())
	short, long := VirtualServer{ID: 8}, serverOf(t, everything)
	if err := s.save(short); err != nil {
		t.Fatal(err)
	}
	var done atomic.Bool
	read := make(chan int)
	go func() {
		n := 0
		for ; !done.Load(); n++ {
			if vs, err := s.Load(8); err != nil || !same(vs, short) && !same(vs, long) {
				t.Errorf("read %+v, %v", vs, err)
				break
			}
		}
		read <- n
	}()
	for k := range 300 {
		if err := s.save([]VirtualServer{long, short}[k%2]); err != nil {
			t.Error(err)
		}
	}
	done.Store(true)
	if n := <-read; n == 0 {
		t.Error("nothing was read meanwhile")
	}
	if names := files(t, s.dir); names != "vs8.json" {
		t.Errorf("files: %s", names)
	}
}

// What a crash in the middle of writing has left is nothing, and in nobody's way.
func TestHalfWrittenRecord(t *testing.T) {
	s := OpenStore(t.TempDir())
	half := serverOf(t, everything).record()[:50]
	leave := func() {
		if err := os.WriteFile(s.fresh(8), half, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	if _, err := s.Load(8); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if list, err := s.List(); len(list) != 0 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
	if err := s.save(VirtualServer{ID: 8}); err != nil {
		t.Error(err)
	}
	if vs, err := s.Load(8); err != nil || !same(vs, VirtualServer{ID: 8}) {
		t.Errorf("%+v, %v", vs, err)
	}
	leave()
	if err := s.forget(8); err != nil || files(t, s.dir) != "" {
		t.Errorf("%v, left: %s", err, files(t, s.dir))
	}
}

// A record that cannot be replaced stays as it is.
func TestSaveFails(t *testing.T) {
	s := OpenStore(t.TempDir())
	if err := s.save(VirtualServer{ID: 8}); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(s.fresh(8), "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := s.save(serverOf(t, everything))
	if err == nil || !strings.HasPrefix(err.Error(), "cannot store vs8 (finance): ") {
		t.Errorf("got %v", err)
	}
	if vs, err := s.Load(8); err != nil || !same(vs, VirtualServer{ID: 8}) {
		t.Errorf("%+v, %v", vs, err)
	}
	nowhere := OpenStore(s.path(8))
	if err := nowhere.save(VirtualServer{ID: 9}); err == nil {
		t.Error("stored in a file")
	}
	if _, err := nowhere.lock(t.Context(), 9); err == nil || !strings.HasPrefix(err.Error(), "cannot make the state directory: ") {
		t.Errorf("got %v", err)
	}
	if list, err := nowhere.List(); err == nil {
		t.Errorf("listed %v of a file", list)
	}
}
