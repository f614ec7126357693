package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime"
)

// An Agent looks after all virtual servers and ports of a Runtime. New makes one.
type Agent struct {
	runtime *runtime.Runtime
	log     *slog.Logger
	journal journal
	limits  limits
	asks    chan func() // run by the loop, which alone has what is below

	due      map[subject]time.Time // what is to be looked at, and when
	announce map[subject]bool      // what is to be announced then
	busy     map[subject]bool      // what is being looked at
	done     chan result
	anew     <-chan time.Time  // when to begin anew, after not all could be seen
	said     map[string]string // what cannot be looked after, and why
	world    world
	watching sync.WaitGroup // for inits to end
}

// A subject is what is looked at as one: a virtual server, or else a port.
type subject struct {
	id   int
	port string
}

func (s subject) String() string {
	if s.port != "" {
		return "port " + s.port
	}
	return fmt.Sprintf("vs%d", s.id)
}

// A result is that of a look.
type result struct {
	subject
	again    time.Duration // when to look again, 0 for not before something happens
	announce bool          // then, for it could not be done now
	served   bool          // its init was there, if it is to have one
}

// settle is how long a burst of changes has to end before anybody looks.
const settle = 50 * time.Millisecond

// crowd is how many are looked at, and mended, at once: most of the time goes by in
// waiting for answers from the network.
const crowd = 64

// patience is when to come again to one that somebody else is at work on. Who waited for
// him would keep a place in the crowd, and an apply may be at work on all of a crowd for long.
const patience = time.Second

// New is an agent that does nothing until Run.
func New(r *runtime.Runtime, log *slog.Logger) *Agent {
	return &Agent{
		runtime: r, log: log, asks: make(chan func()),
		due: map[subject]time.Time{}, announce: map[subject]bool{}, busy: map[subject]bool{}, done: make(chan result),
		said: map[string]string{},
	}
}

// Run does all the work, until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer a.watching.Wait()
	defer cancel()
	ear, err := plumbing.Listen()
	if err != nil {
		return err
	}
	defer ear.Close()
	notices := hear(ctx, ear)
	sysctls, err := plumbing.ListenSysctls()
	if err != nil {
		return err
	}
	defer sysctls.Close()
	written := hearSysctls(ctx, sysctls)
	mounts, err := nsutil.WatchMounts(ctx)
	if err != nil {
		return err
	}
	records, err := watchRecords(ctx, a.runtime.StateDir)
	if err != nil {
		return err
	}
	a.world = world{ear: ear, sysctls: sysctls, groups: cgroup.Find()}
	a.lookAtAll()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(a.begin(ctx, time.Now()))
		select {
		case heard, open := <-notices:
			switch {
			case open:
				a.take(heard)
			case ctx.Err() == nil:
				return errors.New("cannot hear the kernel any more")
			}
		case heard := <-written:
			a.takeSysctls(heard)
		case <-mounts:
			a.followAll()
		case changed := <-records:
			a.reread(changed)
		case ask := <-a.asks:
			ask()
		case r := <-a.done:
			a.end(ctx, r)
		case <-a.anew:
			a.lookAtAll()
		case <-timer.C:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			for len(a.busy) > 0 { // what has begun goes on to the next step
				delete(a.busy, (<-a.done).subject)
			}
			return nil
		}
	}
}

// LookAtAll has everything looked at, soon.
func (a *Agent) LookAtAll(ctx context.Context) { a.ask(ctx, a.lookAtAll) }

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

// mark has s looked at after a while. What is due earlier stays so.
func (a *Agent) mark(s subject, after time.Duration) {
	at := time.Now().Add(after)
	if old, marked := a.due[s]; !marked || at.Before(old) {
		a.due[s] = at
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
		announce := a.announce[s]
		delete(a.due, s)
		delete(a.announce, s)
		a.busy[s] = true
		go func() { a.done <- a.see(ctx, s, announce) }()
	}
	return next
}

func (a *Agent) end(ctx context.Context, r result) {
	delete(a.busy, r.subject)
	if r.again > 0 {
		a.mark(r.subject, r.again)
	}
	if r.announce {
		a.announce[r.subject] = true
	}
	a.watchInit(ctx, r.id, r.served)
	a.followLimits(r.id)
	a.refollow(r.id)
}
