package ipmd

import (
	"container/list"
	"net/http"
	"sync"
	"time"
)

// patience is how long an answer may take to write before it can be cut short for
// others.
const patience = time.Second

// A gate lets so many requests be answered at once. When there is no room, the answer
// that is being written for longest, to a reader that takes it slowly, gives way.
type gate struct {
	mu     sync.Mutex
	inside list.List // of *ticket, in the order of their coming
}

// A ticket is for one request. It is the response's writer, to see it begin.
type ticket struct {
	http.ResponseWriter
	gate   *gate
	place  *list.Element
	status int // 0 as long as nothing is written

	writing time.Time // since then; guarded by the gate
	cut     bool
}

// enter lets a request in; false when there is no room. Who is let in has to leave.
func (g *gate) enter(w http.ResponseWriter, limit int) (*ticket, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside.Len() >= limit && !g.makeRoom() {
		return nil, false
	}
	t := &ticket{ResponseWriter: w, gate: g}
	t.place = g.inside.PushBack(t)
	return t, true
}

func (t *ticket) leave() {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	if !t.cut {
		t.gate.inside.Remove(t.place)
	}
}

// giveWay cuts the slowest answer short, if there is one.
func (g *gate) giveWay() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.makeRoom()
}

func (g *gate) makeRoom() bool {
	var slowest *ticket
	for e := g.inside.Front(); e != nil; e = e.Next() {
		t := e.Value.(*ticket)
		if !t.writing.IsZero() && time.Since(t.writing) > patience && (slowest == nil || t.writing.Before(slowest.writing)) {
			slowest = t
		}
	}
	if slowest == nil {
		return false
	}
	slowest.cut = true
	g.inside.Remove(slowest.place)
	// A past deadline ends the write that is under way. There is none on a
	// connection of a test's.
	http.NewResponseController(slowest.ResponseWriter).SetWriteDeadline(time.Unix(1, 0))
	return true
}

// Unwrap is for http.ResponseController.
func (t *ticket) Unwrap() http.ResponseWriter { return t.ResponseWriter }

func (t *ticket) WriteHeader(status int) {
	if t.status == 0 {
		t.status = status
		t.gate.mu.Lock()
		t.writing = time.Now()
		t.gate.mu.Unlock()
	}
	t.ResponseWriter.WriteHeader(status)
}

func (t *ticket) Write(b []byte) (int, error) {
	if t.status == 0 {
		t.WriteHeader(http.StatusOK)
	}
	return t.ResponseWriter.Write(b)
}
