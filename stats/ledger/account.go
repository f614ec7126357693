package ledger

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/stats"
)

// A phase is whether a virtual server may be counting without our knowledge.
type phase string

const (
	closed  phase = "closed"  // nothing is counted: its links are down, or gone
	opening phase = "opening" // it is about to be put on the network, and no reading was taken since
	open    phase = "open"    // it was seen there
)

// An account is the ledger of one virtual server. It changes in memory; a Book writes
// it.
type account struct {
	ID      string               `json:"id"`    // of the epoch, on all nodes
	Token   string               `json:"token"` // of this writing
	Since   time.Time            `json:"since"`
	Gaps    int                  `json:"gaps,omitempty"`
	Lost    float64              `json:"lost,omitempty"`
	LastGap *stats.Gap           `json:"lastGap,omitempty"`
	Base    figures              `json:"base"`
	Ended   []string             `json:"ended,omitempty"` // the last lives that are in Base
	Last    reading              `json:"last"`
	Moved   map[string]statement `json:"moved,omitempty"` // by the ID of an account elsewhere

	// Before is what interfaces that are yet to be seen had counted elsewhere, by name.
	Before map[string]stats.Counters `json:"before,omitempty"`

	dirty bool // more than Last has changed
}

// A reading is what one life has counted, in a phase.
type reading struct {
	Phase phase     `json:"phase"`
	Time  time.Time `json:"time"` // of the reading; of an opening, its own
	Life  string    `json:"life,omitempty"`
	Links []link    `json:"links,omitempty"`
	MIB   mib       `json:"mib"`
}

// A link is an interface in one life. A closed one counts no more, and may be gone in
// the next reading.
type link struct {
	stats.Interface
	Closed bool   `json:"closed,omitempty"`
	Of     string `json:"of,omitempty"` // the interface that it was before another one took its place and name
}

// follow has links that were there before go by the names that they have now.
func follow(was, now []link) []link {
	was = slices.Clone(was)
	there := func(name string) bool {
		return slices.ContainsFunc(was, func(l link) bool { return l.Name == name })
	}
	for k, l := range was {
		leaving := nsutil.LeavingName(l.Name)
		if !there(leaving) && slices.ContainsFunc(now, func(n link) bool { return n.Name == leaving }) {
			was[k].Name, was[k].Of = leaving, l.Name
		}
	}
	return was
}

// lives is how many ended lives are remembered, for readings that were taken before.
const lives = 4

// newAccount begins to count now, from zero, in whatever life there is.
func newAccount(now reading) *account {
	a := &account{ID: rand.Text(), Since: now.Time}
	a.from(now)
	return a
}

// from counts what follows a reading, and not what is in it.
func (a *account) from(now reading) {
	for _, l := range now.Links {
		c := a.Base.account(l.Name, now.Time)
		*c = combine(*c, l.Counters, func(a, b uint64) uint64 { return a - b })
	}
	a.Base.MIB = a.Base.MIB.minus(now.MIB)
	a.Last, a.dirty = now, true
}

// clone can be changed without changing a.
func (a *account) clone() *account {
	c := *a
	c.Base = a.Base.plus(figures{})
	c.Ended = slices.Clone(a.Ended)
	c.Last.Links = slices.Clone(a.Last.Links)
	c.Moved, c.Before = maps.Clone(a.Moved), maps.Clone(a.Before)
	for id, s := range c.Moved {
		s.Figures = s.Figures.plus(figures{})
		c.Moved[id] = s
	}
	return &c
}

// check tells what is wrong with an account that was read.
func (a *account) check() error {
	switch {
	case a.ID == "" || a.Token == "" || a.Since.IsZero():
		return errors.New("it is not whole")
	case !slices.Contains([]phase{closed, opening, open}, a.Last.Phase):
		return fmt.Errorf("its phase is %q", a.Last.Phase)
	}
	return nil
}

// readingOf is what a sample says.
func readingOf(s *stats.Sample) reading {
	now := reading{Phase: open, Time: s.Time, Life: s.Life, MIB: pick(s.MIB)}
	for _, i := range s.Interfaces {
		now.Links = append(now.Links, link{Interface: i})
	}
	return now
}

// seen takes in a reading of the life that there is.
func (a *account) seen(now reading) {
	if now.Life == a.Last.Life {
		a.again(&now)
		a.begin(a.Last.Links, now.Links)
		a.Last = now
		return
	}
	if a.Last.Life != "" && a.Last.Phase != closed {
		a.gap(a.Last.Time, now.Time)
	}
	a.end()
	a.Last = now
	if k := slices.Index(a.Ended, now.Life); k >= 0 { // it was taken for gone, and published again
		a.Ended = slices.Delete(a.Ended, k, k+1)
		a.from(now)
		a.Before = nil
	}
	a.begin(nil, now.Links)
}

// begin subtracts what links that have come had counted before, once.
func (a *account) begin(was, now []link) {
	for _, l := range a.without(&a.Base, come(was, now)) {
		delete(a.Before, l)
		a.dirty = true
	}
}

// without takes from figures what links that have come had counted before, and names them.
func (a *account) without(f *figures, come []link) (names []string) {
	for _, l := range come {
		if before, there := a.Before[l.Name]; there {
			c := f.account(l.Name, a.Since)
			*c = less(*c, before, l.Counters)
			names = append(names, l.Name)
		}
	}
	return names
}

// come are the links that were not there, or were made anew.
func come(was, now []link) []link {
	return slices.DeleteFunc(slices.Clone(now), func(l link) bool {
		return slices.ContainsFunc(was, func(w link) bool { return w.Name == l.Name && !remade(w.Counters, l.Counters) })
	})
}

// less is a sum without what a link had counted before, of which it has now as much at most: some
// drivers begin anew when a device comes up.
func less(sum, before, now stats.Counters) stats.Counters {
	before = combine(before, now, func(a, b uint64) uint64 { return min(a, b) })
	return combine(sum, before, func(a, b uint64) uint64 { return a - b })
}

// again takes in another reading of the same life.
func (a *account) again(now *reading) {
	lost, counted := false, false
	a.Last.Links = follow(a.Last.Links, now.Links)
	if f := a.Last.MIB.fallen(now.MIB); f != (mib{has: f.has}) {
		a.add(nil, f)
	}
	for _, was := range a.Last.Links {
		i := slices.IndexFunc(now.Links, func(l link) bool { return l.Name == was.Name })
		switch {
		case !now.goesOn(was):
			a.add([]link{was}, mib{})
			lost = lost || !was.Closed
			counted = counted || i >= 0
		case now.Links[i].Counters == was.Counters:
			now.Links[i].Closed, now.Links[i].Of = was.Closed, was.Of
		default:
			counted = true
			now.Links[i].Of = was.Of
			if f := fallen(was.Counters, now.Links[i].Counters); f != (stats.Counters{}) {
				was.Counters = f
				a.add([]link{was}, mib{})
			}
		}
	}
	if lost {
		a.gap(a.Last.Time, now.Time)
	}
	for _, l := range now.Links {
		counted = counted || !slices.ContainsFunc(a.Last.Links, func(was link) bool { return was.Name == l.Name })
	}
	if !counted {
		now.Phase = a.Last.Phase
	}
}

func (a *account) add(list []link, m mib) {
	a.Base.add(list, m, a.Since)
	a.dirty = true
}

// end takes the last reading's life for ended.
func (a *account) end() {
	if a.Last.Life == "" {
		return
	}
	a.add(a.Last.Links, a.Last.MIB)
	a.Ended = append(a.Ended, a.Last.Life)
	a.Ended = a.Ended[max(0, len(a.Ended)-lives):]
	a.Last.Life, a.Last.Links, a.Last.MIB = "", nil, mib{}
}

func (a *account) gap(from, to time.Time) {
	a.Gaps++
	a.Lost += max(0, to.Sub(from).Seconds())
	a.LastGap = &stats.Gap{From: from, To: to}
	a.dirty = true
}

// gone says that there is no life now.
func (a *account) gone(at time.Time) {
	if a.Last.Phase != closed {
		a.gap(a.Last.Time, at)
	}
	a.end()
	a.Last.Phase, a.Last.Time = closed, at
}

// toOpen says that the virtual server is about to be put on the network. now is what
// is there already, with no life when nothing is. before is what interfaces have counted that
// are not there yet, but exist.
func (a *account) toOpen(now reading, before map[string]stats.Counters) {
	if now.Life != "" {
		a.seen(now)
	} else {
		a.gone(now.Time)
	}
	if a.Last.Phase == closed {
		a.Last.Phase, a.Last.Time, a.dirty = opening, now.Time, true
	}
	for k := range a.Last.Links { // one that was left, as by a teardown that was killed
		l := &a.Last.Links[k]
		a.dirty = a.dirty || l.Closed
		l.Closed = false
	}
	a.dirty = a.dirty || len(a.Before)+len(before) > 0
	a.Before = maps.Clone(before)
}

// toNever says that what was about to be put on the network is gone, whatever there was
// of it.
func (a *account) toNever() {
	if a.Last.Phase == opening && a.Last.Life == "" || a.Last.Life != "" && a.Last.closed() {
		a.Last.Phase, a.dirty = closed, true
	}
	a.dirty = a.dirty || a.Before != nil
	a.Before = nil
}

func (r *reading) closed() bool {
	return !slices.ContainsFunc(r.Links, func(l link) bool { return !l.Closed })
}

// toClose says that of the interfaces in a reading these are down, and about to be
// deleted.
func (a *account) toClose(now reading, names ...string) {
	if now.Life == "" {
		a.gone(now.Time)
		return
	}
	a.seen(now)
	for k := range a.Last.Links {
		l := &a.Last.Links[k]
		l.Closed = l.Closed || slices.Contains(names, l.Name)
	}
	a.dirty = true
}

// toLeave is toClose of a virtual server that is taken off the network.
func (a *account) toLeave(now reading, names ...string) {
	a.toClose(now, names...)
	if a.Last.closed() {
		a.Last.Phase = closed
	}
}

// tidy gives interfaces that are wanted an account, and forgets the names of those that
// are neither wanted nor there.
func (a *account) tidy(wanted []string) {
	keep := func(name string) bool {
		return slices.Contains(wanted, name) ||
			slices.ContainsFunc(a.Last.Links, func(l link) bool { return l.Name == name })
	}
	a.dirty = a.Base.tidy(keep) || a.dirty
	for _, name := range wanted {
		if !a.Base.has(name) {
			a.Base.account(name, a.Last.Time)
			a.dirty = true
		}
	}
	for id, s := range a.Moved {
		a.dirty = s.Figures.tidy(keep) || a.dirty
		a.Moved[id] = s
	}
}

// own is what this account has counted itself.
func (a *account) own() figures {
	sum := a.Base.plus(figures{})
	sum.add(a.Last.Links, a.Last.MIB, a.Since)
	return sum
}

// with is what would be counted if a reading were the last one: never less than own. One
// from before the last one, of a life or an interface that may have ended since, tells
// nothing; a last one of the future, since the clock was set back, does not say which is.
func (a *account) with(now reading) figures {
	if !now.Time.After(a.Last.Time) && !a.Last.Time.After(time.Now()) {
		return a.own()
	}
	if now.Life != a.Last.Life {
		sum := a.own()
		sum.add(now.Links, now.MIB, a.Since)
		a.without(&sum, now.Links)
		return sum
	}
	sum, was := a.Base.plus(figures{}), follow(a.Last.Links, now.Links)
	sum.add(larger(was, now.Links), a.Last.MIB.atLeast(now.MIB), a.Since)
	a.without(&sum, come(was, now.Links))
	return sum
}

// larger are the links of both, with the larger of their counters.
func larger(a, b []link) []link {
	list := slices.Clone(a)
	for _, l := range b {
		i := slices.IndexFunc(list, func(o link) bool { return o.Name == l.Name })
		if i < 0 {
			list = append(list, l)
			continue
		}
		list[i].Counters = combine(list[i].Counters, l.Counters, func(a, b uint64) uint64 { return max(a, b) })
	}
	return list
}
