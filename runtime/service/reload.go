package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Reload says how a running service is told to read its configuration again: by a
// signal, or by a command, which tells by its status whether that worked. A signal
// alone is written as a word.
type Reload struct {
	Signal string `json:"signal,omitempty" yaml:"signal,omitempty"` // as HUP
	// Command is run as the service is, for 30 s at most, with the process id of
	// the main process as MAINPID.
	Command []string `json:"command,omitempty" yaml:"command,omitempty"`
}

// A reloadWord or reloadFields is how one is written.
type (
	reloadWord   string
	reloadFields Reload
)

// MarshalJSON writes a word where it is one.
func (r Reload) MarshalJSON() ([]byte, error) {
	if len(r.Command) == 0 {
		return json.Marshal(r.Signal)
	}
	return json.Marshal(reloadFields(r))
}

// UnmarshalJSON reads what MarshalJSON writes, and no other fields.
func (r *Reload) UnmarshalJSON(text []byte) error {
	return r.construct(func(v any) error { return decodeStrictly(text, v) })
}

// UnmarshalYAML reads the same.
func (r *Reload) UnmarshalYAML(construct func(any) error) error { return r.construct(construct) }

func (r *Reload) construct(into func(any) error) error {
	var word reloadWord
	if into(&word) == nil {
		*r = Reload{Signal: string(word)}
		return nil
	}
	return into((*reloadFields)(r))
}

func (r Reload) equal(o Reload) bool {
	return r.Signal == o.Signal && slices.Equal(r.Command, o.Command)
}

func (r Reload) validate(add func(path string, err error)) {
	if r.Signal != "" {
		_, err := signalNamed(r.Signal)
		add("reload", err)
	}
	add("reload.command", checkCommand(r.Command))
	if r.Signal != "" && len(r.Command) > 0 {
		add("reload", errors.New("is one of signal and command"))
	}
}

// reload has a running service read its configuration again. The call is answered
// when its command has ended.
func (s *supervisor) reload(c *call) {
	answer := func(err error) { c.answer <- response{Error: errorText(err)} }
	u := s.find(c.Name)
	switch {
	case u == nil:
		answer(fmt.Errorf("there is no service %s", c.Name))
	case u.launched.Reload.equal(Reload{}):
		answer(fmt.Errorf("service %s has no reload signal or command", c.Name))
	case u.state != Running:
		answer(fmt.Errorf("service %s is %s", c.Name, u.state))
	case u.launched.Reload.Signal != "":
		sig, _ := signalNamed(u.launched.Reload.Signal)
		answer(unix.Kill(u.pid, sig))
	default:
		failed := func(err error) {
			if err != nil {
				err = fmt.Errorf("its command failed: %w", err)
			}
			answer(err)
		}
		env := []string{fmt.Sprintf("MAINPID=%d", u.pid)}
		if err := s.begin(u, u.launched.Reload.Command, env, startWithin, failed); err != nil {
			failed(err)
		}
	}
}
