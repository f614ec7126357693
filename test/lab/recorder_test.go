package lab_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/vsrun/vsrun/test/lab"
)

// A recorder is a test whose end is looked at, not suffered.
type recorder struct {
	testing.TB
	errors, logs, skips []string
	cleanups            []func()
}

func (r *recorder) Helper()          {}
func (r *recorder) Failed() bool     { return len(r.errors) > 0 }
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}
func (r *recorder) Logf(format string, args ...any) {
	r.logs = append(r.logs, fmt.Sprintf(format, args...))
}
func (r *recorder) Fatal(args ...any) {
	r.errors = append(r.errors, fmt.Sprint(args...))
	panic(r)
}
func (r *recorder) Skip(args ...any) {
	r.skips = append(r.skips, fmt.Sprint(args...))
	panic(r)
}

// play runs f until it ends, fails for good or skips.
func (r *recorder) play(f func()) {
	defer func() {
		if p := recover(); p != nil && p != any(r) {
			panic(p)
		}
	}()
	f()
}

func (r *recorder) finish() {
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
}

func pid(p *lab.Process) string { return strconv.Itoa(p.Pid()) }
