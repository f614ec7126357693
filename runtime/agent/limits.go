package agent

import (
	"sync"
	"time"

	"github.com/vsrun/vsrun/plumbing"
)

// limits keep the agent from fighting with another tool, or from trying what cannot
// work, as fast as it can. The zero limits are ready.
type limits struct {
	mu      sync.Mutex
	repairs map[repair]*history
	told    map[subject]string // what differs and cannot be mended, as it was told last
}

// A repair is of one kind of thing of one subject.
type repair struct {
	subject
	topic plumbing.Topic // "" for those that failed
}

// A history is how often something was mended, and until when it is left alone.
type history struct {
	count int
	until time.Time
	told  bool
}

// Something is mended so often at once; after that, after a second, two, four, …, at most
// five minutes. It begins anew when nothing had to be mended for a minute.
const (
	burst   = 5
	atFirst = time.Second
	atMost  = 5 * time.Minute
	quiet   = time.Minute
)

// take counts a repair that is about these topics, unless each of them has to wait: then
// for how long, and whether that is the first to hear it.
func (l *limits) take(s subject, topics []plumbing.Topic, now time.Time) (wait time.Duration, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var blocked []*history
	for _, topic := range topics {
		h := l.history(repair{s, topic}, now)
		if until := h.until.Sub(now); until > 0 && (wait == 0 || until < wait) {
			wait = until
		}
		if now.Before(h.until) {
			blocked = append(blocked, h)
		}
	}
	if len(blocked) == len(topics) {
		for _, h := range blocked {
			first = first || !h.told
			h.told = true
		}
		return wait, first
	}
	for _, topic := range topics {
		l.history(repair{s, topic}, now).add(now, burst)
	}
	return 0, false
}

func (l *limits) history(r repair, now time.Time) *history {
	h := l.repairs[r]
	if h == nil || now.Sub(h.until) > quiet {
		h = &history{until: now}
		if l.repairs == nil {
			l.repairs = map[repair]*history{}
		}
		l.repairs[r] = h
	}
	return h
}

// add counts one, of which so many are free.
func (h *history) add(now time.Time, free int) {
	h.count++
	h.until, h.told = now, false
	if over := h.count - free; over >= 0 {
		h.until = now.Add(min(atFirst<<min(over, 10), atMost))
	}
}

// failed tells when to try again what has failed.
func (l *limits) failed(s subject) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	h := l.history(repair{s, ""}, now)
	h.add(now, 1)
	return h.until.Sub(now)
}

// changed reports whether that was not said of s before.
func (l *limits) changed(s subject, text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.told == nil {
		l.told = map[subject]string{}
	}
	was := l.told[s]
	l.told[s] = text
	if text == "" {
		delete(l.told, s)
	}
	return was != text
}

// forget lets go of one that is no more.
func (l *limits) forget(s subject) {
	l.changed(s, "")
	l.forgive(s)
}

// forgive begins anew.
func (l *limits) forgive(s subject) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r := range l.repairs {
		if r.subject == s {
			delete(l.repairs, r)
		}
	}
}
