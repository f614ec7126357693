package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/stats"
	"github.com/vsrun/vsrun/stats/ledger"
)

// Ledgers are what the virtual servers of the store have counted over all of their lives.
func (s *Store) Ledgers() *ledger.Book { return s.ledgers() }

func (s *Store) newBook() *ledger.Book {
	return &ledger.Book{
		Dir: s.dir,
		Lock: func(ctx context.Context) (func(), error) {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			return s.lock(ctx, books)
		},
		Read: func(path string) ([]byte, error) {
			text, err := readRecord(path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("cannot use %s: %w", path, err)
			}
			return text, err
		},
		Replace: func(path string, text []byte) error {
			dir, name := filepath.Split(path)
			if err := s.makeDir(dir); err != nil {
				return err
			}
			return replaceFile(filepath.Join(dir, "."+name+".new"), path, text)
		},
	}
}

// makeDir makes the directory of a virtual server, unless it is there.
func (s *Store) makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return s.sync()
}

// account is a virtual server for its ledger, read by what opens its namespace.
func (vs VirtualServer) account(read func(*stats.Sample) error) ledger.Source {
	s := ledger.Source{ID: vs.ID, Read: read}
	for _, i := range vs.Interfaces {
		s.Wanted = append(s.Wanted, i.Name)
	}
	return s
}

// inside is one whose namespace a handle holds, published or not.
func inside(h *plumbing.Handle, vs VirtualServer) ledger.Source {
	return vs.account(func(s *stats.Sample) (err error) {
		if h.Namespace() == nil {
			return fs.ErrNotExist
		}
		*s, err = stats.Read(stats.Source{ID: vs.ID, Path: fmt.Sprintf("/proc/self/fd/%d", h.Namespace().Fd())})
		return err
	})
}

// What becomes of a ledger keeps nobody from anything: what it lacks then is a gap.

func (r *Runtime) opening(h *plumbing.Handle, vs VirtualServer, plan plumbing.Plan) {
	s := inside(h, vs)
	before, err := h.Before(plan)
	r.warn(err)
	for name, c := range before {
		if s.Before == nil {
			s.Before = map[string]stats.Counters{}
		}
		s.Before[name] = stats.Counters(c)
	}
	r.warn(r.Store.Ledgers().Opening(context.Background(), s))
}

func (r *Runtime) never(vs VirtualServer) {
	nothing := func(*stats.Sample) error { return fs.ErrNotExist }
	r.warn(r.Store.Ledgers().Never(context.Background(), vs.account(nothing)))
}

// closing is what is to be done when links are down, before they are deleted, and again
// when they are gone.
func (r *Runtime) closing(h *plumbing.Handle, vs VirtualServer) func(dev ...string) {
	return func(dev ...string) {
		r.warn(r.Store.Ledgers().Closing(context.Background(), inside(h, vs), dev...))
	}
}

// leaving is closing for a virtual server that is taken down.
func (r *Runtime) leaving(h *plumbing.Handle, vs VirtualServer) func(dev ...string) {
	return func(dev ...string) {
		r.warn(r.Store.Ledgers().Leaving(context.Background(), inside(h, vs), dev...))
	}
}

// LinkEnded says what an interface inside had counted when somebody deleted it.
func (r *Runtime) LinkEnded(id int, name string, last plumbing.Counted) {
	r.Store.Ledgers().Ended(id, name, stats.Counters(last))
}

func (r *Runtime) warn(err error) {
	if err != nil && r.Warn != nil {
		r.Warn(err)
	}
}

// source is a virtual server whose namespace has its name, and is ours.
func (r *Runtime) source(vs VirtualServer) ledger.Source {
	return vs.account(func(s *stats.Sample) error {
		h, err := r.view.Open(r.place(vs.ID))
		if err != nil {
			return err
		}
		defer h.Close()
		whose, err := h.Whose()
		if err == nil && whose != plumbing.Ours {
			err = fs.ErrNotExist
		}
		if err != nil {
			return err
		}
		return inside(h, vs).Read(s)
	})
}

// Checkpoint writes down what all virtual servers have counted, in one file.
func (r *Runtime) Checkpoint(ctx context.Context) error {
	list, err := r.Store.List()
	sources := make([]ledger.Source, len(list))
	for k, vs := range list {
		sources[k] = r.source(vs)
	}
	return errors.Join(err, r.Store.Ledgers().Checkpoint(ctx, sources))
}

// An Account is the ledger of a virtual server.
type Account struct {
	ID     int           `json:"id"`
	Name   string        `json:"name"`
	Ledger *stats.Ledger `json:"ledger"`
}

// Account is what a virtual server has counted until now. One that was never enabled
// may have nothing: then Ledger is nil.
func (r *Runtime) Account(vs VirtualServer) (Account, error) {
	a, book := Account{ID: vs.ID, Name: vs.Title()}, r.Store.Ledgers()
	s := stats.Sample{ID: vs.ID}
	err := r.source(vs).Read(&s)
	if err == nil {
		err = book.Tell(&s)
		a.Ledger = s.Ledger
		return a, err
	}
	if errors.Is(err, fs.ErrNotExist) {
		a.Ledger, err = book.Ledger(vs.ID)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return a, err
}

// ResetAccount begins a new epoch, and returns what the old one had counted.
func (r *Runtime) ResetAccount(ctx context.Context, vs VirtualServer) (*stats.Ledger, error) {
	return r.Store.Ledgers().Reset(ctx, r.source(vs))
}

// ExportAccount is what a virtual server has counted until now, for another node.
func (r *Runtime) ExportAccount(ctx context.Context, vs VirtualServer) ([]byte, error) {
	return r.Store.Ledgers().Export(ctx, r.source(vs))
}

// ImportAccount adds what another node has exported. It tells whether there was
// something new in it.
func (r *Runtime) ImportAccount(ctx context.Context, vs VirtualServer, text []byte) (fresh bool, err error) {
	err = r.Store.Ledgers().Import(ctx, r.source(vs), text)
	if errors.Is(err, ledger.ErrHadIt) {
		return false, nil
	}
	return err == nil, err
}
