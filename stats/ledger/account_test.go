package ledger

import (
	"bytes"
	"encoding/json"
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

// Whatever a file holds, it is refused, or counted on from, and written as it was read.
func FuzzAccount(f *testing.F) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a := newAccount(reading{Phase: open, Time: begin, Life: "x", Links: []link{{Interface: stats.Interface{Name: "eth0"}}}})
	a.Token = "t"
	f.Add(seal(a))
	f.Add(seal(readings{8: {Token: "t", Last: a.Last}}))
	f.Add(seal(map[string]statement{"id": a.statement(a.own())}))
	f.Fuzz(func(t *testing.T, text []byte) {
		if json.Valid(text) && bytes.HasPrefix(text, []byte("{\"id\"")) { // what fits its checksum
			text = seal(json.RawMessage(text))
		}
		var a account
		if unseal(text, &a) == nil {
			var again account
			if err := unseal(seal(&a), &again); err != nil || !bytes.Equal(seal(&a), seal(&again)) {
				t.Errorf("%s\nis read as\n%s, %v", seal(&a), seal(&again), err)
			}
			now := reading{Phase: open, Time: begin, Life: "y", Links: []link{{Interface: stats.Interface{Name: "eth0"}}}}
			c := a.clone()
			for _, change := range []func(reading){c.seen, c.toOpen, func(r reading) { c.toClose(r, "eth0") }, c.toOpen} {
				change(now)
				c.tidy([]string{"eth0", "eth1"})
				c.told(&now)
			}
		}
		var all readings
		if unseal(text, &all) == nil {
			all.current(8, &a)
		}
		var moved map[string]statement
		if unseal(text, &moved) == nil {
			for _, s := range moved {
				s.after(statement{}.plus(s))
			}
		}
	})
}
