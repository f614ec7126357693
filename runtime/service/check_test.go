package service

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// checked is a service that is well as long as there is the file.
func checked(name, file string) Service {
	s := sh(name, "touch "+file+"; exec sleep 100000")
	s.Ready.Command = []string{"test", "-e", file}
	s.Health = Health{Command: []string{"test", "-e", file}, Interval: Duration(50 * time.Millisecond), Failures: 2}
	return s
}

// One that is not well any more is asked to end and has failed, whatever its status.
func TestHealth(t *testing.T) {
	v := plan(t)
	file := filepath.Join(v.dir, "well")
	v.begin()
	once := checked("once", file+"1")
	once.Restart = RestartNever
	polite := checked("polite", file+"2")
	polite.Command[2] = "trap 'exit 0' TERM; touch " + file + "2; while :; do sleep 0.01; done"
	polite.Restart = RestartOnFailure
	plain := sh("plain", "exec sleep 100000")
	if err := v.Set(t.Context(), []Service{once, polite, plain}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"once", "polite"} {
		eventually(t, name+" is well", func() bool { return v.unit(name).Health == "healthy" })
	}
	if s := v.unit("plain"); s.Health != "" {
		t.Errorf("without checks: %+v", s)
	}
	before := v.unit("polite").Pid
	for _, k := range []string{"1", "2"} {
		if err := os.Remove(file + k); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "one is left as it is", func() bool { return v.unit("once").State == Failed })
	if s := v.unit("once"); s.Last != "unhealthy: exit status 1" || s.Pid != 0 || s.Health != "" {
		t.Errorf("%+v", s)
	}
	eventually(t, "the other is well again", func() bool {
		s := v.unit("polite")
		return s.Restarts == 1 && s.Health == "healthy" && s.Pid != before
	})
	if s := v.unit("polite"); s.Last != "unhealthy: exit status 1" {
		t.Errorf("%+v", s)
	}
	log := read(t, filepath.Join(v.cfg.LogDir, "init.log"))
	for _, line := range []string{"once is not well (1 of 2): exit status 1\n", "once is not well (2 of 2): exit status 1\n"} {
		if !strings.Contains(log, line) {
			t.Errorf("the init's log has no %q", line)
		}
	}
}

// A check that hangs is killed with all that it has started, and has failed; one
// that cannot be started has too.
func TestHealthCannotBeTold(t *testing.T) {
	v := plan(t)
	v.begin()
	for name, c := range map[string]struct {
		health Health
		last   string
	}{
		"hanging": {Health{Command: []string{"sh", "-c", "sleep 32003 & exec sleep 32004"}, Timeout: Duration(slow)}, "unhealthy: it took longer than 300ms"},
		"missing": {Health{Command: []string{"no-such-check"}}, "unhealthy: no-such-check: no such file or directory"},
		"silent":  {Health{TCP: 9}, "unhealthy: nobody listens on port 9"},
	} {
		s := sh(name, "exec sleep 100000")
		s.Restart, s.Health = RestartNever, c.health
		s.Health.Interval, s.Health.Failures = Duration(10*time.Millisecond), 1
		if err := v.Set(t.Context(), []Service{s}); err != nil {
			t.Fatal(err)
		}
		eventually(t, name+" has failed", func() bool { return v.unit(name).State == Failed })
		if got := v.unit(name).Last; got != c.last {
			t.Errorf("%s: %s, want %s", name, got, c.last)
		}
	}
	eventually(t, "no check is left", func() bool { return len(processes("sleep 3200")) == 0 })
}

// A command that hangs once, asked whether a service is ready, is asked again.
func TestReadyCommandHangs(t *testing.T) {
	v := plan(t)
	once := filepath.Join(v.dir, "once")
	v.begin()
	s := sh("a", "exec sleep 100000")
	s.Ready = Ready{Command: []string{"sh", "-c", "[ -e " + once + " ] || { touch " + once + "; sleep 32009 & exec sleep 32010; }"}, Timeout: Duration(9 * time.Second)}
	if err := v.Set(t.Context(), []Service{s}); err != nil {
		t.Fatal(err)
	}
	if now := v.unit("a"); now.State != Running || now.Restarts != 0 {
		t.Errorf("%+v", now)
	}
	eventually(t, "nothing hangs", func() bool { return len(processes("sleep 3200"))+len(processes("sleep 3201")) == 0 })
}

// A check that is under way ends with what it checks, whatever ends that.
func TestChecksEnd(t *testing.T) {
	v := plan(t)
	v.begin()
	hang := []string{"sh", "-c", "sleep 32005 & exec sleep 32006"}
	ill := sh("ill", "exec sleep 100000")
	ill.Health = Health{Command: hang, Interval: Duration(time.Millisecond)}
	late := sh("late", "exec sleep 100000")
	late.Ready, late.Restart = Ready{Command: hang, Timeout: Duration(slow)}, RestartNever
	if err := v.Set(t.Context(), []Service{ill, late}); err == nil || err.Error() != "cannot start late: it was not ready after 300ms" {
		t.Errorf("%v", err)
	}
	eventually(t, "only one check is under way", func() bool { return len(processes("sleep 3200")) == 2 })
	for _, end := range []func() error{
		func() error { return unix.Kill(v.unit("ill").Pid, unix.SIGKILL) },
		func() error { return v.RestartService(t.Context(), "ill") },
	} {
		had := processes("sleep 3200")
		if err := end(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another check is under way", func() bool {
			has := processes("sleep 3200")
			return len(has) == 2 && !slices.Equal(has, had)
		})
	}
	if err := v.Set(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "none is left", func() bool { return len(processes("sleep 3200")) == 0 })
}

// A check is run as the service is.
func TestChecksRunAsTheService(t *testing.T) {
	v := plan(t)
	out := filepath.Join(v.dir, "out")
	v.begin()
	s := sh("a", "exec sleep 100000")
	s.Umask, s.Nice, s.Environment = "027", 5, map[string]string{"TZ": "UTC"}
	script := fmt.Sprintf("{ umask; nice; echo $TZ; } >%s.new; mv %[1]s.new %[1]s", out)
	s.Health = Health{Command: []string{"sh", "-c", script}, Interval: Duration(10 * time.Millisecond)}
	if err := v.Set(t.Context(), []Service{s}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is checked", func() bool { return v.unit("a").Health == "healthy" })
	if got, want := read(t, out), "0027\n5\nUTC\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
