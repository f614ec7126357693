package runtime

import (
	"context"
	"errors"
)

// Mend makes a virtual server what its record says, where it is not, and tells what was
// different. One that is as it should be costs a look; one that is not there is none.
func (r *Runtime) Mend(ctx context.Context, id int) (drift []string, err error) {
	s, err := r.Status(ctx, id)
	if errors.Is(err, ErrNotFound) || err == nil && len(s.Drift) == 0 {
		return nil, nil
	}
	unlock, err := r.Store.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	vs, err := r.Store.Load(id)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if s, err = r.status(ctx, vs); err != nil || len(s.Drift) == 0 { // somebody was at work on it
		return nil, err
	}
	return s.Drift, r.reconcile(ctx, vs)
}
