package service

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// handle does what a call asks for, and answers it now or has it wait.
func (s *supervisor) handle(c *call) {
	if s.ending != nil && c.Op != opStatus && c.Op != opShutdown {
		c.answer <- response{Error: "the virtual server is shutting down"}
		return
	}
	switch c.Op {
	case opStatus:
		c.answer <- response{Report: s.report()}
	case opSet:
		s.set(c)
	case opStart:
		s.order(c, start)
	case opStop:
		s.order(c, stop)
	case opRestart:
		s.order(c, restart)
	case opReload:
		s.reload(c)
	case opFiles:
		c.answer <- response{Error: errorText(s.mounts.lay(c.Files))}
	case opShutdown:
		s.end(c, c.Timeout)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (s *supervisor) report() *Report {
	r := &Report{Config: s.config, Wanted: []Service{}, Services: []Status{}, Files: s.mounts.digests(), Use: s.group.Use()}
	if s.group != nil {
		limits := s.group.Limits()
		r.Limits, r.Changed = &limits, map[string][]string{}
	}
	for _, u := range s.units {
		r.Services = append(r.Services, u.status())
		if changed := u.changedLimits(); changed != nil {
			r.Changed[u.service.Name] = changed
		}
		if slices.Contains(s.names, u.service.Name) {
			r.Wanted = append(r.Wanted, u.service)
		}
	}
	return r
}

func (s *supervisor) find(name string) *unit {
	i := slices.IndexFunc(s.units, func(u *unit) bool { return u.service.Name == name })
	if i < 0 {
		return nil
	}
	return s.units[i]
}

// order gives one service an order of a person's, who does not want to wait for
// the pause that its failures have earned it.
func (s *supervisor) order(c *call, e event) {
	u := s.find(c.Name)
	if u == nil {
		c.answer <- response{Error: fmt.Sprintf("there is no service %s", c.Name)}
		return
	}
	u.forgive()
	s.happen(u, e)
	s.waits = append(s.waits, wait{call: c, units: []*unit{u}})
}

// set makes the services exactly those of the call: what is new is started,
// what is gone stopped, what is changed restarted, the rest left alone.
func (s *supervisor) set(c *call) {
	want := c.Services
	if err := s.mounts.use(append(s.privates(), privateOf(want)...)); err != nil {
		c.answer <- response{Error: err.Error()}
		return
	}
	var units, touched []*unit
	had := s.names
	s.names = nil
	for _, service := range want {
		s.names = append(s.names, service.Name)
	}
	for _, service := range want {
		u := s.find(service.Name)
		if u == nil {
			u = &unit{service: service, since: time.Now()}
		}
		units = append(units, u)
	}
	s.handOver(units, want)
	for _, u := range slices.Backward(s.units) {
		if !slices.Contains(s.names, u.service.Name) {
			s.happen(u, stop)
			touched = append(touched, u)
		}
	}
	for k, service := range want {
		u := units[k]
		u.limit(service)
		if e, ok := news(u, service, had); ok {
			u.service = service
			u.forgive()
			s.happen(u, e)
			touched = append(touched, u)
		} else if !s.settled(u) { // an earlier call's, whose caller may be gone
			touched = append(touched, u)
		}
		if u.state.over() { // it may have been handed some
			u.unlisten()
		}
	}
	for _, u := range s.units {
		if !slices.Contains(units, u) {
			units = append(units, u)
		}
	}
	s.units = units
	s.waits = append(s.waits, wait{call: c, units: touched})
}

// limit gives a service that runs other limits when nothing else of it has changed.
// Limits that are refused are left to its restart, which tells why.
func (u *unit) limit(wanted Service) {
	same := u.service
	same.Resources = wanted.Resources
	if u.group != nil && same.Equal(wanted) && wanted.Resources.apply(u.group) == nil {
		u.service.Resources, u.launched.Resources = wanted.Resources, wanted.Resources
	}
}

// changedLimits are the controllers by which somebody has set other limits for a service that
// runs.
func (u *unit) changedLimits() []string {
	if u.group == nil || u.pid == 0 {
		return nil
	}
	return u.launched.Resources.Differing(u.group.Limits())
}

// news is what a set means for a service that it names, false when nothing. One
// that is still ending because an earlier set had dropped it is as good as new.
func news(u *unit, service Service, had []string) (event, bool) {
	switch {
	case !slices.Contains(had, service.Name):
		return start, true
	case !u.service.Equal(service):
		return change, true
	}
	return 0, false
}

// privates are the directories that have to be private now: those of the
// services that are wanted, and those that a process still uses.
func (s *supervisor) privates() []private {
	var services []Service
	for _, u := range s.units {
		services = append(services, u.service)
		if u.pid != 0 {
			services = append(services, u.launched)
		}
	}
	return privateOf(services)
}

func privateOf(services []Service) []private {
	var dirs []private
	for _, s := range services {
		for _, path := range s.Private {
			dirs = append(dirs, private{path, s.Settings})
		}
	}
	return dirs
}

// refusals is one line on the units that could not be started.
func (s *supervisor) refusals(units []*unit) string {
	var lines []string
	for _, u := range units {
		if name := s.blocked(u); u.state == Waiting && name != "" {
			lines = append(lines, fmt.Sprintf("cannot start %s: it waits for %s", u.service.Name, name))
		}
		if u.refusal != nil && (u.state == Backoff || u.state == Failed) {
			lines = append(lines, fmt.Sprintf("cannot start %s: %v", u.service.Name, u.refusal))
		}
	}
	return strings.Join(lines, "; ")
}

// end stops everything, in reverse order; what has not ended within its own time, or
// timeout, is killed. c is nil when a signal asked.
func (s *supervisor) end(c *call, timeout time.Duration) {
	if s.ending == nil {
		s.ending = new(ending)
	}
	if c != nil {
		s.ending.calls = append(s.ending.calls, c)
	}
	s.ending.deadline = time.Now().Add(timeout)
	for _, u := range s.units {
		if u.state == Stopping || u.state == Restarting { // by an earlier order
			s.finish(u)
		}
	}
}
