package ipmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vsrun/vsrun/stats"
)

// A sampler reads virtual servers for all who ask, and only when somebody does. Who
// asks while one is read waits for that reading; who takes an older one has the last.
type sampler struct {
	read  func(stats.Source, *stats.Sample) error
	among func(stats.Source, *stats.Sample, time.Time) error // of many: stats.Reader.ReadAmong; nil: read
	slots chan struct{}                                      // for those that are read at once

	// crowded is called when slow readers hold more samples than are enough.
	crowded func()
	enough  atomic.Int64

	counting sync.Mutex    // who changes the next two
	changes  atomic.Uint64 // of figures, one for each sample that differs from the last
	gone     atomic.Uint64 // the change at which a virtual server was last seen gone

	held  atomic.Int64 // samples that are in use
	spare sync.Pool    // of *shared

	taken, reused, failed atomic.Uint64
}

func newSampler(read func(stats.Source, *stats.Sample) error) *sampler {
	return &sampler{read: read, slots: make(chan struct{}, runtime.GOMAXPROCS(0)), crowded: func() {}}
}

// A bound is how old a sample may be.
type bound struct {
	asked  time.Time
	oldest time.Time // when its reading began at the earliest
	many   bool      // so many are wanted that all may be read at once
}

func noOlder(age time.Duration) bound {
	now := time.Now()
	return bound{asked: now, oldest: now.Add(-age)}
}

// An entry is a virtual server and its last sample.
type entry struct {
	src     stats.Source
	reading chan struct{} // full while somebody reads it

	mu      sync.Mutex
	last    *shared   // nil: none yet, or it is gone
	changed uint64    // the change at which its figures did
	tried   time.Time // when the last reading began, and
	err     error     // how it ended
	retired bool      // it is in no list any more
}

func newEntry(src stats.Source) *entry {
	return &entry{src: src, reading: make(chan struct{}, 1)}
}

// retire has nobody told of it any more, not even those who still have a list with it.
func (e *entry) retire() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.retired = true
	if e.last != nil {
		e.last.release()
		e.last = nil
	}
}

// A shared sample stays as it is as long as anybody holds it. Its memory is used again
// then.
type shared struct {
	sampler *sampler
	sample  stats.Sample
	began   time.Time
	holders atomic.Int32

	encoding sync.Mutex
	json     []byte // of sample; empty until somebody wants it
}

// text is the sample in JSON.
func (s *shared) text() []byte {
	s.encoding.Lock()
	defer s.encoding.Unlock()
	if len(s.json) == 0 {
		s.json = s.sample.AppendJSON(s.json)
	}
	return s.json
}

// release ends that the caller holds it.
func (s *shared) release() {
	if s.holders.Add(-1) == 0 {
		s.json = s.json[:0]
		s.sampler.held.Add(-1)
		s.sampler.spare.Put(s)
	}
}

// take is the last sample, which the caller holds then, nil without one, and the
// change at which its figures did.
func (e *entry) take() (*shared, uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.last != nil {
		e.last.holders.Add(1)
	}
	return e.last, e.changed
}

// known tells whether what is known of it is young enough, and what is wrong with it.
// What went wrong is good for those alone who were waiting.
func (e *entry) known(b bound) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return !e.tried.Before(b.asked), e.err
	}
	return e.last != nil && !e.last.began.Before(b.oldest), nil
}

// refresh reads it, unless what is known is young enough. Without the namespace the
// error is fs.ErrNotExist.
func (p *sampler) refresh(ctx context.Context, e *entry, b bound) error {
	if ok, err := e.known(b); ok {
		p.reused.Add(1)
		return err
	}
	if ctx.Err() != nil {
		return outOfTime(ctx)
	}
	for _, turn := range []chan struct{}{e.reading, p.slots} {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-ctx.Done():
			return outOfTime(ctx)
		}
		if ok, err := e.known(b); ok { // who was first has read it
			p.reused.Add(1)
			return err
		}
	}
	return p.sample(e, b)
}

func outOfTime(ctx context.Context) error {
	return fmt.Errorf("cannot read the counters in time: %w", ctx.Err())
}

// sample reads it. The caller is the only one to.
func (p *sampler) sample(e *entry, b bound) (err error) {
	p.taken.Add(1)
	s := p.fresh()
	if b.many && p.among != nil {
		s.began = b.asked
		err = p.among(e.src, &s.sample, b.asked)
	} else {
		err = p.read(e.src, &s.sample)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.retired {
		err = fs.ErrNotExist
	}
	e.tried, e.err = s.began, err
	last := e.last
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.last = nil
		if last != nil {
			p.forget()
		}
	case err != nil: // those who are writing the last one may end
		p.failed.Add(1)
		last = nil
	default:
		if last == nil || !last.sample.Same(&s.sample) {
			e.changed = p.change()
		}
		e.last = s
	}
	if err != nil {
		s.release()
	}
	if last != nil {
		last.release()
	}
	return err
}

// change counts one more.
func (p *sampler) change() uint64 {
	p.counting.Lock()
	defer p.counting.Unlock()
	return p.changes.Add(1)
}

// forget has nobody told of changes alone who asks with a cursor of until now. Whoever
// gets a later cursor finds gone set already, and is told everything with it.
func (p *sampler) forget() {
	p.counting.Lock()
	defer p.counting.Unlock()
	p.gone.Store(p.changes.Load() + 1)
	p.changes.Add(1)
}

// fresh is a sample to read into, which the caller holds.
func (p *sampler) fresh() *shared {
	s, ok := p.spare.Get().(*shared)
	if !ok {
		s = &shared{sampler: p}
	}
	s.holders.Store(1)
	s.began = time.Now()
	if p.held.Add(1) > p.enough.Load() {
		p.crowded()
	}
	return s
}
