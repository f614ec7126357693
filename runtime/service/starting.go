package service

import (
	"bytes"
	"errors"
	"log"
	"os"
	"slices"
	"strings"
	"time"
)

// clear reports whether all that the unit is started after is ready, and nothing of
// its earlier life is left, such as a child that still listens on its port.
func (s *supervisor) clear(u *unit) bool {
	return s.ending == nil && !s.lingers(u) && !s.elsewhere(u) && !slices.ContainsFunc(u.service.After, func(name string) bool {
		o := s.find(name)
		return o == nil || o.state != Running && o.state != Finished
	})
}

// blocked is a service that has to be started first, and will not be for now: ""
// when there is none.
func (s *supervisor) blocked(u *unit) string {
	for _, name := range u.service.After {
		o := s.find(name)
		switch {
		case o == nil:
			return name
		case o.state == Stopped || o.state == Failed || o.state == Backoff:
			return name
		case o.state == Waiting && s.blocked(o) != "":
			return name
		}
	}
	return ""
}

// settled reports whether the unit's state is one that lasts without a further
// event that is already on its way, and nothing is left of an earlier life.
func (s *supervisor) settled(u *unit) bool {
	switch u.state {
	case Starting, Unhealthy, Stopping, Restarting:
		return false
	case Waiting:
		return s.blocked(u) != ""
	}
	return !s.lingers(u)
}

// launch starts the main process.
func (s *supervisor) launch(u *unit) {
	u.began()
	s.arm(u, u.service.Ready.Within())
	t := tick{u, u.armed}
	err := s.withOutput(u, s.expect(t, u.service.Ready.Output), func(out *os.File, said *feed) error {
		u.said = said
		if err := errors.Join(u.service.Resources.apply(u.group), u.listen()); err != nil {
			return err
		}
		return u.launch(out, s.env, s.mounts.targets(u.service.Private), func() { s.heard <- t })
	})
	if err != nil {
		u.fail(err)
		log.Printf("cannot start %s: %v", u.service.Name, err)
		s.happen(u, refused)
	}
}

// launched goes on when the main process has become the program. One that could not
// ends, and that is the event.
func (s *supervisor) launched(t tick) {
	u := t.unit
	if t.n != u.armed || u.state != Starting {
		return
	}
	u.hear()
	if u.refusal != nil {
		return
	}
	log.Printf("%s has been started (process %d)", u.service.Name, u.pid)
	switch {
	case u.launched.Ready.immediate():
		s.happen(u, live)
	case u.launched.Ready.looked() && u.launched.Ready.Output == "":
		s.look(tick{u, u.round})
	}
}

// expect tells about the first line that has the text in it; nil expects none.
func (s *supervisor) expect(t tick, text string) func(line []byte) {
	if text == "" {
		return nil
	}
	seen := false
	return func(line []byte) {
		if !seen && bytes.Contains(line, []byte(text)) {
			seen = true
			go func() { s.signs <- t }() // who collects must not wait for the loop, which may wait for it
		}
	}
}

// signed has seen in a service's output that it is ready, but for what is still to
// be looked for.
func (s *supervisor) signed(t tick) {
	u := t.unit
	if t.n != u.armed {
		return
	}
	u.hear()
	if u.launched.Ready.looked() {
		s.look(tick{u, u.round})
		return
	}
	s.happen(u, live)
}

// withOutput calls fn with the file that a process of the unit writes to, a pipe, and
// with its other end, which goes to the service's journal. seen, if any, sees each line.
func (s *supervisor) withOutput(u *unit, seen func([]byte), fn func(out *os.File, said *feed) error) error {
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	if err := s.makeGroup(u); err != nil {
		in.Close()
		return err
	}
	if u.journal == nil {
		u.journal = newJournal(s.logs, u.service.Name, s.journald)
	}
	said := &feed{journal: u.journal, pipe: in, seen: seen}
	s.collecting.Go(said.collect)
	return fn(out, said)
}

// makeGroup gives a unit a cgroup that nothing was killed in: one that is there is
// an init's that has ended.
func (s *supervisor) makeGroup(u *unit) (err error) {
	if s.group == nil || u.group != nil {
		return nil
	}
	for s.group.Has(u.leaf()) && s.group.Remove(u.leaf()) != nil {
		u.groups++
	}
	u.group, err = s.group.Child(u.leaf())
	return err
}

// Litter is a cgroup that a service has let go of, and that all was killed in.
type litter struct {
	service, leaf string
	since         time.Time
}

// linger is how long a service is not started for what is left of its earlier life:
// what hangs in the kernel may do so for good.
const linger = 2 * time.Second

// lingers reports whether processes of the unit's earlier life may still be ending.
// They have closed their files before they leave their cgroup (do_exit() in
// kernel/exit.c).
func (s *supervisor) lingers(u *unit) bool {
	return slices.ContainsFunc(s.litter, func(l litter) bool {
		return l.service == u.service.Name && time.Since(l.since) < linger
	})
}

// dropGroup lets go of a unit's cgroup; the next start makes another one. What was
// killed may still be ending, and is removed later.
func (s *supervisor) dropGroup(u *unit) {
	if u.group == nil {
		return
	}
	l := litter{u.service.Name, u.leaf(), time.Now()}
	u.group.Close()
	u.group = nil
	s.litter = append(s.litter, l)
	if s.sweep(); slices.Contains(s.litter, l) {
		u.groups++
		time.AfterFunc(linger, func() { s.ticks <- tick{unit: u} }) // no state's, but a time to look
	}
}

// sweep removes the cgroups that units have let go of, as far as all that was killed
// in them has ended.
func (s *supervisor) sweep() {
	s.litter = slices.DeleteFunc(s.litter, func(l litter) bool { return s.group.Remove(l.leaf) == nil })
}

// A note is what a process of a service has sent to the notification socket.
type note struct {
	pid  int
	text string
}

// noted takes what a service's main process says of itself (sd_notify(3)).
func (s *supervisor) noted(n note) {
	i := slices.IndexFunc(s.units, func(u *unit) bool { return u.pid == n.pid && n.pid != 0 })
	if i < 0 {
		return
	}
	if u := s.units[i]; u.launched.Ready.Notify && slices.Contains(strings.Split(n.text, "\n"), "READY=1") {
		u.hear()
		s.happen(u, live)
	}
}

// stopNext asks the services to end, in the reverse order of their start: one that
// others are started after, when those have ended.
func (s *supervisor) stopNext() {
	for _, u := range slices.Backward(s.units) {
		needed := slices.ContainsFunc(s.units, func(o *unit) bool { return o.pid != 0 && o.needs(u) })
		if !needed && u.state != Stopping && u.state != Stopped {
			s.finish(u)
		}
	}
}

// finish stops a unit because the init ends. It has the time that it always has, as
// far as that is left; what others are started after has waited for them, and gets a
// moment in any case.
func (s *supervisor) finish(u *unit) {
	s.happen(u, stop)
	if u.pid == 0 {
		return
	}
	left := max(time.Until(s.ending.deadline), 0)
	if slices.ContainsFunc(s.units, func(o *unit) bool { return o.needs(u) }) {
		left = max(left, moment)
	}
	s.arm(u, min(u.launched.Stop.Within(), left))
}

// needs reports whether the unit was started after another.
func (u *unit) needs(other *unit) bool {
	return slices.Contains(u.launched.After, other.service.Name)
}
