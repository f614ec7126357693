package service

import (
	"fmt"
	"slices"
)

// A State is where a service stands.
type State uint8

const (
	Stopped    State = iota // not running, and nobody wants it to
	Waiting                 // for those that it is started after
	Starting                // its main process is on its way, or not ready yet
	Running                 // its main process lives, and is ready
	Unhealthy               // did not stand its health checks, was asked to end, and has failed when it has
	Stopping                // asked to end, will be Stopped
	Restarting              // asked to end, will be started again
	Backoff                 // ended or could not be started; waits for the next try
	Failed                  // ended badly or could not be started, and is left so
	Finished                // ended by itself with status 0, and is left so
	Unknown                 // its init does not answer; no init says so
)

var states = []string{"stopped", "waiting", "starting", "running", "unhealthy", "stopping", "restarting", "backoff", "failed", "finished", "unknown"}

func (s State) String() string {
	if int(s) < len(states) {
		return states[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// over reports whether nothing of the service is to run until somebody wants it to.
func (s State) over() bool { return s == Stopped || s == Failed || s == Finished }

// MarshalText writes the state's name in lower case.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *State) UnmarshalText(text []byte) error {
	i := slices.Index(states, string(text))
	if i < 0 {
		return fmt.Errorf("%q is no state of a service", text)
	}
	*s = State(i)
	return nil
}

// An event is what can happen to a service.
type event uint8

const (
	start     event = iota // somebody wants it to run
	stop                   // somebody wants it not to
	restart                // somebody wants it started anew
	change                 // its definition is another one now
	succeeded              // the main process ended with status 0
	broke                  // the main process ended otherwise
	refused                // the kernel did not start the main process
	elapsed                // the timer that the state's entry set has run down
	cleared                // those that it is started after are ready
	live                   // the main process is ready
	sick                   // it does not stand its health checks
	exhausted              // it has been started as often as it may be
)

// An action is what a transition asks for.
type action uint8

const (
	nothing   action = iota
	queue            // see whether it may be started; cleared follows when it may
	launch           // start the main process; live or refused follows
	terminate        // its stop signal to the main process, and a timer for its end
	kill             // SIGKILL to all its processes
	pause            // a timer for the next try, longer each time; or exhausted, when there is none
)

// transition is the whole life of a service. A pair that is not listed changes
// nothing: the event came too late to matter.
func transition(s State, e event, r Restart) (State, action) {
	switch s {
	case Stopped:
		switch e {
		case start, restart:
			return Waiting, queue
		}
	case Failed, Finished:
		switch e {
		case start, restart, change:
			return Waiting, queue
		case stop:
			return Stopped, nothing
		}
	case Backoff:
		switch e {
		case start, restart, change, elapsed:
			return Waiting, queue
		case exhausted:
			return Failed, nothing
		case stop:
			return Stopped, nothing
		}
	case Waiting:
		switch e {
		case cleared:
			return Starting, launch
		case start, restart, change:
			return Waiting, queue
		case stop:
			return Stopped, nothing
		}
	case Starting:
		switch e {
		case live:
			return Running, nothing
		case stop:
			return Stopping, terminate
		case restart, change:
			return Restarting, terminate
		case succeeded, broke, refused:
			return ended(e, r)
		case elapsed:
			return Starting, kill
		}
	case Running:
		switch e {
		case stop:
			return Stopping, terminate
		case restart, change:
			return Restarting, terminate
		case sick:
			return Unhealthy, terminate
		case succeeded, broke, refused:
			return ended(e, r)
		}
	case Unhealthy:
		switch e {
		case stop:
			return Stopping, nothing
		case start, restart, change:
			return Restarting, nothing
		case succeeded, broke, refused:
			return ended(broke, r)
		case elapsed:
			return Unhealthy, kill
		}
	case Stopping:
		switch e {
		case start, restart:
			return Restarting, nothing
		case succeeded, broke, refused:
			return Stopped, nothing
		case elapsed:
			return Stopping, kill
		}
	case Restarting:
		switch e {
		case stop:
			return Stopping, nothing
		case succeeded, broke, refused:
			return Waiting, queue
		case elapsed:
			return Restarting, kill
		}
	}
	return s, nothing
}

// ended is where a service goes that ended without having been asked to. A
// program that cannot be started is tried again like one that failed: it may be
// in the middle of an upgrade.
func ended(e event, r Restart) (State, action) {
	switch {
	case r == RestartAlways, r == RestartOnFailure && e != succeeded:
		return Backoff, pause
	case e == succeeded:
		return Finished, nothing
	}
	return Failed, nothing
}
