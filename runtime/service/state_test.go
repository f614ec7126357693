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
var transitions = map[State][elapsed + 1]outcome{
	//           start                  stop                   restart                change                 succeeded              broke                  refused              elapsed
	Stopped:    {{Running, launch}, {Stopped, nothing}, {Running, launch}, {Stopped, nothing}, {Stopped, nothing}, {Stopped, nothing}, {Stopped, nothing}, {Stopped, nothing}},
	Running:    {{Running, nothing}, {Stopping, terminate}, {Restarting, terminate}, {Restarting, terminate}, {Backoff, pause}, {Backoff, pause}, {Backoff, pause}, {Running, nothing}},
	Stopping:   {{Restarting, nothing}, {Stopping, nothing}, {Restarting, nothing}, {Stopping, nothing}, {Stopped, nothing}, {Stopped, nothing}, {Stopping, nothing}, {Stopping, kill}},
	Restarting: {{Restarting, nothing}, {Stopping, nothing}, {Restarting, nothing}, {Restarting, nothing}, {Running, launch}, {Running, launch}, {Restarting, nothing}, {Restarting, kill}},
	Backoff:    {{Running, launch}, {Stopped, nothing}, {Running, launch}, {Running, launch}, {Backoff, nothing}, {Backoff, nothing}, {Backoff, nothing}, {Running, launch}},
	Failed:     {{Running, launch}, {Stopped, nothing}, {Running, launch}, {Running, launch}, {Failed, nothing}, {Failed, nothing}, {Failed, nothing}, {Failed, nothing}},
	Finished:   {{Running, launch}, {Stopped, nothing}, {Running, launch}, {Running, launch}, {Finished, nothing}, {Finished, nothing}, {Finished, nothing}, {Finished, nothing}},
}

// Where the policy counts, it does so for a running service that ends.
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
				if special, ok := policies[policy][event(e)]; ok && state == Running {
					want = special
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
