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
	a.toOpen(at(1, ""), nil)
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
	a.toOpen(at(20, ""), nil)
	a.tidy([]string{"eth0"})
	a.seen(at(25, "y"))
	check("in another life", a.own())
}

// When the clock has been set back the last reading is of the future, and what is counted
// counts on all the same. Otherwise what was read before the last one tells nothing.
func TestClockSetBack(t *testing.T) {
	at := func(when time.Time, n uint64) reading {
		return reading{Phase: open, Time: when, Life: "x", Links: []link{{Interface: stats.Interface{Name: "eth0", Counters: stats.Counters{RxBytes: n}}}}}
	}
	for _, c := range []struct {
		ahead time.Duration
		want  uint64
	}{{time.Hour, 8}, {-time.Hour, 5}} {
		last := time.Now().Add(c.ahead)
		a := newAccount(at(last, 0))
		a.toOpen(at(last, 0), nil)
		a.seen(at(last, 5))
		if got := a.with(at(last.Add(-2*time.Hour), 8)).list().Total.RxBytes; got != c.want {
			t.Errorf("the last reading is %v ahead: %d bytes, not %d", c.ahead, got, c.want)
		}
	}
}

// A device of the host's counts on when it is moved in: what it had counted before is not the
// virtual server's, in no life.
func TestBefore(t *testing.T) {
	clock := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(life string, counted ...uint64) reading {
		clock = clock.Add(time.Second)
		r := reading{Phase: open, Time: clock, Life: life}
		if life == "" {
			r.Phase = closed
		}
		for _, n := range counted {
			r.Links = append(r.Links, link{Interface: stats.Interface{Name: "eth0", Counters: stats.Counters{RxBytes: n}}})
		}
		return r
	}
	had := func(n uint64) map[string]stats.Counters { return map[string]stats.Counters{"eth0": {RxBytes: n}} }
	a := newAccount(at(""))
	expect := func(when string, f figures, want uint64) {
		t.Helper()
		if got := f.list().Total.RxBytes; got != want || a.Gaps != 0 {
			t.Errorf("%s: %d bytes and %d gaps; want %d and none", when, got, a.Gaps, want)
		}
	}
	a.toOpen(at(""), had(1000))
	expect("opened", a.own(), 0)
	expect("opened, and looked at before it is there", a.with(at("x")), 0)
	expect("looked at", a.with(at("x", 1010)), 10)
	a.seen(at("x"))
	expect("kept before it was there", a.own(), 0)
	expect("looked at, in a life that is known", a.with(at("x", 1010)), 10)
	a.seen(at("x", 1010))
	a = a.clone()
	a.seen(at("x", 1020))
	expect("kept", a.own(), 20)
	a.toLeave(at("x", 1030), "eth0")
	a.gone(at("").Time)
	expect("disabled", a.own(), 30)
	a.toOpen(at(""), had(1100))
	a.toLeave(at("y", 1105), "eth0")
	expect("enabled and disabled, and never looked at", a.own(), 35)
	a.toOpen(at(""), had(1200))
	a.toNever()
	a.toOpen(at(""), had(2000))
	a.seen(at("z", 5))
	expect("a driver has begun anew", a.own(), 35)
	a.toClose(at("z", 6), "eth0")
	a.toClose(at("z"))
	a.toOpen(at("z"), had(3000))
	a.seen(at("z", 3004))
	expect("attached again", a.own(), 40)
	a.toOpen(at("z", 3004), had(9)) // for one that never came
	a.toClose(at("z", 3004), "eth0")
	a.toClose(at("z"))
	a.toOpen(at("z"), nil)
	a.seen(at("z", 7))
	expect("a macvlan in its place", a.own(), 47)
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
			open := func(r reading) { c.toOpen(r, nil) }
			for _, change := range []func(reading){c.seen, open, func(r reading) { c.toClose(r, "eth0") }, open} {
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
