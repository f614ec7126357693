package service

import (
	"errors"
	"fmt"
	"log"
	"slices"
	"time"
)

// Health says how a service that runs is checked, by one of two signs. One that
// does not stand its checks is restarted as if it had failed.
type Health struct {
	// Command ends with status 0. It is run as the service is.
	Command []string `json:"command,omitempty" yaml:"command,omitempty"`
	// TCP is the port that somebody in the virtual server listens on. Whether it
	// is answered there, only a command can tell.
	TCP      int      `json:"tcp,omitempty" yaml:"tcp,omitempty"`
	Interval Duration `json:"interval,omitempty" yaml:"interval,omitempty"` // from one check's end to the next; 0: 30 s
	Timeout  Duration `json:"timeout,omitempty" yaml:"timeout,omitempty"`   // of the command, which is then killed and has failed; 0: 10 s
	Failures int      `json:"failures,omitempty" yaml:"failures,omitempty"` // in a row, that it does not stand; 0: 3
}

const (
	healthEvery    = 30 * time.Second
	checkWithin    = 10 * time.Second // for a command
	healthFailures = 3
)

func (h Health) given() bool { return h.TCP != 0 || len(h.Command) > 0 }

func (h Health) failures() int {
	if h.Failures == 0 {
		return healthFailures
	}
	return h.Failures
}

func (h Health) equal(o Health) bool {
	return h.TCP == o.TCP && h.Interval == o.Interval && h.Timeout == o.Timeout && h.Failures == o.Failures &&
		slices.Equal(h.Command, o.Command)
}

func (h Health) validate(add func(path string, err error)) {
	switch {
	case h.TCP != 0 && len(h.Command) > 0:
		add("health", errors.New("has several signs: one of tcp and command"))
	case !h.given() && !h.equal(Health{}):
		add("health", errors.New("has no sign: one of tcp and command"))
	}
	add("health.tcp", checkPort(h.TCP))
	add("health.command", checkCommand(h.Command))
	add("health.interval", h.Interval.check())
	add("health.timeout", h.Timeout.check())
	if h.Failures < 0 || h.Failures > 1000 {
		add("health.failures", fmt.Errorf("%d is out of range: 1 to 1000", h.Failures))
	}
}

// lookIn has the unit looked at after d, unless its state is another one by then.
func (s *supervisor) lookIn(u *unit, d time.Duration) {
	t := tick{u, u.round}
	u.looking = time.AfterFunc(d, func() { s.looks <- t })
}

// look sees whether a service is ready that cannot say so itself, or whether one
// that runs is well. The kernel tells nobody that a port is listened on.
func (s *supervisor) look(t tick) {
	u := t.unit
	if t.n != u.round {
		return
	}
	r, h := u.launched.Ready, u.launched.Health
	port, command, within := r.TCP, r.Command, min(r.Within()/3, checkWithin)
	if u.state == Running {
		port, command, within = h.TCP, h.Command, h.Timeout.or(checkWithin)
	}
	seen := func(err error) {
		if t.n == u.round {
			s.looked(u, err)
		}
	}
	var err error
	switch {
	case len(command) > 0:
		if err = s.begin(u, command, nil, within, seen); err == nil {
			return
		}
	case !listening(port):
		err = fmt.Errorf("nobody listens on port %d", port)
	}
	seen(err)
}

// looked goes on with what was seen.
func (s *supervisor) looked(u *unit, err error) {
	switch {
	case u.state == Running:
		s.examined(u, err)
	case err == nil:
		s.happen(u, live)
	case u.launched.Ready.TCP != 0:
		s.lookIn(u, lookEvery)
	default:
		s.lookIn(u, checkEvery)
	}
}

// examined counts a health check.
func (s *supervisor) examined(u *unit, err error) {
	h := u.launched.Health
	u.checked = true
	if err == nil {
		u.failures, u.illness = 0, nil
		s.lookIn(u, h.Interval.or(healthEvery))
		return
	}
	u.failures++
	u.illness = err
	log.Printf("%s is not well (%d of %d): %v", u.service.Name, u.failures, h.failures(), err)
	if u.failures >= h.failures() {
		s.happen(u, sick)
		return
	}
	s.lookIn(u, h.Interval.or(healthEvery))
}

// beginRound ends what was looked for in the unit's former state, and begins with
// what its new one is checked for.
func (s *supervisor) beginRound(u *unit) {
	u.round++
	if u.looking != nil {
		u.looking.Stop()
	}
	u.dropTasks()
	if u.state == Running {
		u.checked, u.failures, u.illness = false, 0, nil
		if h := u.launched.Health; h.given() {
			s.lookIn(u, h.Interval.or(healthEvery))
		}
	}
}

// health is how the latest check of a service that runs went, "" when there was
// none.
func (u *unit) health() string {
	switch {
	case !u.checked || u.state != Running && u.state != Unhealthy:
		return ""
	case u.illness == nil:
		return "healthy"
	}
	return fmt.Sprintf("failing (%d of %d): %v", u.failures, u.launched.Health.failures(), u.illness)
}
