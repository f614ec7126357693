package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime/service"
)

// Mend makes a virtual server what its record says, where it is not, and tells what was
// different, also that which nobody can mend. It does nothing unless begin, which is told
// under the lock, agrees. One that is as it should be costs a look; one that is not there
// is none. Who else is at work on it is not waited for: ErrBusy.
func (r *Runtime) Mend(ctx context.Context, id int, begin func([]Drift) bool) (drift []Drift, err error) {
	s, err := r.Status(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil || !slices.ContainsFunc(s.Drift, Drift.Mendable) {
		return s.Drift, err
	}
	vs, unlock, err := r.Store.tryHold(id)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	if r.IsDown() { // perhaps since a moment ago
		return nil, nil
	}
	s, err = r.status(ctx, vs) // somebody may just have been at work on it
	if err != nil || !slices.ContainsFunc(s.Drift, Drift.Mendable) || !begin(s.Drift) {
		return s.Drift, err
	}
	want, err := r.changed(vs, asItIs)
	if err == nil && !same(want, vs) { // it gets back what an apply took that did not end
		err = r.Store.claim(ctx, want, r.MachineID)
	}
	if err != nil {
		return s.Drift, err
	}
	return s.Drift, r.mend(ctx, want)
}

// mend is reconcile for what nobody has asked for. Services that have to do without a
// network, whose port is away, run nevertheless, as those did that were there before.
func (r *Runtime) mend(ctx context.Context, vs VirtualServer) error {
	h, err := r.open(vs.ID)
	if err != nil {
		return err
	}
	defer h.Close()
	whose, err := h.Whose()
	if err != nil {
		return err
	}
	var refused *plumbing.Refusal
	if whose == plumbing.Ours && !vs.Disabled {
		if _, err := r.plan(h, vs); errors.As(err, &refused) {
			return r.serveMending(ctx, h.Namespace(), vs, false)
		}
	}
	return r.reconcileBy(ctx, vs, r.serveMending)
}

// serveMending leaves units that somebody has stopped to him and to systemd, unless all of
// them have been stopped for a namespace that was lost.
func (r *Runtime) serveMending(ctx context.Context, ns *nsutil.Namespace, vs VirtualServer, fresh bool) error {
	if vs.Supervisor == Systemd && !fresh {
		return nil
	}
	return r.serve(ctx, ns, vs, fresh)
}

// MendPort is Mend for a port.
func (r *Runtime) MendPort(ctx context.Context, name string, begin func([]Drift) bool) (drift []Drift, err error) {
	_, drift, err = r.lookAfterPort(name)
	if err != nil || len(drift) == 0 {
		return nil, err
	}
	unlock, err := r.Store.lock(ctx, host)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if r.IsDown() {
		return nil, nil
	}
	p, drift, err := r.lookAfterPort(name) // somebody may just have been at work on it
	if err != nil || !slices.ContainsFunc(drift, Drift.Mendable) || !begin(drift) {
		return drift, err
	}
	return drift, r.reconcilePort(ctx, p)
}

// lookAfterPort is the record of a port, and what differs; nothing where there is none.
func (r *Runtime) lookAfterPort(name string) (p portRecord, drift []Drift, err error) {
	p, err = r.Store.loadPort(name)
	if errors.Is(err, ErrNoPort) {
		return p, nil, nil
	}
	if err == nil {
		drift, err = r.DiffPort(p.Bond)
	}
	return p, drift, err
}

// Announce tells the segments of a virtual server where its addresses are. Like Mend it does
// not wait: ErrBusy.
func (r *Runtime) Announce(ctx context.Context, id int) error {
	vs, unlock, err := r.Store.tryHold(id)
	if err != nil {
		return err
	}
	defer unlock()
	if vs.Disabled {
		return nil
	}
	h, err := r.view.Open(r.place(id))
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
