package main

import (
	"context"
	"sync"

	"github.com/vsrun/vsrun/stats/push"
)

// A pushing is the Pusher that runs, replaced at each reload.
type pushing struct {
	ctx context.Context

	mu      sync.Mutex
	stop    func() // nil: none runs
	running *push.Pusher
}

// start has p run instead of the one before; nil is none. The one before goes on where
// p would do the same: what waits to be pushed is lost with it.
func (r *pushing) start(p *push.Pusher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop != nil && p != nil && p.Same(r.running) {
		return
	}
	if r.stop != nil {
		r.stop()
		r.stop = nil
	}
	if p == nil {
		return
	}
	ctx, cancel := context.WithCancel(r.ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.Run(ctx)
	}()
	r.stop, r.running = func() { cancel(); <-ended }, p
}
