package plumbing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Plan is the ordered list of steps from what the kernel holds to what is
// wanted. An empty plan means nothing differs.
type Plan []Step

// A Step is one change, as data: it prints itself, applies itself and names
// what undoes it.
type Step interface {
	// String says it in words that follow "cannot": add address 192.0.2.8/24 on eth0.
	String() string
	// Command is the line that does it in a shell; empty where a shell needs none.
	Command(Place) string

	apply(context.Context, *Handle) error
	undo() Step // nil where nothing is left to undo
}

// A request is a step that is one message on the namespace's own socket. A run
// of them goes to the kernel in one send.
type request interface {
	Step
	message(*Handle) (message, error)
}

// Apply makes the plan true, all of it or nothing: after an error, or when ctx
// ends between two steps, what was done is undone.
func (p Plan) Apply(ctx context.Context, h *Handle) error {
	var done Plan
	for rest := p; len(rest) > 0; {
		err := context.Cause(ctx)
		if err == nil {
			var applied Plan
			run := rest.run()
			applied, err = run.apply(ctx, h)
			done, rest = append(done, applied...), rest[len(run):]
		}
		if err != nil {
			return errors.Join(err, done.reversed().Force(context.WithoutCancel(ctx), h))
		}
	}
	return nil
}

// Force applies every step, whatever becomes of the others, and joins the
// errors: the way to take something down.
func (p Plan) Force(ctx context.Context, h *Handle) error {
	var errs []error
	for _, s := range p {
		if err := s.apply(ctx, h); err != nil {
			errs = append(errs, cannot(s, h, err))
		}
	}
	return errors.Join(errs...)
}

// Changes is the plan without what only looks or tells.
func (p Plan) Changes() Plan {
	return slices.DeleteFunc(p.WithoutProbe(), func(s Step) bool {
		switch s.(type) {
		case announce, announceInUse, keptMark, awaitCarrier:
			return true
		}
		return false
	})
}

// Deleted are the links that go with the plan, of those there are.
func (p Plan) Deleted(have State) []Link {
	var gone []Link
	for _, s := range p {
		var dev string
		switch s := s.(type) {
		case renameLink:
			have = have.renamed(s)
			continue
		case delLink:
			dev = s.dev
		case silence:
			dev = s.dev
		case moveBack:
			dev = s.dev
		default:
			continue
		}
		l, _ := have.Link(dev)
		gone = append(gone, l)
	}
	return gone
}

// Script is the plan as lines for a root shell.
func (p Plan) Script(place Place) string {
	var b strings.Builder
	for _, s := range p {
		if line := s.Command(place); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// run is the first steps that go to the kernel together.
func (p Plan) run() Plan {
	for n, s := range p {
		if _, ok := s.(request); !ok {
			return p[:max(n, 1)]
		}
	}
	return p
}

// apply applies a run, and returns the steps that took effect.
func (p Plan) apply(ctx context.Context, h *Handle) (Plan, error) {
	if _, ok := p[0].(request); !ok {
		if err := p[0].apply(ctx, h); err != nil {
			return nil, cannot(p[0], h, err)
		}
		return p, nil
	}
	messages := make([]message, len(p))
	for k, s := range p {
		m, err := s.(request).message(h)
		if err = cmp.Or(err, m.err); err != nil {
			return nil, cannot(s, h, err)
		}
		messages[k] = m
	}
	var applied Plan
	var first error
	for k, err := range h.inside.do(messages...) {
		if err == nil {
			applied = append(applied, p[k])
		} else if first == nil {
			first = cannot(p[k], h, err)
		}
	}
	return applied, first
}

// reversed is the plan that undoes p.
func (p Plan) reversed() Plan {
	var back Plan
	for k := len(p) - 1; k >= 0; k-- {
		if u := p[k].undo(); u != nil {
			back = append(back, u)
		}
	}
	return back
}

// cannot names the step that failed, and its cure where the step knows one.
func cannot(s Step, h *Handle, err error) error {
	where := " in " + h.place.Name
	if h.place == (Place{}) { // on the host
		where = ""
	}
	if host, ok := s.(onHost); ok {
		s, where = host.Step, ""
	}
	if e, ok := s.(interface{ explain(error) error }); ok {
		err = e.explain(err)
	}
	return fmt.Errorf("cannot %s%s: %w", s, where, err)
}
