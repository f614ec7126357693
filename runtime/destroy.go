package runtime

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/plumbing"
)

// Destroy disables a virtual server and forgets it. What is not there is
// success, so that it can be run again; there says whether it was.
func (r *Runtime) Destroy(ctx context.Context, id int, timeout time.Duration) (there bool, killed []string, err error) {
	r.DestroyAll(ctx, []int{id}, timeout, func(_ VirtualServer, was bool, names []string, failed error) {
		there, killed, err = was, names, failed
	})
	return there, killed, err
}

// DestroyAll does so with many, and tells what became of each, in the order of their
// numbers. One that fails keeps no other from it.
func (r *Runtime) DestroyAll(ctx context.Context, ids []int, timeout time.Duration, done Destroyed) {
	// Two who lock the same ones must do so in one order.
	for ids = slices.Compact(slices.Sorted(slices.Values(ids))); len(ids) > 0; {
		n := min(len(ids), together)
		r.destroyTogether(ctx, ids[:n], timeout, done)
		ids = ids[n:]
	}
}

// A Destroyed is told of a virtual server, of which only the number is known where it was
// not there.
type Destroyed func(vs VirtualServer, there bool, killed []string, err error)

// together is how many virtual servers are destroyed at once. Each holds a lock, which is
// a descriptor, for as long as the slowest of them takes.
const together = 32

// A leaver is a virtual server that is being destroyed.
type leaver struct {
	vs     VirtualServer // its number alone, if it was not there
	there  bool
	unlock func()
	full   bool // the disk is: there is no mark that it is to be down
	gone   plumbing.Departure
	killed []string
	left   error // of services that could not be stopped
	err    error
}

func (r *Runtime) destroyTogether(ctx context.Context, ids []int, timeout time.Duration, done Destroyed) {
	list := make([]leaver, len(ids))
	for k, id := range ids {
		list[k].vs.ID = id
		list[k].unlock, list[k].err = r.Store.lock(ctx, id)
	}
	each := func(do func(*leaver) error) {
		AtOnce(len(list), func(k int) {
			if list[k].err == nil {
				list[k].err = do(&list[k])
			}
		})
	}
	each(func(l *leaver) error { return r.retire(ctx, l, timeout) })
	uncancelled := context.WithoutCancel(ctx)
	if len(list) == 1 { // it need not wait until nobody looks into it any more
		each(func(l *leaver) error { return r.unplumb(uncancelled, l.vs.ID, true, r.removal(uncancelled)) })
	} else {
		each(func(l *leaver) error { return r.depart(uncancelled, l) })
		r.awaitDepartures(uncancelled, list)
	}
	each(func(l *leaver) error {
		if l.left == nil && l.full { // no record may outlive the data
			return r.Store.forget(l.vs.ID)
		}
		return l.left
	})
	r.forget(list)
	for _, l := range list {
		if l.unlock != nil {
			l.unlock()
		}
		done(l.vs, l.there, l.killed, l.err)
	}
}

// forget is remove for many.
func (r *Runtime) forget(list []leaver) {
	var ids []int
	for _, l := range list {
		if l.err == nil {
			ids = append(ids, l.vs.ID)
		}
	}
	if len(ids) == 0 {
		return
	}
	r.warn(r.Store.Ledgers().Forget(context.Background(), ids...))
	for k := range list {
		l := &list[k]
		if l.err == nil {
			l.err = os.RemoveAll(r.keepDir(l.vs.ID))
		}
		if l.err == nil {
			l.err = unlink(r.Store.fresh(l.vs.ID), r.Store.path(l.vs.ID))
		}
	}
	if err := r.Store.sync(); err != nil {
		for k := range list {
			list[k].err = errors.Join(list[k].err, err)
		}
	}
}

// retire says that a virtual server is to be down, or vsd would bring it up again after a
// crash, without its data, and ends its services.
func (r *Runtime) retire(ctx context.Context, l *leaver, timeout time.Duration) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	vs, err := r.Store.Load(l.vs.ID)
	if l.there = err == nil; l.there {
		l.vs = vs
	}
	if l.there && !l.vs.Disabled {
		disabled := l.vs
		disabled.Disabled = true
		err = r.Store.save(disabled)
	}
	l.full = isFull(err)
	if err != nil && !errors.Is(err, ErrNotFound) && !l.full {
		return err
	}
	l.killed, l.left = r.stopServices(ctx, l.vs.ID, timeout)
	if l.left != nil && ctx.Err() != nil { // the caller's wish
		return l.left
	}
	return nil
}

// depart does of what takes the network down all but what awaitDepartures does.
func (r *Runtime) depart(ctx context.Context, l *leaver) error {
	return r.unplumb(ctx, l.vs.ID, true, func(h *plumbing.Handle, have plumbing.State) (err error) {
		if have.Namespace == plumbing.Ours {
			l.gone, err = h.Depart(ctx, have)
		}
		return err
	})
}

func (r *Runtime) awaitDepartures(ctx context.Context, list []leaver) {
	var gone []plumbing.Departure
	for _, l := range list {
		gone = append(gone, l.gone)
	}
	left, err := plumbing.AwaitDepartures(ctx, gone)
	for k := range list {
		l := &list[k]
		if slices.ContainsFunc(left, func(d plumbing.Departure) bool { return d.Place == l.gone.Place }) {
			l.err = errors.Join(l.err, err)
		}
	}
	h, err := plumbing.OpenHost()
	if err == nil {
		defer h.Close()
		err = r.releaseVLANs(ctx, h)
	}
	r.warn(err)
}

// crowd is how many virtual servers are seen to at once. Most of the time goes by in
// waiting: for answers from the network, for the disk, for services to end.
const crowd = 16

// AtOnce calls do for each number below n, some of them at once.
func AtOnce(n int, do func(k int)) {
	var all sync.WaitGroup
	places := make(chan struct{}, crowd)
	for k := range n {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			do(k)
		})
	}
	all.Wait()
}

// isFull reports whether nothing could be stored for want of room.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
