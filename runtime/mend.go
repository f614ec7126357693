package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime/service"
)

// Mend makes a virtual server what its record says, where it is not, and tells what was
// different, also that which nobody can mend. It does nothing unless begin, which is told
// under the lock, agrees. One that is as it should be costs a look; one that is not there
// is none.
func (r *Runtime) Mend(ctx context.Context, id int, begin func([]Drift) bool) (drift []Drift, err error) {
	s, err := r.Status(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil || !slices.ContainsFunc(s.Drift, Drift.Mendable) {
		return s.Drift, err
	}
	unlock, err := r.Store.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if r.IsDown() { // perhaps since a moment ago
		return nil, nil
	}
	vs, err := r.Store.Load(id)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s, err = r.status(ctx, vs) // somebody may just have been at work on it
	if err != nil || !slices.ContainsFunc(s.Drift, Drift.Mendable) || !begin(s.Drift) {
		return s.Drift, err
	}
	return s.Drift, r.reconcile(ctx, vs)
}

// MendPort is Mend for a port.
func (r *Runtime) MendPort(ctx context.Context, name string, begin func([]Drift) bool) (drift []Drift, err error) {
	unlock, err := r.Store.lock(ctx, host)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if r.IsDown() {
		return nil, nil
	}
	p, err := r.Store.loadPort(name)
	if errors.Is(err, ErrNoPort) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if drift, err = r.DiffPort(p.Bond); err != nil || !slices.ContainsFunc(drift, Drift.Mendable) || !begin(drift) {
		return drift, err
	}
	return drift, r.reconcilePort(ctx, p)
}

// Announce tells the segments of a virtual server where its addresses are.
func (r *Runtime) Announce(ctx context.Context, id int) error {
	unlock, err := r.Store.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	vs, err := r.Store.Load(id)
	if err != nil || vs.Disabled {
		return err
	}
	h, err := plumbing.Open(r.place(id))
	if err != nil {
		return err
	}
	defer h.Close()
	if h.Namespace() == nil {
		return nil
	}
	want := r.network(vs)
	have, err := h.Observe(want)
	if err != nil {
		return err
	}
	return plumbing.Announcements(want, have).Apply(ctx, h)
}

// InitOf is the init that the services of a virtual server have, to be closed;
// service.ErrNotRunning when there is none.
func (r *Runtime) InitOf(id int) (*service.Client, error) { return service.Dial(r.socket(id)) }

// Path is where the namespace of a virtual server is published.
func (r *Runtime) Path(id int) string { return r.place(id).Path() }

// down is a file that is there while nobody is to bring up what was taken down.
func (r *Runtime) down() string { return filepath.Join(r.RunDir, "down") }

// SetDown says that all virtual servers are to stay as they are, up or down, or that this
// is over.
func (r *Runtime) SetDown(down bool) error {
	if !down {
		err := os.Remove(r.down())
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	err := os.MkdirAll(r.RunDir, 0o755)
	if err == nil {
		err = os.WriteFile(r.down(), nil, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot have vsd stand by: %w", err)
	}
	return nil
}

// IsDown reports whether that has been said.
func (r *Runtime) IsDown() bool {
	_, err := os.Lstat(r.down())
	return err == nil
}
