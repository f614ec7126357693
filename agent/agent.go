package agent

import (
	"context"
	"log/slog"
	"time"

	"github.com/vsrun/vsrun/runtime"
)

// An Agent looks after all virtual servers of a Runtime. New makes one.
type Agent struct {
	runtime *runtime.Runtime
	log     *slog.Logger
	asks    chan func() // run by the loop, which alone has what is below

	due  map[subject]time.Time // what is to be looked at, and when
	busy map[subject]bool      // what is being looked at
	done chan subject
}

// A subject is what is looked at as one: a virtual server.
type subject struct {
	id int
}

// crowd is how many are looked at, and mended, at once: most of the time goes by in
// waiting for answers from the network.
const crowd = 64

// New is an agent that does nothing until Run.
func New(r *runtime.Runtime, log *slog.Logger) *Agent {
	return &Agent{
		runtime: r, log: log, asks: make(chan func()),
		due: map[subject]time.Time{}, busy: map[subject]bool{}, done: make(chan subject),
	}
}

// Run does all the work, until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	a.markAll()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(a.begin(ctx, time.Now()))
		select {
		case <-ctx.Done():
			for len(a.busy) > 0 { // nothing is left half done that need not be
				delete(a.busy, <-a.done)
			}
			return nil
		case ask := <-a.asks:
			ask()
		case s := <-a.done:
			delete(a.busy, s)
		case <-timer.C:
		}
	}
}

// LookAtAll has everything looked at, soon.
func (a *Agent) LookAtAll(ctx context.Context) { a.ask(ctx, a.markAll) }

// Answers reports whether the agent takes what it is told; it waits until it does, or
// ctx ends.
func (a *Agent) Answers(ctx context.Context) bool { return a.ask(ctx, func() {}) }

func (a *Agent) ask(ctx context.Context, do func()) bool {
	select {
	case a.asks <- do:
		return true
	case <-ctx.Done():
		return false
	}
}

// mark has s looked at when things have settled. What is due earlier stays so.
func (a *Agent) mark(s subject, after time.Duration) {
	at := time.Now().Add(after)
	if old, marked := a.due[s]; !marked || at.Before(old) {
		a.due[s] = at
	}
}

func (a *Agent) markAll() {
	list, err := a.runtime.Store.List()
	if err != nil {
		a.log.Warn("cannot look after all virtual servers", "err", err)
	}
	for _, vs := range list {
		a.mark(subject{id: vs.ID}, 0)
	}
}

// begin has those looked at that are due, as many as may be, and tells when the next
// one is.
func (a *Agent) begin(ctx context.Context, now time.Time) (next time.Duration) {
	next = time.Hour
	for s, at := range a.due {
		if a.busy[s] || len(a.busy) == crowd { // done comes first
			continue
		}
		if wait := at.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		delete(a.due, s)
		a.busy[s] = true
		go func() {
			a.see(ctx, s)
			a.done <- s
		}()
	}
	return next
}

// see looks at one, and mends it.
func (a *Agent) see(ctx context.Context, s subject) {
	mended, err := a.runtime.Mend(ctx, s.id)
	switch {
	case err != nil:
		a.log.Warn("cannot mend", "vs", s.id, "err", err)
	case len(mended) > 0:
		a.log.Info("mended", "vs", s.id, "drift", mended)
	}
}
