package service

import (
	"errors"
	"fmt"
	"log"
	"time"
)

const (
	firstPause    = 100 * time.Millisecond
	longPause     = 30 * time.Second
	calm          = 10 * time.Second // running that long makes the pauses short again
	startInterval = time.Minute      // of a StartLimit
)

// A StartLimit is how often a service may be started before it is left failed, as
// systemd's StartLimitBurst= and StartLimitIntervalSec= have it. What a person
// orders does not count, and makes it begin anew.
type StartLimit struct {
	Burst    int      `json:"burst,omitempty" yaml:"burst,omitempty"`       // starts; 0: any number
	Interval Duration `json:"interval,omitempty" yaml:"interval,omitempty"` // in which they are; 0: 1 m, at most 24 h
}

// Within is the interval in which starts count.
func (l StartLimit) Within() time.Duration { return l.Interval.or(startInterval) }

func (l StartLimit) validate(add func(path string, err error)) {
	if l.Burst < 0 || l.Burst > 1000 {
		add("startLimit.burst", fmt.Errorf("%d is out of range: 1 to 1000", l.Burst))
	}
	if d := time.Duration(l.Interval); d < 0 || d > 24*time.Hour {
		add("startLimit.interval", fmt.Errorf("%s is out of range: 0 to 24h", d))
	}
	if l.Burst == 0 && l.Interval != 0 {
		add("startLimit", errors.New("has an interval, but no burst"))
	}
}

// nextPause is how long to wait before the next try.
func (u *unit) nextPause() time.Duration {
	u.pause = min(max(2*u.pause, firstPause), longPause)
	return u.pause
}

// forgive forgets what its failures have earned the unit.
func (u *unit) forgive() { u.pause, u.starts = 0, nil }

// began notes a start, as far back as they may count.
func (u *unit) began() {
	u.starts = append(u.starts, time.Now())
	if n := len(u.starts) - u.service.StartLimit.Burst; n > 0 {
		u.starts = u.starts[n:]
	}
}

// exhausted reports whether the unit has been started as often as it may be.
func (u *unit) exhausted() bool {
	l := u.service.StartLimit
	return l.Burst > 0 && len(u.starts) == l.Burst && time.Since(u.starts[0]) < l.Within()
}

// backOff has the unit tried again later, or leaves it.
func (s *supervisor) backOff(u *unit) {
	if !u.exhausted() {
		s.arm(u, u.nextPause())
		return
	}
	l := u.service.StartLimit
	u.last += fmt.Sprintf("; it was started %d times within %s", l.Burst, l.Within())
	log.Printf("%s is left as it is: %s", u.service.Name, u.last)
	s.happen(u, exhausted)
}
