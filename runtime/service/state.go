package service

import (
	"fmt"
	"slices"
)

// A State is where a service stands.
type State uint8

const (
	Stopped    State = iota // not running, and nobody wants it to
	Running                 // its main process lives
	Stopping                // asked to end, will be Stopped
	Restarting              // asked to end, will be started again
	Backoff                 // ended or could not be started; waits for the next try
	Failed                  // ended badly or could not be started, and is left so
	Finished                // ended by itself with status 0, and is left so
	Unknown                 // its init does not answer; no init says so
)

var states = []string{"stopped", "running", "stopping", "restarting", "backoff", "failed", "finished", "unknown"}

func (s State) String() string {
	if int(s) < len(states) {
		return states[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

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
)

// An action is what a transition asks for.
type action uint8

const (
	nothing   action = iota
	launch           // start the main process; refused follows if that fails
	terminate        // SIGTERM to the main process, and a timer for its end
	kill             // SIGKILL to its process group
	pause            // a timer for the next try, longer each time
)

// transition is the whole life of a service. A pair that is not listed changes
// nothing: the event came too late to matter.
func transition(s State, e event, r Restart) (State, action) {
	switch s {
	case Stopped:
		switch e {
		case start, restart:
			return Running, launch
		}
	case Failed, Finished:
		switch e {
		case start, restart, change:
			return Running, launch
		case stop:
			return Stopped, nothing
		}
	case Backoff:
		switch e {
		case start, restart, change, elapsed:
			return Running, launch
		case stop:
			return Stopped, nothing
		}
	case Running:
		switch e {
		case stop:
			return Stopping, terminate
		case restart, change:
			return Restarting, terminate
		case succeeded, broke, refused:
			return ended(e, r)
		}
	case Stopping:
		switch e {
		case start, restart:
			return Restarting, nothing
		case succeeded, broke:
			return Stopped, nothing
		case elapsed:
			return Stopping, kill
		}
	case Restarting:
		switch e {
		case stop:
			return Stopping, nothing
		case succeeded, broke:
			return Running, launch
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

// settled reports whether the state is one that lasts without a further event
// that is already on its way.
func (s State) settled() bool { return s != Stopping && s != Restarting }
