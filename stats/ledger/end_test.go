package ledger

import (
	"context"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/vsrun/vsrun/stats"
)

// What an interface has counted until its end is kept where that was heard, once.
func TestEnded(t *testing.T) {
	life, counted := "", []uint64{} // by the interface, if it is there
	clock := time.Unix(1e9, 0).UTC()
	source := Source{ID: 8, Wanted: []string{"eth0"}, Read: func(s *stats.Sample) error {
		if life == "" {
			return fs.ErrNotExist
		}
		clock = clock.Add(time.Second)
		*s = stats.Sample{ID: 8, Time: clock, Life: life}
		for _, n := range counted {
			s.Interfaces = append(s.Interfaces, stats.Interface{Name: "eth0", Counters: stats.Counters{RxBytes: n, RxErrors: n % 10}})
		}
		return nil
	}}
	book := &Book{Dir: t.TempDir(), Read: os.ReadFile, Replace: replaceIn, Lock: func(context.Context) (func(), error) { return func() {}, nil }}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	expect := func(when string, total uint64, gaps int) {
		t.Helper()
		must(book.Checkpoint(t.Context(), []Source{source}))
		l, err := book.Ledger(8)
		must(err)
		if l.Kept.Total.RxBytes != total || l.Gaps != gaps {
			t.Errorf("%s: %d bytes, %d gaps; want %d, %d", when, l.Kept.Total.RxBytes, l.Gaps, total, gaps)
		}
	}
	must(book.Opening(t.Context(), source))
	life = "x"
	book.Ended(8, "eth0", stats.Counters{RxBytes: 7})
	expect("before anybody looked", 7, 0)
	must(book.Opening(t.Context(), source))
	counted = []uint64{105}
	expect("then", 112, 0)

	book.Ended(8, "eth0", stats.Counters{RxBytes: 153, RxErrors: 3}) // of 32 bits, and begun again
	counted = nil
	must(book.Opening(t.Context(), source))
	expect("deleted", 160, 0)
	if l, _ := book.Ledger(8); l.Kept.Total.RxErrors != 5+3 {
		t.Errorf("%d errors are counted", l.Kept.Total.RxErrors)
	}

	counted = []uint64{10}
	expect("made again", 170, 0)
	book.Ended(8, "eth0", stats.Counters{RxBytes: 20})
	counted = []uint64{5}
	expect("made again before anybody looked", 185, 0)

	book.Ended(8, "eth0", stats.Counters{RxBytes: 500})
	expect("it is there, so that was another", 185, 0)
	book.Ended(8, "eth0", stats.Counters{RxBytes: 500})
	book.Begun(8, "eth0")
	counted = nil
	expect("nobody has heard of its end", 185, 1)
}
