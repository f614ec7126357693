package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

const crashDocument = `
id: 8
interfaces: [{name: eth0, port: eth1, addresses: [192.0.2.8/24, "2001:db8::8/64"], gateways: [192.0.2.1]}]
services: [{name: one, command: [sh, -c, "setsid sleep 100000 & exec sleep 100000"]}]
`

// crash starts vsrun and kills it after delay, unless it has ended by then. It
// returns how long it ran.
func crash(t *testing.T, delay time.Duration, stdin string, args ...string) time.Duration {
	t.Helper()
	cmd := exec.Command(filepath.Join(lab.Programs(t), "vsrun"), args...)
	cmd.Stdin = strings.NewReader(stdin)
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(delay, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	kill.Stop()
	killed := cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled()
	if err != nil && !killed {
		t.Errorf("vsrun %q: %v", args, err)
	}
	return time.Since(began)
}

// After a crash at any moment the same command, run again, completes; and
// destroy leaves nothing.
func TestCrashedCommandsCompleteAgain(t *testing.T) {
	s := newSite(t)
	create := strings.Fields("create --no-probe -f -")
	made := func() { s.must(t, s.VsrunIn(crashDocument, create...)) }
	enabled := func() error {
		if got := s.show(t, "8"); got.State != "enabled" || len(got.Services) != 1 || got.Services[0].State != "running" {
			return fmt.Errorf("it is %+v", got)
		}
		return reach(s.client, "192.0.2.8")
	}
	gone := func() error {
		if s.onPort(t, derived(t, "vs8", "eth0")) {
			return errors.New("the port still has its MAC address")
		}
		if n := alive(t, "100000"); n > 0 {
			return fmt.Errorf("%d of its processes live", n)
		}
		return nil
	}
	for _, c := range []struct {
		args   []string
		runs   int
		before func()
		holds  func() error
	}{
		{create, 15, func() {}, enabled},
		{strings.Fields("enable 8 --no-probe"), 10, func() { made(); s.MustVsrun(t, "disable", "8") }, enabled},
		{strings.Fields("disable 8"), 10, made, gone},
		{strings.Fields("destroy 8"), 10, made, gone},
		{strings.Fields("create -f -"), 5, func() {}, enabled}, // with probes
	} {
		name := strings.Join(c.args, " ")
		c.before()
		whole := crash(t, time.Minute, crashDocument, c.args...)
		s.MustVsrun(t, "destroy", "8")
		var worst time.Duration
		for k := range c.runs {
			c.before()
			delay := whole * time.Duration(k+1) / time.Duration(c.runs)
			crash(t, delay, crashDocument, c.args...)
			began := time.Now()
			if r := s.VsrunIn(crashDocument, c.args...); r.Code != 0 {
				t.Errorf("killed after %v, and again: %v", delay, r)
			}
			worst = max(worst, time.Since(began))
			if err := c.holds(); err != nil {
				t.Errorf("killed after %v, and again: %v", delay, err)
			}
			s.MustVsrun(t, "destroy", "8")
			if err := gone(); err != nil {
				t.Errorf("killed after %v, again, and destroyed: %v", delay, err)
			}
		}
		t.Logf("%s: takes %v, killed %d times on the way; again it took %v at most", name,
			whole.Round(time.Millisecond), c.runs, worst.Round(time.Millisecond))
		if leaks := s.Leaks(); leaks != "" {
			t.Fatalf("after %s it leaves\n%s", name, leaks)
		}
	}
}

func (s *site) must(t testing.TB, r lab.Result) {
	t.Helper()
	if r.Code != 0 {
		t.Fatal(r)
	}
}

// What a crash leaves is what the next command finds, whichever it is.
func TestDestroyAfterACrash(t *testing.T) {
	s := newSite(t)
	create := strings.Fields("create --no-probe -f -")
	whole := crash(t, time.Minute, crashDocument, create...)
	s.MustVsrun(t, "destroy", "8")
	const runs = 20
	for k := range runs {
		crash(t, whole*time.Duration(k+1)/runs, crashDocument, create...)
		s.MustVsrun(t, "destroy", "8")
	}
	if leaks := s.Leaks(); leaks != "" {
		t.Errorf("it leaves\n%s", leaks)
	}
}

func TestKilledInit(t *testing.T) {
	s := newSite(t)
	s.must(t, s.VsrunIn(crashDocument, "create", "--no-probe", "-f", "-"))
	one := s.service(t, "8", "one")
	if err := syscall.Kill(parentOf(t, one.Pid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	soon(t, func() error {
		if n := alive(t, "100000"); n > 0 {
			return fmt.Errorf("%d of its processes live", n)
		}
		return nil
	})
	if got := s.show(t, "8"); got.State != "degraded" || !strings.Contains(strings.Join(got.Drift, "; "), "start service one") {
		t.Errorf("without its init it is %+v", got)
	}
	if r := s.Vsrun("diff", "8"); r.Code != 1 {
		t.Error(r)
	}
	// The network does not depend on it.
	if err := reach(s.client, "192.0.2.8"); err != nil {
		t.Error(err)
	}
	s.MustVsrun(t, "enable", "8")
	if got := s.show(t, "8"); got.State != "enabled" {
		t.Errorf("enabled again: %+v", got)
	}
	if now := s.service(t, "8", "one"); now.State != "running" || now.Pid == one.Pid {
		t.Errorf("enabled again: %+v", now)
	}
	if r := s.Vsrun("diff", "8"); r.Code != 0 {
		t.Error(r)
	}

	// Without mending it, destroy and disable do as well.
	if err := syscall.Kill(parentOf(t, s.service(t, "8", "one").Pid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.MustVsrun(t, "disable", "8")
	s.MustVsrun(t, "destroy", "8")
	if leaks := s.Leaks(); leaks != "" {
		t.Errorf("destroyed, it leaves\n%s", leaks)
	}
}

// parentOf is the process that started pid: of a service, the init.
func parentOf(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	var state string
	var parent int
	fmt.Sscan(string(b[strings.LastIndexByte(string(b), ')')+1:]), &state, &parent)
	return parent
}

// A power cut while a record was being written leaves the old record, or none,
// and half of the new one beside it.
func TestHalfWrittenRecordIsIgnored(t *testing.T) {
	s := newSite(t)
	fresh := filepath.Join(s.StateDir, ".vs8.json.new")
	cut := func() {
		t.Helper()
		if err := os.MkdirAll(s.StateDir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(fresh, []byte(`{"id": 8, "interfa`), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	isGone := func(after string) {
		t.Helper()
		if _, err := os.Stat(fresh); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after %s %s is there: %v", after, fresh, err)
		}
	}
	cut()
	if got := s.MustVsrun(t, "ls", "-o", "json"); got != "[]\n" {
		t.Errorf("ls: %s", got)
	}
	if r := s.Vsrun("show", "8"); r.Code != 3 {
		t.Error(r)
	}
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24")
	isGone("create")
	cut()
	if got := s.show(t, "8"); got.State != "enabled" || len(got.Interfaces) != 1 {
		t.Errorf("%+v", got)
	}
	s.MustVsrun(t, "disable", "8")
	isGone("disable")
	cut()
	s.MustVsrun(t, "destroy", "8")
	isGone("destroy")
	cut()
	s.MustVsrun(t, "destroy", "8") // there is nothing but the half
	isGone("destroy of nothing")
	if leaks := s.Leaks(); leaks != "" {
		t.Errorf("it leaves\n%s", leaks)
	}
}

// A reboot takes /run and the kernel's state, and leaves the records.
func TestEnableAfterAReboot(t *testing.T) {
	s := newSite(t)
	s.must(t, s.VsrunIn(crashDocument, "create", "--no-probe", "-f", "-"))
	mac := s.mac(t, "vs8", "eth0")
	if err := syscall.Kill(parentOf(t, s.service(t, "8", "one").Pid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.In("vs8").Run(t, "ip", "link", "del", "eth0")
	s.Run(t, "ip", "netns", "del", "vs8")
	if err := os.RemoveAll(filepath.Join(s.RunDir, "vs8")); err != nil {
		t.Fatal(err)
	}
	if got := s.show(t, "8"); got.State != "degraded" {
		t.Errorf("after the reboot it is %s", got.State)
	}
	s.MustVsrun(t, "enable", "--all")
	if got := s.show(t, "8"); got.State != "enabled" || got.Services[0].State != "running" || got.Interfaces[0].MAC != mac {
		t.Errorf("enabled again: %+v", got)
	}
	if err := reach(s.client, "192.0.2.8"); err != nil {
		t.Error(err)
	}
}
