package service

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestStartAndRestart(t *testing.T) {
	v := up(t, sh("a", "echo hello; exec sleep 1000"))
	waitForLog(v, "a", "hello\n")
	first := v.unit("a")
	if first.State != Running || first.Pid == 0 || first.Restarts != 0 || first.Last != "" {
		t.Errorf("at first: %+v", first)
	}
	if time.Since(first.Since) > time.Minute {
		t.Errorf("since %s", first.Since)
	}
	if err := unix.Kill(first.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it runs again", func() bool {
		s := v.unit("a")
		return s.State == Running && s.Restarts == 1
	})
	second := v.unit("a")
	if second.Pid == first.Pid || second.Last != "signal: killed" {
		t.Errorf("after its death: %+v", second)
	}
	log := filepath.Join(v.cfg.LogDir, "a.log")
	waitForLog(v, "a", "hello\nhello\n")
	if fi, err := os.Stat(log); err != nil || fi.Mode() != 0o640 {
		t.Errorf("the log: %v, %v", fi.Mode(), err)
	}
}

func TestServiceEnvironment(t *testing.T) {
	v := plan(t)
	out := filepath.Join(v.dir, "out")
	v.begin()
	script := fmt.Sprintf(`{ env | sort; pwd; umask; cut -d" " -f6 /proc/$$/stat; } >%s.new; mv %[1]s.new %[1]s; exec sleep 1000`, out)
	if err := v.Set(t.Context(), []Service{sh("a", script)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has written", func() bool { _, err := os.Stat(out); return err == nil })
	lines := strings.Split(strings.TrimSpace(read(t, out)), "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "PWD=") || strings.HasPrefix(l, "_=") })
	want := []string{"HOME=/", "LANG=C.UTF-8", "PATH=" + searchPath, "VSRUN_ID=" + strconv.Itoa(v.cfg.ID), "/", "0022"}
	if len(lines) != len(want)+1 || !slices.Equal(lines[:len(want)], want) {
		t.Errorf("%q", lines)
	}
	if sid := lines[len(lines)-1]; sid == "0" || sid == "1" {
		t.Errorf("its session is %s", sid)
	}
}

func TestBackoff(t *testing.T) {
	v := plan(t)
	times := filepath.Join(v.dir, "times")
	v.begin()
	if err := v.Set(t.Context(), []Service{sh("a", "date +%s%N >>"+times+"; exit 3")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has been started five times", func() bool {
		text, _ := os.ReadFile(times)
		return strings.Count(string(text), "\n") >= 5
	})
	var before int64
	for i, line := range strings.Fields(read(t, times)) {
		at, err := strconv.ParseInt(line, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		least := firstPause << max(i-1, 0)
		if gap := time.Duration(at - before); i > 0 && (gap < least-5*time.Millisecond || gap > least+2*time.Second) {
			t.Errorf("start %d came after %s, want %s", i, gap, least)
		}
		before = at
	}
	if s := v.unit("a"); s.Last != "exit status 3" || s.Restarts < 4 {
		t.Errorf("%+v", s)
	}
}

func TestPauses(t *testing.T) {
	var u unit
	want := []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000}
	for i, ms := range want {
		if got := u.nextPause(); got != ms*time.Millisecond {
			t.Errorf("pause %d: %s", i, got)
		}
	}
	u.since = time.Now().Add(-calm / 2)
	u.died(0)
	if u.pause == 0 {
		t.Error("short again after half the time")
	}
	u.since = time.Now().Add(-calm)
	u.died(0)
	if got := u.nextPause(); got != firstPause {
		t.Errorf("after calm: %s", got)
	}
}

// One that has been started as often as it may be is left failed, whatever its status,
// until somebody orders otherwise.
func TestStartLimit(t *testing.T) {
	v := plan(t)
	times := filepath.Join(v.dir, "times")
	v.begin()
	s := sh("a", "echo >>"+times+"; exit 0")
	s.StartLimit = StartLimit{Burst: 3}
	if err := v.Set(t.Context(), []Service{s}); err != nil {
		t.Fatal(err)
	}
	for round := 1; round <= 2; round++ {
		eventually(t, "it is left", func() bool { return v.unit("a").State == Failed })
		if s := v.unit("a"); s.Last != "exit status 0; it was started 3 times within 1m0s" {
			t.Errorf("%+v", s)
		}
		if n := strings.Count(read(t, times), "\n"); n != 3*round {
			t.Errorf("it was started %d times", n)
		}
		if err := v.StartService(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
}

// Starts count as long as the interval is.
func TestStartsAreForgotten(t *testing.T) {
	u := unit{service: Service{StartLimit: StartLimit{Burst: 2, Interval: Duration(time.Minute)}}}
	for i, c := range []struct {
		ago  time.Duration
		want bool
	}{{3 * time.Minute, false}, {2 * time.Minute, false}, {time.Second, false}, {0, true}} {
		u.began()
		u.starts[len(u.starts)-1] = time.Now().Add(-c.ago)
		if u.exhausted() != c.want || len(u.starts) > 2 {
			t.Errorf("after start %d: %t, %d starts are kept", i, u.exhausted(), len(u.starts))
		}
	}
	u.forgive()
	if u.exhausted() {
		t.Error("forgiven")
	}
}

func TestPolicies(t *testing.T) {
	v := plan(t)
	v.begin()
	list := []Service{
		{Name: "ok-never", Command: []string{"true"}, Restart: RestartNever},
		{Name: "bad-never", Command: []string{"false"}, Restart: RestartNever},
		{Name: "ok-on-failure", Command: []string{"true"}, Restart: RestartOnFailure},
		{Name: "bad-on-failure", Command: []string{"false"}, Restart: RestartOnFailure},
		{Name: "ok-always", Command: []string{"true"}},
	}
	if err := v.Set(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]State{
		"ok-never": Finished, "bad-never": Failed, "ok-on-failure": Finished, "bad-on-failure": Backoff, "ok-always": Backoff,
	} {
		eventually(t, name+" is "+want.String(), func() bool { return v.unit(name).State == want })
	}
	eventually(t, "some are started again", func() bool {
		return v.unit("ok-always").Restarts > 0 && v.unit("bad-on-failure").Restarts > 0
	})
	if v.unit("ok-never").Restarts+v.unit("bad-never").Restarts+v.unit("ok-on-failure").Restarts != 0 {
		t.Error("others are too")
	}
	// One that has had its turn gets another when it is changed.
	list[0].Command = []string{"sleep", "1000"}
	if err := v.Set(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	if s := v.unit("ok-never"); s.State != Running {
		t.Errorf("changed: %+v", s)
	}
}

func TestOrphansAreReaped(t *testing.T) {
	v := up(t, sh("a", "for i in 1 2 3 4 5 6 7 8; do (setsid sleep 0.0$i &); done; exec sleep 1000"))
	eventually(t, "no zombie and no orphan is left", func() bool {
		// The shell, the grep and the cut of this look-up are there too.
		out := v.output("cat /proc/[0-9]*/stat 2>/dev/null | cut -d' ' -f2,3; true")
		return !strings.Contains(out, " Z") && strings.Count(out, "(sleep)") == 1
	})
}

// A leftover of the process group must be gone before the next try.
func TestGroupIsKilled(t *testing.T) {
	v := up(t, sh("a", "sleep 32001 & exec sleep 32002"))
	eventually(t, "both run", func() bool { return len(processes("sleep 3200")) == 2 })
	if err := unix.Kill(v.unit("a").Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it runs again", func() bool { return v.unit("a").Restarts == 1 })
	eventually(t, "there are only two", func() bool { return len(processes("sleep 3200")) == 2 })
	if err := v.StopService(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there are none", func() bool { return len(processes("sleep 3200")) == 0 })
}

// sleeper is a service whose command line tells how it was started.
func sleeper(name, seconds string) Service {
	return Service{Name: name, Command: []string{"sleep", seconds}}
}

func TestSet(t *testing.T) {
	ctx := t.Context()
	v := up(t, sleeper("same", "1000"), sleeper("changed", "1001"),
		sleeper("gone", "1002"), sleeper("halted", "1003"))
	if err := v.StopService(ctx, "halted"); err != nil {
		t.Fatal(err)
	}
	same, changed, gone := v.unit("same"), v.unit("changed"), v.unit("gone")
	err := v.Set(ctx, []Service{sleeper("new", "1004"), sleeper("changed", "2001"),
		sleeper("same", "1000"), sleeper("halted", "2003")})
	if err != nil {
		t.Fatal(err)
	}
	list, err := v.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range list {
		got = append(got, s.Name+" "+s.State.String())
	}
	want := []string{"new running", "changed running", "same running", "halted stopped"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if s := v.unit("same"); s != same {
		t.Errorf("the same was touched: %+v, before %+v", s, same)
	}
	if s := v.unit("changed"); s.Pid == changed.Pid || !strings.Contains(read(t, fmt.Sprintf("/proc/%d/cmdline", s.Pid)), "2001") {
		t.Errorf("changed: %+v, before %+v", s, changed)
	}
	if exists(gone.Pid) {
		t.Error("the gone one lives")
	}
	if err := v.StartService(ctx, "halted"); err != nil {
		t.Fatal(err)
	}
	if s := v.unit("halted"); !strings.Contains(read(t, fmt.Sprintf("/proc/%d/cmdline", s.Pid)), "2003") {
		t.Errorf("started by hand: %+v", s)
	}
	if err := v.Set(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if list, err := v.Status(ctx); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// One that an earlier set dropped and that is still ending comes back.
func TestSetTakesBack(t *testing.T) {
	v := up(t, sh("slow", `trap "sleep 0.3; exit" TERM; echo ready; while :; do sleep 0.01; done`))
	waitForLog(v, "slow", "ready\n")
	dropped := make(chan error, 1)
	go func() { dropped <- v.Set(context.Background(), nil) }()
	eventually(t, "it is stopping", func() bool { return v.unit("slow").State == Stopping })
	if err := v.Set(t.Context(), []Service{sh("slow", "exec sleep 1000")}); err != nil {
		t.Fatal(err)
	}
	if err := <-dropped; err != nil {
		t.Error(err)
	}
	if s := v.unit("slow"); s.State != Running || s.Last != "exit status 0" {
		t.Errorf("%+v", s)
	}
}

// said is what a service has written, without the times.
func said(v *virtual, name string) string {
	var text strings.Builder
	for _, file := range Journal(v.cfg.LogDir, name) {
		b, _ := os.ReadFile(file)
		for line := range strings.Lines(string(b)) {
			_, line, _ = strings.Cut(line, " ")
			text.WriteString(line)
		}
	}
	return text.String()
}

func waitForLog(v *virtual, name, text string) {
	v.t.Helper()
	eventually(v.t, name+" has written "+strconv.Quote(text), func() bool {
		log := said(v, name)
		return strings.HasSuffix(log, text)
	})
}

func TestMissingProgram(t *testing.T) {
	v := plan(t)
	v.begin()
	script := filepath.Join(v.dir, "script")
	write(t, script, "not executable")
	err := v.Set(t.Context(), []Service{
		{Name: "web", Command: []string{"no-such-nginx"}},
		sh("good", "exec sleep 1000"),
		{Name: "script", Command: []string{script}, Restart: RestartNever},
	})
	want := "cannot start web: no-such-nginx: no such file or directory; " +
		"cannot start script: " + script + ": permission denied"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	for name, state := range map[string]State{"web": Backoff, "good": Running, "script": Failed} {
		eventually(t, name+" is "+state.String(), func() bool { return v.unit(name).State == state }) // web is tried again and again
	}
	if s := v.unit("script"); s.Last != "cannot start: "+script+": permission denied" {
		t.Errorf("last %q", s.Last)
	}
	// The program that appears later is found by the next try.
	write(t, script, "#!/bin/sh\nexec sleep 1000\n")
	if err := os.Chmod(script, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := v.StartService(t.Context(), "script"); err != nil {
		t.Error(err)
	}
	if err := v.StartService(t.Context(), "nobody"); err == nil || err.Error() != "there is no service nobody" {
		t.Errorf("%v", err)
	}
}

func TestByHand(t *testing.T) {
	ctx := t.Context()
	v := up(t, sh("a", "exec sleep 1000"))
	first := v.unit("a")
	for range 2 { // twice gives the same as once
		if err := v.StopService(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		if s := v.unit("a"); s.State != Stopped || s.Pid != 0 || s.Last != "signal: terminated" {
			t.Errorf("stopped: %+v", s)
		}
	}
	for range 2 {
		if err := v.StartService(ctx, "a"); err != nil {
			t.Fatal(err)
		}
	}
	second := v.unit("a")
	if err := v.RestartService(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	third := v.unit("a")
	if second.Pid == first.Pid || third.Pid == second.Pid || third.State != Running || third.Restarts != 0 {
		t.Errorf("%+v, %+v, %+v", first, second, third)
	}
}
