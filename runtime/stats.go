package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/stats"
)

// Sources are the virtual servers whose counters can be read: those that are
// meant to be enabled. Those whose record cannot be read are named in the
// error.
func (s *Store) Sources(netnsDir string) ([]stats.Source, error) {
	list, err := s.List()
	return s.sources(list, netnsDir, cgroup.Find()), err
}

// Stats reads counters straight from the kernel: of the virtual servers named,
// or of all that are enabled.
func (r *Runtime) Stats(_ context.Context, words ...string) ([]stats.Sample, error) {
	sources, err := r.Store.Sources(r.NetnsDir)
	if len(words) > 0 {
		sources, err = r.named(words)
	}
	if err != nil {
		return nil, err
	}
	samples, book := []stats.Sample{}, r.Store.Ledgers()
	for _, src := range sources {
		sample, err := stats.Read(src)
		if errors.Is(err, fs.ErrNotExist) && len(words) == 0 {
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, notEnabled(src.ID)
		}
		if err != nil {
			return nil, err
		}
		r.warn(book.Tell(&sample))
		samples = append(samples, sample)
	}
	return samples, nil
}

// CountNeighbours counts the neighbours of virtual servers of this host, into what was
// read of them.
func (r *Runtime) CountNeighbours(samples []stats.Sample) error {
	for i := range samples {
		s := &samples[i]
		m, err := stats.Neighbours(r.place(s.ID).Path())
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // else it has gone since
			return fmt.Errorf("vs%d: %w", s.ID, err)
		}
		s.Neighbours = m
	}
	return nil
}

// CountRealms reads the routing realms of virtual servers of this host into what was read
// of them, as far as their interfaces have any.
func (r *Runtime) CountRealms(samples []stats.Sample) error {
	for i := range samples {
		vs, err := r.Store.Load(samples[i].ID)
		if err != nil { // the counters are worth showing all the same
			if !errors.Is(err, ErrNotFound) {
				r.warn(err)
			}
			continue
		}
		var realms []int
		for _, one := range vs.Interfaces {
			if one.Realm != 0 {
				realms = append(realms, one.Realm)
			}
		}
		if len(realms) == 0 {
			continue
		}
		if samples[i].Realms, err = stats.Realms(realms...); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func notEnabled(id int) error {
	return &plumbing.Refusal{
		Err:  fmt.Errorf("vs%d is not enabled", id),
		Cure: fmt.Sprintf("enable it: vsrun enable %d", id),
	}
}

func (r *Runtime) named(words []string) ([]stats.Source, error) {
	var sources []stats.Source
	groups := cgroup.Find()
	for _, word := range words {
		id, err := r.Store.Find(word)
		if err != nil {
			return nil, err
		}
		vs, err := r.Store.Load(id)
		if err != nil {
			return nil, err
		}
		sources = append(sources, stats.Source{ID: id, Name: vs.Title(), Path: r.place(id).Path(), Groups: groups})
	}
	return sources, nil
}
