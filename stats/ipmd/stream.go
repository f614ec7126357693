package ipmd

import (
	"bufio"
	"context"
	"net/http"
	"time"
)

const (
	standardInterval = time.Second
	longestInterval  = time.Minute
	heartbeat        = 15 * time.Second // between signs of life, when nothing changes
	streamPatience   = 30 * time.Second // how long a watcher may take for one event
)

// The names of a stream's events.
const (
	eventAll     = "all"     // everything there is: it replaces what was told before
	eventChanges = "changes" // those whose figures have changed
	eventEnd     = "end"     // ipmd is ending
)

// A stream tells one watcher what changes. What changes while the watcher is slow is
// not kept for him: the next event has the newest of it.
type stream struct {
	server *Server
	grant  grant
	question
	interval time.Duration
	w        http.ResponseWriter
	sent     time.Time // when anything was
}

// serveStream answers with server-sent events (HTML, section 9.2).
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request, g grant) {
	t := &stream{server: s, grant: g, interval: standardInterval, w: w}
	if err := t.ask(r); err != nil {
		refuse(w, err)
		return
	}
	if !s.watch() {
		refuse(w, ErrBusy)
		return
	}
	defer s.watchers.Add(-1)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")                           // nginx would keep events until it has many
	http.NewResponseController(w).SetReadDeadline(time.Time{}) // that of the request's head

	if r.Method != http.MethodHead { // which would wait for an end
		t.run(r.Context())
	}
}

// ask understands the request.
func (t *stream) ask(r *http.Request) (err error) {
	config := t.server.configuration()
	if t.question, err = config.ask(r); err != nil {
		return err
	}
	if text := r.URL.Query().Get("interval"); text != "" {
		if t.interval, err = duration("interval", text, config.Limits.Interval, longestInterval); err != nil {
			return err
		}
	}
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		t.since = last
	}
	// Watchers with one interval are told at one time, of one sample.
	t.age = t.interval / 2
	_, _, err = t.server.pick(r.Context(), t.grant, t.question)
	t.watching = true
	return err
}

// watch counts a watcher; false when there are too many.
func (s *Server) watch() bool {
	if s.watchers.Add(1) <= int64(s.configuration().Limits.Watchers) {
		return true
	}
	s.watchers.Add(-1)
	return false
}

// run writes events until the watcher is gone, or ipmd is to end.
func (t *stream) run(ctx context.Context) {
	ending, _ := ctx.Value(endingKey{}).(context.Context)
	if ending == nil {
		ending = ctx
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ending.Done():
			t.write("event: " + eventEnd + "\nretry: 1000\ndata: {}\n\n")
			return
		case <-timer.C:
		}
		if t.next(ctx) != nil {
			return
		}
		timer.Reset(t.untilNext())
	}
}

// untilNext is the time until the clock is at a multiple of the interval.
func (t *stream) untilNext() time.Duration {
	now := time.Now()
	return now.Truncate(t.interval).Add(t.interval).Sub(now)
}

// next tells what has changed.
func (t *stream) next(ctx context.Context) (err error) {
	// The rules may be others by now.
	if t.grant, err = t.server.configuration().grant(t.grant.who, askStream); err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	a, err := t.server.answer(within, t.grant, t.question)
	if err != nil {
		return err
	}
	told, err := t.tell(a)
	if err == nil && !told && time.Since(t.sent) > heartbeat {
		err = t.write(": still here\n\n")
	}
	return err
}

// tell writes the answer as one event, unless nothing has changed.
func (t *stream) tell(a answer) (told bool, err error) {
	t.extend()
	err = buffered(t.w, func(b *bufio.Writer) error {
		comma := "id: " + a.cursor + "\nevent: " + a.kind + "\ndata: ["
		if a.kind == everything {
			b.WriteString(comma)
			comma, told = "", true
		}
		err := a.each(func(sample []byte) error {
			b.WriteString(comma)
			b.WriteString("\ndata: ") // a line each, which the watcher puts together
			comma, told = ",", true
			_, err := b.Write(sample)
			return err
		})
		if told {
			b.WriteString("\ndata: ]\n\n")
		}
		return err
	})
	t.since = a.cursor
	if err == nil {
		err = t.flush(told)
	}
	return told, err
}

func (t *stream) write(text string) error {
	t.extend()
	if _, err := t.w.Write([]byte(text)); err != nil {
		return err
	}
	return t.flush(true)
}

// extend gives the watcher time for one more event. There is no such limit where a
// test records the answer.
func (t *stream) extend() {
	http.NewResponseController(t.w).SetWriteDeadline(time.Now().Add(streamPatience))
}

func (t *stream) flush(told bool) error {
	if told {
		t.sent = time.Now()
	}
	return http.NewResponseController(t.w).Flush()
}
