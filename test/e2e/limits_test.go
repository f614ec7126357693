package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// A glutton takes all the memory that it can get: tail keeps the last line, which
// does not end.
var glutton = []string{"tail", "/dev/zero"}

// twoServers are vs8, to be limited, and vs9, which is to notice nothing of it: the
// second value fails the test if it has.
func twoServers(t *testing.T) (*site, func()) {
	t.Helper()
	s := &site{Host: bareHost(t)}
	for _, id := range []string{"8", "9"} {
		s.MustVsrun(t, "create", id)
		add(t, s, id, "calm", []string{"sleep", "100000"})
	}
	before := s.service(t, "9", "calm")
	return s, func() {
		t.Helper()
		if now := s.service(t, "9", "calm"); now.Pid != before.Pid || now.Restarts != 0 {
			t.Errorf("beside it %+v has become %+v", before, now)
		}
		s.MustVsrun(t, "destroy", "8", "9")
	}
}

func TestMemoryLimit(t *testing.T) {
	lab.Require(t, "controller:memory")
	s, unharmed := twoServers(t)
	calm := s.service(t, "8", "calm")
	add(t, s, "8", "glutton", glutton, "--memory", "16M")
	soon(t, func() error {
		if now := s.service(t, "8", "glutton"); now.Restarts < 2 || now.Last != "signal: killed (out of memory)" {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	if r := s.Vsrun("ps", "8"); !strings.Contains(r.Stdout, "(out of memory)") {
		t.Error(r)
	}
	if now := s.service(t, "8", "calm"); now.Pid != calm.Pid {
		t.Errorf("in the same virtual server %+v has become %+v", calm, now)
	}
	// What is killed by a person is not said to be starved.
	s.MustVsrun(t, "service", "rm", "8", "glutton")
	s.Run(t, "kill", "-KILL", fmt.Sprint(calm.Pid))
	soon(t, func() error {
		if now := s.service(t, "8", "calm"); now.Last != "signal: killed" {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	unharmed()
}

func TestTasksLimit(t *testing.T) {
	lab.Require(t, "controller:pids", "perl")
	s, unharmed := twoServers(t)
	const most = 20
	const bomb = `1 while defined fork; warn "$!\n"; sleep 100000`
	add(t, s, "8", "bomb", []string{"perl", "-e", bomb}, "--tasks", fmt.Sprint(most))
	soon(t, func() error {
		if n := strings.Count(s.MustVsrun(t, "logs", "8", "bomb"), "Resource temporarily unavailable"); n != most {
			return fmt.Errorf("%d processes have been refused a child", n)
		}
		return nil
	})
	if now := s.service(t, "8", "bomb"); now.Use.Tasks == nil || *now.Use.Tasks != most || alive(t, bomb) != most {
		t.Errorf("%+v, and %d processes, not %d", now, alive(t, bomb), most)
	}
	s.MustVsrun(t, "service", "rm", "8", "bomb")
	soon(t, func() error { // killed, they take a moment
		if n := alive(t, bomb); n != 0 {
			return fmt.Errorf("removed, %d of it live", n)
		}
		return nil
	})
	unharmed()
}

func TestCPULimit(t *testing.T) {
	lab.Require(t, "controller:cpu")
	s, unharmed := twoServers(t)
	const percent = 10
	began := time.Now() // before it
	add(t, s, "8", "busy", []string{"sh", "-c", "while :; do :; done"}, "--cpu", fmt.Sprint(percent, "%"))
	soon(t, func() error {
		if now := s.service(t, "8", "busy"); now.Use.Throttled == nil || *now.Use.Throttled == 0 {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	used := *s.service(t, "8", "busy").Use.CPU
	if most := time.Since(began).Microseconds()*percent/100 + 100_000; used > most {
		t.Errorf("it has used %d µs, %d are allowed", used, most)
	}
	unharmed()
}
