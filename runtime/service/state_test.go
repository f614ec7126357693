package service

import (
	"testing"
)

type outcome struct {
	state  State
	action action
}

// The whole table: for each state what each event leads to. A row lists the
// events in the order of their constants.
var transitions = map[State][exhausted + 1]outcome{
	//           start                  stop                   restart                change                   succeeded              broke                  refused              elapsed             cleared              live                  sick                  exhausted
	Stopped:    {{Waiting, queue}, {Stopped, nothing}, {Waiting, queue}, {Stopped, nothing}, {Stopped, nothing}, {Stopped, nothing}, {Stopped, nothing}, {Stopped, nothing}, {Stopped, nothing}, {Stopped, nothing}, {Stopped, nothing}, {Stopped, nothing}},
	Waiting:    {{Waiting, queue}, {Stopped, nothing}, {Waiting, queue}, {Waiting, queue}, {Waiting, nothing}, {Waiting, nothing}, {Waiting, nothing}, {Waiting, nothing}, {Starting, launch}, {Waiting, nothing}, {Waiting, nothing}, {Waiting, nothing}},
	Starting:   {{Starting, nothing}, {Stopping, terminate}, {Restarting, terminate}, {Restarting, terminate}, {Backoff, pause}, {Backoff, pause}, {Backoff, pause}, {Starting, kill}, {Starting, nothing}, {Running, nothing}, {Starting, nothing}, {Starting, nothing}},
	Running:    {{Running, nothing}, {Stopping, terminate}, {Restarting, terminate}, {Restarting, terminate}, {Backoff, pause}, {Backoff, pause}, {Backoff, pause}, {Running, nothing}, {Running, nothing}, {Running, nothing}, {Unhealthy, terminate}, {Running, nothing}},
	Unhealthy:  {{Restarting, nothing}, {Stopping, nothing}, {Restarting, nothing}, {Restarting, nothing}, {Backoff, pause}, {Backoff, pause}, {Backoff, pause}, {Unhealthy, kill}, {Unhealthy, nothing}, {Unhealthy, nothing}, {Unhealthy, nothing}, {Unhealthy, nothing}},
	Stopping:   {{Restarting, nothing}, {Stopping, nothing}, {Restarting, nothing}, {Stopping, nothing}, {Stopped, nothing}, {Stopped, nothing}, {Stopped, nothing}, {Stopping, kill}, {Stopping, nothing}, {Stopping, nothing}, {Stopping, nothing}, {Stopping, nothing}},
	Restarting: {{Restarting, nothing}, {Stopping, nothing}, {Restarting, nothing}, {Restarting, nothing}, {Waiting, queue}, {Waiting, queue}, {Waiting, queue}, {Restarting, kill}, {Restarting, nothing}, {Restarting, nothing}, {Restarting, nothing}, {Restarting, nothing}},
	Backoff:    {{Waiting, queue}, {Stopped, nothing}, {Waiting, queue}, {Waiting, queue}, {Backoff, nothing}, {Backoff, nothing}, {Backoff, nothing}, {Waiting, queue}, {Backoff, nothing}, {Backoff, nothing}, {Backoff, nothing}, {Failed, nothing}},
	Failed:     {{Waiting, queue}, {Stopped, nothing}, {Waiting, queue}, {Waiting, queue}, {Failed, nothing}, {Failed, nothing}, {Failed, nothing}, {Failed, nothing}, {Failed, nothing}, {Failed, nothing}, {Failed, nothing}, {Failed, nothing}},
	Finished:   {{Waiting, queue}, {Stopped, nothing}, {Waiting, queue}, {Waiting, queue}, {Finished, nothing}, {Finished, nothing}, {Finished, nothing}, {Finished, nothing}, {Finished, nothing}, {Finished, nothing}, {Finished, nothing}, {Finished, nothing}},
}

// Where the policy counts, it does so for a service that was on its way or running
// and ends.
var policies = map[Restart]map[event]outcome{
	RestartOnFailure: {succeeded: {Finished, nothing}, broke: {Backoff, pause}, refused: {Backoff, pause}},
	RestartNever:     {succeeded: {Finished, nothing}, broke: {Failed, nothing}, refused: {Failed, nothing}},
}

func TestTransition(t *testing.T) {
	if len(transitions) != int(Unknown) { // which is no state that an init knows
		t.Fatalf("the table has %d states of %d", len(transitions), Unknown)
	}
	for state, row := range transitions {
		for e, want := range row {
			for policy := range Restart(len(restarts)) {
				if special, ok := policies[policy][event(e)]; ok && (state == Running || state == Starting) {
					want = special
				}
				if policy == RestartNever && state == Unhealthy && want.state == Backoff {
					want = outcome{Failed, nothing} // whatever its status
				}
				s, a := transition(state, event(e), policy)
				if (outcome{s, a}) != want {
					t.Errorf("%s, event %d, %s: %s and action %d, want %s and %d",
						state, e, policy, s, a, want.state, want.action)
				}
			}
		}
	}
}

func TestStateText(t *testing.T) {
	for i := range states {
		text, _ := State(i).MarshalText()
		var s State
		if err := s.UnmarshalText(text); err != nil || s != State(i) {
			t.Errorf("%s: %v, %v", text, s, err)
		}
	}
	var s State
	if s.UnmarshalText([]byte("asleep")) == nil {
		t.Error("asleep is a state")
	}
}
