package plumbing

import "fmt"

// A Refusal is an error that knows its cure.
type Refusal struct {
	Err  error
	Cure string // what to do, as one would say it: "bring it up: ip link set eth1 up"
}

func refuse(cure, format string, args ...any) error {
	return &Refusal{fmt.Errorf(format, args...), cure}
}

func (r *Refusal) Error() string { return r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }

// Hint is the cure, for whoever shows the error to a person.
func (r *Refusal) Hint() string { return r.Cure }
