package ipmd

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/vsrun/vsrun/stats"
)

// An index is the virtual servers that there are. It does not change.
type index struct {
	sources []stats.Source // as they were listed
	entries []*entry
	byWord  map[string]*entry // by number, and by name where that is no number
}

// list is the index of now.
func (s *Server) list(ctx context.Context) (*index, error) {
	sources, err := s.Sources(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot list the virtual servers: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index == nil || !sameList(s.index.sources, sources) {
		s.index = s.reindex(s.index, sources)
	}
	return s.index, nil
}

// sameList tells it at once of a list that has not changed.
func sameList(a, b []stats.Source) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// reindex keeps what is known of the virtual servers that were there before.
func (s *Server) reindex(old *index, sources []stats.Source) *index {
	fresh := &index{sources, make([]*entry, len(sources)), make(map[string]*entry, 2*len(sources))}
	s.sampler.enough.Store(int64(4*len(sources) + 100))
	kept := 0
	for i, src := range sources {
		id := strconv.Itoa(src.ID)
		e := old.find(id)
		if e == nil || !sameServer(e.src, src) {
			e = newEntry(src)
		} else {
			kept++
		}
		fresh.entries[i] = e
		fresh.byWord[id] = e
		if _, err := strconv.Atoi(src.Name); err != nil && fresh.byWord[src.Name] == nil {
			fresh.byWord[src.Name] = e
		}
	}
	if old != nil && kept < len(old.entries) {
		for _, e := range old.entries {
			if fresh.byWord[strconv.Itoa(e.src.ID)] != e {
				e.retire() // before: no later cursor is given out with its figures
			}
		}
		s.sampler.forget()
	}
	return fresh
}

// sameServer leaves out the cgroups, which are one tree for all.
func sameServer(a, b stats.Source) bool { return a.ID == b.ID && a.Name == b.Name && a.Path == b.Path }

func (x *index) find(word string) *entry {
	if x == nil {
		return nil
	}
	return x.byWord[word]
}

const few = 8

// pick is what is picked of the virtual servers that there are now, and whether they are
// many: to read all at once costs about a twentieth for each, and is nothing for a handful.
func (s *Server) pick(ctx context.Context, g grant, q question) (picked []*entry, many bool, err error) {
	list, err := s.list(ctx)
	if err != nil {
		return nil, false, err
	}
	picked, err = list.pick(g, q)
	return picked, len(picked) > max(few, len(list.entries)/20), err
}

// pick is the virtual servers asked for, each once, or without ids all that the asker
// may see. A number is an ID, and nobody's name.
func (x *index) pick(g grant, q question) ([]*entry, error) {
	if len(q.ids) == 0 && g.all {
		return x.entries, nil
	}
	var picked []*entry
	if len(q.ids) == 0 {
		for _, e := range x.entries {
			if g.sees(e.src) {
				picked = append(picked, e)
			}
		}
		return picked, nil
	}
	for _, id := range q.ids {
		e := x.byWord[id]
		switch {
		case !g.all && (e == nil || !g.sees(e.src)): // nor whether there is one
			return nil, &forbidden{g.who, fmt.Sprintf("virtual server %q", id)}
		case e == nil && (q.absent || q.watching):
			continue
		case e == nil:
			return nil, fmt.Errorf("%w: %q", ErrNotFound, id)
		}
		if !slices.Contains(picked, e) {
			picked = append(picked, e)
		}
	}
	return picked, nil
}
