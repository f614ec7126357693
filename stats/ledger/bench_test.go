package ledger

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/vsrun/vsrun/stats"
)

// many is a book of a thousand virtual servers, as a kernel has them.
func many(b *testing.B) (*Book, []Source) {
	b.Helper()
	book := &Book{Dir: b.TempDir(), Read: os.ReadFile, Replace: replaceIn, Lock: func(context.Context) (func(), error) { return func() {}, nil }}
	var list []Source
	for id := 1; id <= 1000; id++ {
		list = append(list, Source{ID: id, Wanted: []string{"eth0"}, Read: func(s *stats.Sample) error {
			*s = stats.Sample{ID: id, Life: fmt.Sprint("life ", id), Time: time.Now(), Interfaces: []stats.Interface{{Name: "eth0"}}}
			for k, c := range counted {
				if k == 0 || counted[k-1].group != c.group {
					s.MIB = append(s.MIB, stats.Group{Name: c.group})
				}
				g := &s.MIB[len(s.MIB)-1]
				g.Counters = append(g.Counters, stats.Counter{Name: c.name, Value: int64(id)})
			}
			return nil
		}})
	}
	if err := book.Checkpoint(b.Context(), list); err != nil {
		b.Fatal(err)
	}
	return book, list
}

func BenchmarkCheckpoint1000(b *testing.B) {
	book, list := many(b)
	for b.Loop() {
		if err := book.Checkpoint(b.Context(), list); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTell(b *testing.B) {
	book, list := many(b)
	var s stats.Sample
	if err := list[7].Read(&s); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := book.Tell(&s); err != nil {
			b.Fatal(err)
		}
	}
}
