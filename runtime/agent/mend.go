package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime"
)

// see looks at one, mends it, and announces it if it is asked to.
func (a *Agent) see(ctx context.Context, s subject, announce bool) result {
	r := result{subject: s}
	if a.runtime.IsDown() { // what has been taken down is to stay so
		return r
	}
	begin := time.Now()
	var mending bool
	var wait time.Duration
	mend := func(drift []runtime.Drift) bool {
		var first bool
		if wait, first = a.limits.take(s, topics(drift), begin); first {
			a.record(Event{Event: BacksOff, ID: s.id, Port: s.port, Drift: drift, Wait: wait})
		}
		mending = wait == 0
		return mending
	}
	drift, err := a.mend(ctx, s, mend)
	e := Event{ID: s.id, Port: s.port, Drift: drift, Took: time.Since(begin)}
	switch {
	case ctx.Err() != nil:
		return r
	case errors.Is(err, runtime.ErrBusy):
		r.again, r.announce = patience, announce
		return r
	case err != nil:
		e.Event, e.Error, e.Wait = Failed, err.Error(), a.limits.failed(s)
		a.record(e)
		r.again, r.announce = e.Wait, announce
		return r
	case wait > 0:
		r.again = wait
	case mending:
		e.Event, r.again = Mended, settle // it has to stay so, and there may be more that cannot be
		e.Drift = slices.DeleteFunc(slices.Clone(drift), func(d runtime.Drift) bool { return !d.Mendable() })
		a.record(e)
	case a.limits.changed(s, runtime.Words(drift)) && len(drift) > 0:
		if slices.ContainsFunc(drift, missing) {
			a.limits.forgive(s) // when that comes back, nobody fights
		}
		e.Event = Waits
		a.record(e)
	}
	if announce && s.port == "" && !a.tell(ctx, s) {
		r.again, r.announce = patience, true
	}
	r.served = !slices.ContainsFunc(drift, func(d runtime.Drift) bool { return d.Topic == runtime.OfServices })
	return r
}

func (a *Agent) mend(ctx context.Context, s subject, begin func([]runtime.Drift) bool) ([]runtime.Drift, error) {
	if s.port != "" {
		return a.runtime.MendPort(ctx, s.port, begin)
	}
	return a.runtime.Mend(ctx, s.id, begin)
}

// tell announces one, and reports whether it need not come again for that.
func (a *Agent) tell(ctx context.Context, s subject) bool {
	err := a.runtime.Announce(ctx, s.id)
	switch {
	case errors.Is(err, runtime.ErrBusy):
		return false
	case err != nil:
		a.log.Warn("cannot announce the addresses", "vs", s.id, "err", err)
	default:
		a.record(Event{Event: Announced, ID: s.id})
	}
	return true
}

// missing tells what has to come back before anything can be mended.
func missing(d runtime.Drift) bool {
	return d.Topic == runtime.OfRefusal || d.Topic == runtime.OfMember
}

func topics(drift []runtime.Drift) (list []plumbing.Topic) {
	for _, d := range drift {
		if d.Mendable() && !slices.Contains(list, d.Topic) {
			list = append(list, d.Topic)
		}
	}
	return list
}
