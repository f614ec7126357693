package push

import (
	"context"
	"sync"
)

// maxQueue bounds what waits to be sent, in bytes. A virtual server has 5 kB in a push:
// every 15 s, that is two minutes of a thousand of them, or three hours of ten.
const maxQueue = 32 << 20

// A batch is one push: all series at one time.
type batch struct {
	requests [][]byte
	series   int
}

func (b batch) size() (n int) {
	for _, r := range b.requests {
		n += len(r)
	}
	return n
}

// A queue holds batches, the oldest first. Its zero value is not ready: see newQueue.
type queue struct {
	max int

	mu      sync.Mutex
	batches []batch
	size    int
	lost    int           // batches that gave way since losses was asked
	filled  chan struct{} // has room for one: there is something to take
}

func newQueue(max int) *queue { return &queue{max: max, filled: make(chan struct{}, 1)} }

// put adds a batch. The oldest ones give way to it; put reports whether they begin to.
func (q *queue) put(b batch) (begins bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	none := q.lost == 0
	q.batches = append(q.batches, b)
	q.size += b.size()
	for q.size > q.max && len(q.batches) > 1 {
		q.shift()
		q.lost++
	}
	select {
	case q.filled <- struct{}{}:
	default:
	}
	return none && q.lost > 0
}

// losses is how many gave way since it was last asked.
func (q *queue) losses() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	defer func() { q.lost = 0 }()
	return q.lost
}

// take waits for the oldest batch.
func (q *queue) take(ctx context.Context) (batch, error) {
	for {
		if b, ok := q.next(); ok {
			return b, nil
		}
		select {
		case <-q.filled:
		case <-ctx.Done():
			return batch{}, ctx.Err()
		}
	}
}

func (q *queue) next() (batch, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.batches) == 0 {
		return batch{}, false
	}
	return q.shift(), true
}

func (q *queue) shift() batch {
	b := q.batches[0]
	q.batches[0] = batch{} // its memory is large
	q.batches = q.batches[1:]
	q.size -= b.size()
	return b
}
