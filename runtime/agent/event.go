package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime"
)

// An Event is something that the agent saw or did.
type Event struct {
	Time  time.Time
	Event string // one of those below
	ID    int    // of the virtual server, 0 for none
	Port  string // else the port
	Drift []runtime.Drift
	Took  time.Duration // to look, mend and look again
	Wait  time.Duration // until it is tried again
	Error string
}

// The events.
const (
	Mended    = "mended"    // what differed
	Failed    = "failed"    // to mend it
	BacksOff  = "backs off" // from what had to be mended over and over
	Waits     = "waits"     // for what differs and cannot be mended now
	Announced = "announced" // the addresses, since the carrier is back
	Missed    = "missed"    // notices of the kernel's, and so looks at everything
)

type eventJSON struct {
	Time  time.Time   `json:"time"`
	Event string      `json:"event"`
	ID    int         `json:"id,omitempty"`
	Port  string      `json:"port,omitempty"`
	Drift []driftJSON `json:"drift,omitempty"`
	Took  float64     `json:"tookSeconds,omitempty"`
	Wait  float64     `json:"waitSeconds,omitempty"`
	Error string      `json:"error,omitempty"`
}

type driftJSON struct {
	Topic plumbing.Topic `json:"topic"`
	Text  string         `json:"text"`
}

// MarshalJSON writes times in seconds, and each drift with its topic.
func (e Event) MarshalJSON() ([]byte, error) {
	j := eventJSON{e.Time, e.Event, e.ID, e.Port, nil, e.Took.Seconds(), e.Wait.Seconds(), e.Error}
	for _, d := range e.Drift {
		j.Drift = append(j.Drift, driftJSON(d))
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (e *Event) UnmarshalJSON(b []byte) error {
	var j eventJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	*e = Event{j.Time, j.Event, j.ID, j.Port, nil, seconds(j.Took), seconds(j.Wait), j.Error}
	for _, d := range j.Drift {
		e.Drift = append(e.Drift, runtime.Drift(d))
	}
	return nil
}

// Subject is what it is about: vs8, port bond0, or the host.
func (e Event) Subject() string {
	if e.ID == 0 && e.Port == "" {
		return "host"
	}
	return subject{e.ID, e.Port}.String()
}

// String is the event in words, without its time and subject.
func (e Event) String() string {
	switch e.Event {
	case Mended:
		return fmt.Sprintf("mended in %s: %s", e.Took.Round(time.Millisecond), runtime.Words(e.Drift))
	case Failed:
		return fmt.Sprintf("%s; tried again in %s", e.Error, e.Wait.Round(time.Second))
	case BacksOff:
		return fmt.Sprintf("mended too often, something else changes it, too; left alone for %s: %s", e.Wait.Round(time.Second), runtime.Words(e.Drift))
	case Waits:
		return "cannot be mended now: " + runtime.Words(e.Drift)
	case Announced:
		return "carrier is back: addresses announced again"
	case Missed:
		return "more was changed than could be heard: looking at everything"
	}
	return e.Event
}

// kept is how many events are kept for those who ask later.
const kept = 1000

// A journal keeps the latest events and passes them on. The zero journal is ready.
type journal struct {
	mu        sync.Mutex
	latest    []Event
	listeners map[chan Event]bool
}

// record keeps an event, and logs it.
func (a *Agent) record(e Event) {
	e.Time = time.Now()
	a.journal.add(e)
	level := slog.LevelInfo
	if e.Event == Failed || e.Event == BacksOff {
		level = slog.LevelWarn
	}
	a.log.Log(context.Background(), level, e.String(), "subject", e.Subject(), "event", e.Event)
}

func (j *journal) add(e Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.latest) == kept {
		j.latest = append(j.latest[:0], j.latest[kept/2:]...)
	}
	j.latest = append(j.latest, e)
	for l := range j.listeners {
		select {
		case l <- e:
		default: // it does not read
			delete(j.listeners, l)
			close(l)
		}
	}
}

// listen returns the latest events, and those to come until stop. The channel is closed
// before when nobody takes them from it.
func (j *journal) listen() (latest []Event, next <-chan Event, stop func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := make(chan Event, kept)
	if j.listeners == nil {
		j.listeners = map[chan Event]bool{}
	}
	j.listeners[l] = true
	return append([]Event{}, j.latest...), l, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		delete(j.listeners, l)
	}
}
