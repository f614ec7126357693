package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/stats"
)

// A world is a host with one virtual server, what vsrun and vsd do to it, and what
// really crossed the wire.
type world struct {
	*rapid.T
	book *Book
	now  time.Time

	notices []func() // of links that have come and gone, for vsd to hear

	document []string
	life     string // "" while there is no namespace
	lives    int
	links    map[string]*device
	octets   int64 // what the MIB of this life has

	moved   stats.Counters // the truth
	written stats.Counters // the truth at the last good look at it
	warned  bool           // something could not be written, and was said
	die     bool           // at the next write
	full    bool           // at the next write
	fills   bool           // the disk can become full at all

	gaps   int
	lost   uint64
	epoch  time.Time
	keptRx uint64
	octet  int64
}

type device struct {
	up   bool
	read bool // by a checkpoint
	stats.Counters
}

// errKilled is what a process that is killed panics with.
var errKilled = errors.New("killed")

func (w *world) read(s *stats.Sample) error {
	if w.life == "" {
		return fs.ErrNotExist
	}
	*s = stats.Sample{ID: 8, Time: w.now, Life: w.life, MIB: stats.MIB{{Name: "IpExt", Counters: []stats.Counter{{Name: "InOctets", Value: w.octets}}}}}
	for _, name := range slices.Sorted(maps.Keys(w.links)) {
		s.Interfaces = append(s.Interfaces, stats.Interface{Name: name, Counters: w.links[name].Counters})
	}
	return nil
}

func (w *world) source() Source { return Source{ID: 8, Wanted: w.document, Read: w.read} }

// replace dies before or after it has written, or finds the disk full.
func (w *world) replace(path string, text []byte) error {
	die := w.die
	if die && rapid.Bool().Draw(w.T, "before it is written") {
		panic(errKilled)
	}
	if w.full {
		w.warned = true
		return errors.New("no space left on device")
	}
	if err := replaceIn(path, text); err != nil {
		w.Fatal(err)
	}
	if die {
		panic(errKilled)
	}
	return nil
}

// replaceIn is as much of replacing a file as a test needs.
func replaceIn(path string, text []byte) error {
	os.MkdirAll(filepath.Dir(path), 0o755)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// newBook is the ledger as another process has it.
func (w *world) newBook(dir string) {
	w.book = &Book{Dir: dir, Read: os.ReadFile, Replace: w.replace, Lock: func(context.Context) (func(), error) { return func() {}, nil }}
}

// do does something that may be killed at any write, and continues elsewhere.
func (w *world) do(fn func()) (completed bool) {
	w.die = rapid.IntRange(0, 3).Draw(w.T, "killed") == 0
	w.full = !w.die && w.fills && rapid.IntRange(0, 5).Draw(w.T, "full") == 0
	defer func() {
		w.die, w.full = false, false
		if r := recover(); r == errKilled {
			w.newBook(w.book.Dir)
		} else if r != nil {
			panic(r)
		}
	}()
	fn()
	return true
}

// killed may be where vsrun is killed between two things that it does.
func (w *world) killed() {
	if w.die && rapid.Bool().Draw(w.T, "here") {
		panic(errKilled)
	}
}

func (w *world) check(err error) {
	if err != nil && !w.full {
		w.Fatal(err)
	}
}

func (w *world) enable() {
	w.do(func() {
		w.check(w.book.Opening(w.Context(), w.source()))
		w.killed()
		if w.life == "" {
			w.lives++
			w.life, w.links, w.octets = fmt.Sprint("life ", w.lives), map[string]*device{}, 0
			w.notices = append(w.notices, func() { w.book.Unheard(8) })
		}
		for name := range w.links {
			if !slices.Contains(w.document, name) {
				w.close(name)
			}
		}
		for _, name := range w.document {
			if w.links[name] == nil {
				w.links[name] = &device{}
				w.notices = append(w.notices, func() { w.book.Begun(8, name) })
			}
			w.links[name].up = true
			w.killed()
		}
	})
}

// remake makes interfaces anew, as when their MAC is another.
func (w *world) remake() {
	if w.life == "" {
		return
	}
	w.do(func() {
		w.check(w.book.Opening(w.Context(), w.source()))
		for _, name := range slices.Sorted(maps.Keys(w.links)) {
			w.close(name)
			w.links[name] = &device{up: true}
			w.notices = append(w.notices, func() { w.book.Begun(8, name) })
		}
	})
}

// move puts interfaces on another port: another link takes the place and the name of each
// while that is up.
func (w *world) move() {
	if w.life == "" {
		return
	}
	w.do(func() {
		w.check(w.book.Opening(w.Context(), w.source()))
		for _, name := range w.document {
			leaving := nsutil.LeavingName(name)
			if w.links[leaving] != nil && w.links[name] != nil {
				w.close(leaving)
			}
			if w.links[name] != nil {
				w.links[leaving] = w.links[name]
				delete(w.links, name)
				w.killed()
			}
			w.links[name] = &device{up: true}
			if w.killed(); w.links[leaving] != nil {
				w.close(leaving)
			}
		}
	})
}

// fail is an enable that is undone before it is published.
func (w *world) fail() {
	if w.life != "" {
		return
	}
	w.do(func() {
		w.check(w.book.Opening(w.Context(), w.source()))
		defer w.vanish()
		w.lives++
		w.life, w.links, w.octets = fmt.Sprint("life ", w.lives), map[string]*device{}, 0
		for _, name := range w.document {
			w.links[name] = &device{up: true}
		}
		for _, name := range w.document {
			w.close(name)
		}
		w.vanish()
		w.check(w.book.Never(w.Context(), w.source()))
	})
}

func (w *world) delete(name string, closing func(context.Context, Source, ...string) error) {
	w.links[name].up = false
	w.killed()
	w.check(closing(w.Context(), w.source(), name))
	w.killed()
	w.remove(name)
}

func (w *world) remove(name string) {
	last := w.links[name].Counters
	delete(w.links, name)
	w.notices = append(w.notices, func() { w.book.Ended(8, name, last) })
}

// hear is what vsd does, unless there was too much to be heard.
func (w *world) hear() {
	if rapid.IntRange(0, 5).Draw(w.T, "missed") == 0 {
		w.book.Unheard(8)
		w.notices = nil
	}
	for _, tell := range w.notices {
		tell()
	}
	w.notices = nil
}

// close deletes an interface of a virtual server that stays.
func (w *world) close(name string) {
	w.delete(name, w.book.Closing)
	w.killed()
	w.check(w.book.Closing(w.Context(), w.source()))
	w.killed()
}

func (w *world) disable() {
	w.do(func() {
		if w.life == "" {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(w.links)) {
			w.delete(name, w.book.Leaving)
			w.killed()
		}
		w.check(w.book.Leaving(w.Context(), w.source()))
		w.life = ""
	})
}

func (w *world) change() {
	w.document = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"eth0", "eth1", "eth2"}), 0, 3, rapid.ID).Draw(w.T, "document")
	if w.life != "" {
		w.enable()
	}
}

func (w *world) traffic() {
	for name, d := range w.links {
		if d.up {
			n := rapid.Uint64Range(0, 1000).Draw(w.T, name)
			c := stats.Counters{RxBytes: n, RxPackets: min(n, 1), TxBytes: 2 * n, TxPackets: min(n, 1)}
			d.Counters = d.Plus(c)
			w.moved = w.moved.Plus(c)
			w.octets += int64(n)
		}
	}
}

// errorsBeginAgain is what the kernel's 32 bits do.
func (w *world) errorsBeginAgain() {
	for _, d := range w.links {
		if d.up {
			d.RxErrors = rapid.Uint64Range(0, 5).Draw(w.T, "errors")
		}
	}
}

// vanish is nothing that is heard: the namespace has lost its id before its links.
func (w *world) vanish() {
	w.life, w.links = "", nil
}

// unlink is one that was read: one that was not is the one loss that nobody can tell.
func (w *world) unlink() {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(w.links)), func(name string) bool { return !w.links[name].read })
	if len(names) > 0 {
		w.remove(rapid.SampledFrom(names).Draw(w.T, "link"))
	}
}

func (w *world) checkpoint() {
	w.hear()
	completed := w.do(func() { w.check(w.book.Checkpoint(w.Context(), []Source{w.source()})) })
	if !completed || w.warned {
		return
	}
	l, err := w.book.Ledger(8)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		w.Fatal(err)
	}
	// With a namespace to read, all that is not counted is in a gap, and was counted
	// after the last checkpoint.
	if w.life == "" {
		return
	}
	for _, d := range w.links {
		d.read = true
	}
	lost := w.moved.RxBytes - l.Kept.Total.RxBytes
	if lost > w.lost && l.Gaps == w.gaps {
		w.Fatalf("%d bytes are missing, and no gap was told", lost-w.lost)
	}
	if lost-w.lost > w.moved.RxBytes-w.written.RxBytes {
		w.Fatalf("%d bytes are missing, of %d since the last checkpoint", lost-w.lost, w.moved.RxBytes-w.written.RxBytes)
	}
	w.lost, w.gaps, w.written = lost, l.Gaps, w.moved
}

// tell is what ipmd does, with a reading that may be older than what was written.
func (w *world) tell(between func()) {
	var s stats.Sample
	if err := w.read(&s); err != nil {
		s = stats.Sample{ID: 8, Life: "none", Time: w.now}
	}
	w.now = w.now.Add(time.Second)
	between()
	if err := w.book.Tell(&s); err != nil {
		w.Fatal(err)
	}
	l := s.Ledger
	if l == nil {
		return
	}
	for _, f := range []stats.Figures{l.Figures, l.Kept.Figures} {
		sum := f.Removed
		for _, i := range f.Interfaces {
			sum = sum.Plus(i.Counters)
		}
		if f.Total != sum {
			w.Fatalf("the total is not the sum: %+v", f)
		}
		if f.Total.RxBytes > w.moved.RxBytes || f.Total.TxBytes > w.moved.TxBytes {
			w.Fatalf("%d bytes were counted of %d", f.Total.RxBytes, w.moved.RxBytes)
		}
	}
	octets, _ := l.Kept.MIB.Lookup("IpExt", "InOctets")
	if l.Kept.Total.RxBytes < w.keptRx || octets < w.octet || l.Total.RxBytes < l.Kept.Total.RxBytes {
		w.Fatalf("from %d bytes it went back to %d (%d now), from %d octets to %d", w.keptRx, l.Kept.Total.RxBytes, l.Total.RxBytes, w.octet, octets)
	}
	if !w.epoch.IsZero() && !l.Since.Equal(w.epoch) {
		w.Fatalf("the epoch was %v and is %v", w.epoch, l.Since)
	}
	w.keptRx, w.octet, w.epoch = l.Kept.Total.RxBytes, octets, l.Since
}

// Whatever happens, and whoever is killed at whatever moment, nothing is counted twice,
// nothing goes back, and nothing is lost in silence.
func TestModel(t *testing.T) {
	root := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(root, "")
		if err != nil {
			t.Fatal(err)
		}
		w := &world{T: t, now: time.Unix(1e9, 0).UTC(), document: []string{"eth0"}}
		w.fills = rapid.IntRange(0, 3).Draw(t, "small disk") == 0
		w.newBook(dir)
		ops := map[string]func(){
			"enable": w.enable, "disable": w.disable, "change": w.change, "checkpoint": w.checkpoint,
			"traffic": w.traffic, "errors": w.errorsBeginAgain,
			"remake": w.remake, "move": w.move, "hear": w.hear, "fail": w.fail, "vanish": w.vanish, "unlink": w.unlink,
		}
		names := slices.Sorted(maps.Keys(ops))
		if !w.do(w.enableFirst) {
			return
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			w.now = w.now.Add(time.Second)
			op := ops[rapid.SampledFrom(names).Draw(t, "op")]
			w.T = t
			if rapid.Bool().Draw(t, "while it is told") {
				w.tell(op)
			} else {
				op()
			}
			w.tell(func() {})
		}
		w.checkpoint()
	})
}

// enableFirst creates it: counting begins before there is anything to count.
func (w *world) enableFirst() {
	w.full = false
	w.check(w.book.Opening(w.Context(), w.source()))
}
