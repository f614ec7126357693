package service

import (
	"errors"
	"fmt"
	"log"
	"os"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil/cgroup"
)

// A supervisor owns all units. Only its event loop touches them, starts
// processes and reaps them; everybody else sends it messages.
type supervisor struct {
	config Config
	host   uint64 // boot.Host
	env    []string
	logs   *os.Root
	group  *cgroup.Group // of the virtual server; nil where the host has none
	litter []litter      // cgroups below that are still to be removed
	mounts *mounts

	journald *journald // the host's; nil where it has none

	units []*unit  // in the order of the latest set, then those that are to go
	names []string // of the latest set

	collecting sync.WaitGroup // what services write

	calls   chan *call
	ticks   chan tick
	heard   chan tick  // launched processes that have become their programs, or said why not
	looks   chan tick  // times to see whether a service is ready, or well
	overdue chan *task // tasks that have had their time
	signs   chan tick  // services whose output says that they are ready
	notes   chan note  // what services say of themselves
	waits   []wait     // calls that wait for units to settle
	ending  *ending    // set once the init is to end
	exits   chan os.Signal
	terms   chan os.Signal
	shifts  chan struct{} // somebody changed the mounts
}

// A call is a request on its way to the loop. The answer goes out at most once,
// written is closed when the other end has it.
type call struct {
	request
	answer  chan response
	written chan struct{}
}

// A tick is something that was expected, at the nth time that the unit's timer was
// set: it is about nothing when another time is on.
type tick struct {
	unit *unit
	n    int
}

// A wait is a call whose answer is due when all units have settled.
type wait struct {
	call   *call
	units  []*unit
	killed []string // those that did not end in their time
}

// ending is how the init ends, and what is to be told then.
type ending struct {
	calls    []*call
	killed   []string
	deadline time.Time
}

func newCall(r request) *call {
	return &call{r, make(chan response, 1), make(chan struct{})}
}

// ask hands a request to the loop.
func (s *supervisor) ask(r request) *call {
	c := newCall(r)
	s.calls <- c
	return c
}

// quiet is how long nothing happens before memory is given back.
const quiet = time.Second

// run is the event loop. It returns when the init is to end.
func (s *supervisor) run() {
	rest := time.NewTimer(quiet)
	for s.ending == nil || s.busy() {
		select {
		case <-rest.C:
			giveBack()
			continue
		case <-s.exits:
			s.reap()
		case t := <-s.ticks:
			if t.n == t.unit.armed { // else a later timer has replaced it
				s.happen(t.unit, elapsed)
			}
		case t := <-s.heard:
			s.launched(t)
		case t := <-s.looks:
			s.look(t)
		case t := <-s.overdue:
			t.expire()
		case t := <-s.signs:
			s.signed(t)
		case n := <-s.notes:
			s.noted(n)
		case c := <-s.calls:
			s.handle(c)
		case sig := <-s.terms:
			log.Printf("%s: ending", sig)
			s.end(nil, Longest)
		case <-s.shifts:
			s.heal()
		}
		s.settle()
		rest.Reset(quiet)
	}
	s.farewell()
}

// busy reports whether a main process lives.
func (s *supervisor) busy() bool {
	return slices.ContainsFunc(s.units, func(u *unit) bool { return u.pid != 0 })
}

// happen takes a unit through one event.
func (s *supervisor) happen(u *unit, e event) {
	state, act := transition(u.state, e, u.service.Restart)
	if state != u.state {
		if u.state == Backoff && e == elapsed {
			u.restarts++
		}
		u.state, u.since = state, time.Now()
		s.beginRound(u)
		if state.over() {
			u.unlisten()
		}
	}
	switch act {
	case queue:
		// It is started when the event has been dealt with: all sockets are there
		// by then, for services that need each other. What cannot be opened yet is
		// opened when it is started, or keeps it from that.
		u.listen()
	case launch:
		s.launch(u)
	case terminate:
		log.Printf("%s is asked to end", u.service.Name)
		unix.Kill(u.pid, u.launched.Stop.signal())
		s.arm(u, u.launched.Stop.Within())
	case kill:
		if u.state == Starting {
			u.fail(fmt.Errorf("it was not ready after %s", u.launched.Ready.Within()))
			log.Printf("%s: %v", u.service.Name, u.refusal)
		}
		unix.Kill(-u.pid, unix.SIGKILL)
		u.group.Kill()
		s.noteKilled(u)
	case pause:
		s.backOff(u)
	}
}

// noteKilled has those told that a unit was killed who wait for its end.
func (s *supervisor) noteKilled(u *unit) {
	if s.ending != nil {
		s.ending.killed = append(s.ending.killed, u.service.Name)
	}
	for i, w := range s.waits {
		if slices.Contains(w.units, u) {
			s.waits[i].killed = append(w.killed, u.service.Name)
		}
	}
}

// arm has the unit's timer run down after d.
func (s *supervisor) arm(u *unit, d time.Duration) {
	if u.timer != nil {
		u.timer.Stop()
	}
	u.armed++
	t := tick{u, u.armed}
	u.timer = time.AfterFunc(d, func() { s.ticks <- t })
}

// reap collects every process that has ended: main processes, and the orphans
// that the kernel hands to PID 1.
func (s *supervisor) reap() {
	for {
		pid := nextDead()
		if pid == 0 {
			s.sweep()
			return
		}
		u, t := s.whose(pid)
		if u != nil {
			// Until it is reaped its number cannot be somebody else's.
			unix.Kill(-pid, unix.SIGKILL)
			if t == nil {
				u.starved = u.group.Starved()
				u.group.Kill() // what it has started and left
				s.dropGroup(u)
			}
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
			log.Printf("cannot reap process %d: %v", pid, err)
			return
		}
		switch {
		case t != nil:
			t.said.catchUp()
			u.tasks = slices.DeleteFunc(u.tasks, func(o *task) bool { return o == t })
			t.ended(status)
		case u != nil:
			u.said.catchUp()
			e := u.died(status)
			log.Printf("%s (process %d) has ended: %s", u.service.Name, pid, u.last)
			s.happen(u, e)
		}
	}
}

// whose is the unit that a child of the init's is the main process of, or the task
// of; nil for an orphan.
func (s *supervisor) whose(pid int) (*unit, *task) {
	for _, u := range s.units {
		if u.pid == pid {
			return u, nil
		}
		for _, t := range u.tasks {
			if t.pid == pid {
				return u, t
			}
		}
	}
	return nil, nil
}

// nextDead is a child that has ended and is not reaped yet, 0 when there is
// none.
func nextDead() int {
	// The part of siginfo_t that waitid fills in; the union is aligned like a
	// pointer (waitid(2), include/uapi/asm-generic/siginfo.h).
	var info struct {
		signo, errno, code int32
		union              struct {
			_   [0]uintptr
			pid int32
		}
		_ [128]byte
	}
	for {
		err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)),
			unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return int(info.union.pid) // 0 after ECHILD too
		}
	}
}

// settle does what is due when an event has been dealt with.
func (s *supervisor) settle() {
	for _, u := range s.units {
		if u.state == Waiting && s.clear(u) {
			s.happen(u, cleared)
		}
	}
	if s.ending != nil {
		s.stopNext()
	}
	s.units = slices.DeleteFunc(s.units, func(u *unit) bool {
		gone := u.pid == 0 && len(u.tasks) == 0 && u.state == Stopped && !slices.Contains(s.names, u.service.Name)
		if gone {
			s.dropGroup(u)
		}
		return gone
	})
	if err := s.mounts.use(s.privates()); err != nil {
		log.Print(err)
	}
	s.waits = slices.DeleteFunc(s.waits, func(w wait) bool {
		due := !slices.ContainsFunc(w.units, func(u *unit) bool { return !s.settled(u) })
		if due {
			w.call.answer <- response{Error: s.refusals(w.units), Killed: w.killed}
		}
		return due
	})
}

// heal puts back mounts that the host made vanish, and tries again later when
// it cannot: what a bind covers may be away for good, or for the moment that a
// package takes to replace it.
func (s *supervisor) heal() {
	if s.mounts.heal() != nil {
		time.AfterFunc(time.Second, func() { wake(s.shifts) })
	}
}

// wake makes sure that a message is in the channel, which holds one.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// farewell answers those who asked for the end. The process must not end before
// they have it.
func (s *supervisor) farewell() {
	if s.ending.killed != nil {
		log.Printf("killed: %q", s.ending.killed)
	}
	s.lastWords()
	deadline := time.After(time.Second)
	for _, c := range s.ending.calls {
		c.answer <- response{Killed: s.ending.killed}
		select {
		case <-c.written:
		case <-deadline:
			return
		}
	}
}

// lastWords keeps what is still in the services' pipes. Whoever else has one open
// ends with this init anyway.
func (s *supervisor) lastWords() {
	unix.Kill(-1, unix.SIGKILL)
	done := make(chan struct{})
	go func() { s.collecting.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Second):
	}
}
