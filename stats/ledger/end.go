package ledger

import (
	"maps"
	"slices"
	"sync"

	"github.com/vsrun/vsrun/stats"
)

// ends are what interfaces had counted when somebody deleted them, by virtual server and
// name, for the next writing of its account. The zero ends are ready.
type ends struct {
	mu  sync.Mutex
	all map[int]map[string]stats.Counters
}

// Ended is for whoever hears from the kernel that an interface is gone: without it, what
// that had counted since the last reading is a gap. Nothing is written before the next
// Opening, Closing or Checkpoint by this process.
func (b *Book) Ended(id int, name string, last stats.Counters) {
	b.ends.mu.Lock()
	defer b.ends.mu.Unlock()
	if b.ends.all == nil {
		b.ends.all = map[int]map[string]stats.Counters{}
	}
	if b.ends.all[id] == nil {
		b.ends.all[id] = map[string]stats.Counters{}
	}
	b.ends.all[id][name] = last
}

// Begun takes that back: there is one of the name by now.
func (b *Book) Begun(id int, name string) {
	b.ends.mu.Lock()
	defer b.ends.mu.Unlock()
	delete(b.ends.all[id], name)
}

// Unheard takes back all ends of a virtual server: there is another namespace, or it is not
// known what has begun since.
func (b *Book) Unheard(id int) {
	b.ends.mu.Lock()
	defer b.ends.mu.Unlock()
	delete(b.ends.all, id)
}

func (e *ends) of(id int) map[string]stats.Counters {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.all[id])
}

// drop forgets those that were taken in.
func (e *ends) drop(id int, taken map[string]stats.Counters) {
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.DeleteFunc(e.all[id], func(name string, c stats.Counters) bool { return taken[name] == c })
	if len(e.all[id]) == 0 {
		delete(e.all, id)
	}
}

// took closes those links of the last reading that have ended since, and are not in the
// present one, with what they had counted then. Of a life that was never read all links count.
func (a *account) took(now reading, ended map[string]stats.Counters) {
	if len(ended) == 0 || now.Life == "" {
		return
	}
	if a.Last.Phase == opening && a.Last.Life == "" && !slices.Contains(a.Ended, now.Life) {
		for name, end := range ended {
			if l := (link{Interface: stats.Interface{Name: name, Counters: end}}); !now.goesOn(l) {
				a.add([]link{l}, mib{})
				a.begin(nil, []link{l})
			}
		}
	}
	if now.Life != a.Last.Life {
		return
	}
	a.Last.Links = slices.Clone(a.Last.Links)
	for k := range a.Last.Links {
		was := &a.Last.Links[k]
		end, heard := ended[was.Name]
		if !heard || was.Closed || remade(was.Counters, end) || now.goesOn(*was) {
			continue
		}
		a.add([]link{{Interface: stats.Interface{Name: was.Name, Counters: fallen(was.Counters, end)}}}, mib{})
		was.Counters, was.Closed = end, true
	}
}

// goesOn tells whether a link of an earlier reading is in this one, and not one that was
// made anew.
func (r *reading) goesOn(was link) bool {
	i := slices.IndexFunc(r.Links, func(l link) bool { return l.Name == was.Name })
	return i >= 0 && !remade(was.Counters, r.Links[i].Counters)
}
