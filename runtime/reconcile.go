package runtime

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/plumbing"
)

// reconcile makes the kernel match the record; was are what it said before.
func (r *Runtime) reconcile(ctx context.Context, vs VirtualServer, was ...*VirtualServer) error {
	return r.reconcileBy(ctx, vs, r.serve, was...)
}

// had are the interfaces of what one was, of which there may be some yet.
func had(was ...*VirtualServer) (list []plumbing.Interface) {
	for _, vs := range was {
		if vs != nil {
			list = append(append(list, vs.Interfaces...), had(vs.Before)...)
		}
	}
	return list
}

// A serving sees to the services of a virtual server. fresh: its namespace has just been
// made.
type serving func(ctx context.Context, ns *nsutil.Namespace, vs VirtualServer, fresh bool) error

func (r *Runtime) reconcileBy(ctx context.Context, vs VirtualServer, serve serving, was ...*VirtualServer) error {
	if vs.Disabled {
		return r.takeDown(ctx, vs.ID, OwnTimeout, was...)
	}
	if err := r.ensurePorts(ctx, vs); err != nil {
		return err
	}
	h, err := r.open(vs.ID)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := r.dropStrayUnits(ctx, h.Namespace(), vs); err != nil {
		return err
	}
	fresh := h.Namespace() == nil
	h.Had = had(append(was, vs.Before)...)
	h.Deleting = r.closing(h, vs)
	h.Deleted = func() { h.Deleting() }
	changed, err := r.plumb(ctx, h, vs)
	if err != nil && h.Namespace() == nil {
		r.never(vs)
	}
	if err != nil || changed && !fresh { // one may have been made in vain, or left
		err = errors.Join(err, r.releaseVLANs(context.WithoutCancel(ctx), h))
	}
	if err == nil {
		err = serve(ctx, h.Namespace(), vs, fresh)
	}
	if err != nil && fresh && h.Namespace() != nil { // all but the services worked
		return errors.Join(err, r.takeDown(context.WithoutCancel(ctx), vs.ID, OwnTimeout))
	}
	return err
}

func (r *Runtime) plumb(ctx context.Context, h *plumbing.Handle, vs VirtualServer) (changed bool, err error) {
	for range rounds {
		fresh := h.Namespace() == nil
		plan, err := r.plumbOnce(ctx, h, vs)
		if err != nil || len(plan) == 0 || fresh {
			return changed || len(plan) > 0, err
		}
		changed = true
	}
	plan, err := r.plan(h, vs)
	if err == nil && len(plan) > 0 {
		err = fmt.Errorf("cannot %s in %s: it does not stay", plan[0], vs.Namespace())
	}
	return true, err
}

// plumbOnce makes and applies one plan. From the look at the host's VLAN devices
// until something sits on them, nobody may delete them.
func (r *Runtime) plumbOnce(ctx context.Context, h *plumbing.Handle, vs VirtualServer) (plumbing.Plan, error) {
	if vs.UsesVLAN() {
		unlock, err := r.Store.lock(ctx, host)
		if err != nil {
			return nil, err
		}
		h.Settled = sync.OnceFunc(unlock)
		defer h.Settled()
	}
	plan, err := r.plan(h, vs)
	if err == nil {
		if len(plan.Changes()) > 0 {
			r.opening(h, vs, plan)
		}
		err = plan.Apply(ctx, h)
	}
	return plan, err
}

// releaseVLANs deletes the host's VLAN devices of ours that nobody uses any more.
func (r *Runtime) releaseVLANs(ctx context.Context, h *plumbing.Handle) error {
	plan, err := h.Leftover(nil, plumbing.Network{})
	if err != nil || len(plan) == 0 {
		return err
	}
	unlock, err := r.Store.lock(ctx, host)
	if err != nil {
		return err
	}
	defer unlock()
	if plan, err = h.Leftover(nil, plumbing.Network{}); err != nil { // now that nobody is at work on them
		return err
	}
	return plan.Force(ctx, h)
}

func (r *Runtime) plan(h *plumbing.Handle, vs VirtualServer) (plumbing.Plan, error) {
	return r.planAfter(nil, h, vs)
}

// planAfter is plan when another plan has been carried out, which only takes away.
func (r *Runtime) planAfter(first plumbing.Plan, h *plumbing.Handle, vs VirtualServer) (plumbing.Plan, error) {
	want := r.network(vs)
	have, err := h.Observe(want)
	if err != nil {
		return nil, err
	}
	have = have.After(first)
	plan, err := plumbing.Diff(r.place(vs.ID), want, have)
	if r.NoProbe {
		plan = plan.WithoutProbe()
	}
	return plan, err
}

// Plan is what would be done to make the kernel match vs, without doing it, to be
// shown. It refuses what claiming the addresses would.
func (r *Runtime) Plan(vs VirtualServer) (plumbing.Plan, error) {
	return r.planned(vs, r.Store.free(vs, r.MachineID), nil)
}

// planned is Plan for one that first becomes another, if any; taken says who has what it
// wants.
func (r *Runtime) planned(vs VirtualServer, taken error, first *VirtualServer) (plumbing.Plan, error) {
	if err := errors.Join(vs.checkHost(), r.checkShare(vs), taken); err != nil {
		return nil, err
	}
	h, err := r.open(vs.ID)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	if old, err := r.Store.Load(vs.ID); err == nil {
		h.Had = had(&old)
	}
	have, err := h.Observe(plumbing.Network{})
	if err != nil {
		return nil, err
	}
	plan, want := plumbing.Removal(have), plumbing.Network{}
	if !vs.Disabled {
		want = r.network(vs)
		var given plumbing.Plan
		if first != nil {
			given, err = r.plan(h, *first)
		}
		if err == nil {
			plan, err = r.planAfter(given, h, vs)
		}
		if err != nil {
			return nil, err
		}
	}
	plan = h.Pasteable(plan)
	gone := plan.Deleted(have)
	if len(gone) == 0 {
		return plan, nil
	}
	leftover, err := h.Leftover(gone, want)
	return append(plan, leftover...), err
}

// PlanCreate is Plan for one that is to be created.
func (r *Runtime) PlanCreate(vs VirtualServer) (plumbing.Plan, error) {
	if _, err := r.existing(vs); err != nil {
		return nil, err
	}
	return r.Plan(vs)
}

// Script is the plan as lines for a root shell.
func (r *Runtime) Script(vs VirtualServer, plan plumbing.Plan) string {
	return plan.Script(r.place(vs.ID))
}

// stop ends the services, then takes the network down, whatever becomes of the
// services.
func (r *Runtime) stop(ctx context.Context, id int, timeout time.Duration, was ...*VirtualServer) (killed []string, err error) {
	killed, err = r.stopServices(ctx, id, timeout)
	if err != nil && ctx.Err() != nil { // the caller's wish
		return killed, err
	}
	return killed, errors.Join(err, r.unplumb(context.WithoutCancel(ctx), id, false, r.removal(context.WithoutCancel(ctx)), was...))
}

// A taker takes the network of a virtual server down; there may be none any more.
type taker func(*plumbing.Handle, plumbing.State) error

// removal does so for one, at once.
func (r *Runtime) removal(ctx context.Context) taker {
	return func(h *plumbing.Handle, have plumbing.State) error {
		return errors.Join(plumbing.Removal(have).Force(ctx, h), r.releaseVLANs(ctx, h))
	}
}

// unplumb takes the network down. What is forgotten needs no account of its end.
func (r *Runtime) unplumb(ctx context.Context, id int, forgotten bool, take taker, was ...*VirtualServer) error {
	h, err := r.view.Open(r.place(id))
	if err != nil {
		return err
	}
	defer h.Close()
	vs, absent := r.Store.Load(id) // without its record nobody says what was there, and nothing is kept of it
	h.Had = had(append(was, &vs)...)
	have, err := h.ObserveLinks()
	if err != nil {
		return err
	}
	if have.Namespace == plumbing.Foreign {
		return fmt.Errorf("%s is a network namespace of somebody else's: it is left alone", r.place(id).Path())
	}
	if absent == nil && !forgotten {
		h.Deleting = r.leaving(h, vs)
		if len(plumbing.Removal(have).Deleted(have)) == 0 {
			h.Deleting()
		}
	}
	if (plumbing.Network{Interfaces: h.Had}).UsesDevice() {
		one := take
		take = func(h *plumbing.Handle, have plumbing.State) error {
			return errors.Join(one(h, have), r.giveBack(ctx, h, plumbing.Network{}))
		}
	}
	if have.Namespace == plumbing.Ours {
		return take(h, have)
	}
	// After a crash an empty file can be left, and the kernel may still be at
	// work on a namespace that nobody holds any more.
	if err := nsutil.Unpublish(r.place(id).Path()); err != nil {
		return err
	}
	if absent == nil {
		if err := h.AwaitRelease(ctx, r.network(vs)); err != nil {
			return err
		}
	}
	return take(h, have)
}

// giveBack makes devices what they were that are on the host again, or yet, but those to be
// kept.
func (r *Runtime) giveBack(ctx context.Context, h *plumbing.Handle, keep plumbing.Network) error {
	plan, err := h.Returned(keep)
	return errors.Join(err, plan.Force(ctx, h))
}

// takeDown is stop for those who do not report what had to be killed.
func (r *Runtime) takeDown(ctx context.Context, id int, timeout time.Duration, was ...*VirtualServer) error {
	_, err := r.stop(ctx, id, timeout, was...)
	return err
}
