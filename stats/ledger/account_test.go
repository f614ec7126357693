package ledger

import (
	"testing"
	"time"

	"github.com/vsrun/vsrun/stats"
)

// An interface has one time since which it is counted, however often it is looked at,
// written or made again.
func TestSinceStays(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds int, life string) reading {
		r := reading{Phase: open, Time: begin.Add(time.Duration(seconds) * time.Second), Life: life}
		if life == "" {
			r.Phase = closed
			return r
		}
		r.Links = []link{{Interface: stats.Interface{Name: "eth0", Counters: stats.Counters{RxBytes: uint64(seconds)}}}}
		return r
	}
	a := newAccount(at(0, ""))
	a.toOpen(at(1, ""))
	a.tidy([]string{"eth0"})
	check := func(when string, f figures) {
		t.Helper()
		if f.Interfaces[0].Since != begin.Add(time.Second) {
			t.Errorf("%s: since %v", when, f.Interfaces[0].Since)
		}
	}
	check("looked at", a.with(at(5, "x")))
	check("looked at again", a.with(at(9, "x")))
	a.seen(at(10, "x"))
	check("kept", a.own())
	a.toClose(at(11, "x"))
	a.toOpen(at(20, ""))
	a.tidy([]string{"eth0"})
	a.seen(at(25, "y"))
	check("in another life", a.own())
}
