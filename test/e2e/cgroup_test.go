package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/test/lab"
)

// A virtual server sees its own cgroups as if there were no others, and cannot
// change them.
func TestCgroupNamespace(t *testing.T) {
	lab.Require(t, "cgroup2")
	s := &site{Host: bareHost(t)}
	s.MustVsrun(t, "create", "8")
	const look = `grep ^0: /proc/self/cgroup; cd /sys/fs/cgroup; echo *.service; cat init/cgroup.procs
		mkdir mine; echo $$ >cgroup.procs; grep cgroup /proc/mounts | grep -vc ' /sys/fs/cgroup cgroup2 ro,'; exec sleep 100000`
	add(t, s, "8", "look", []string{"sh", "-c", look})
	soon(t, func() error {
		got := s.MustVsrun(t, "logs", "8", "look")
		for _, want := range []string{"0::/look.service\n", "\nlook.service\n1\n", "mine", "cgroup.procs: Read-only file system\n0\n"} {
			if err := contains(strings.ReplaceAll(got, "can't create", "cgroup.procs:"), want); err != nil {
				return err
			}
		}
		return nil
	})
	// Nor does a command that is run inside.
	inside := s.MustVsrun(t, "exec", "8", "--", "sh", "-c", "ls /sys/fs/cgroup; grep cgroup /proc/mounts")
	if !strings.Contains(inside, "look.service") || strings.Contains(inside, "vsrun") ||
		strings.Count(inside, "cgroup2") != 1 || !strings.Contains(inside, " /sys/fs/cgroup cgroup2 ro,") {
		t.Errorf("inside are\n%s", inside)
	}
	s.MustVsrun(t, "destroy", "8")
}

// What vsrun exec starts counts as the virtual server's.
func TestExecIsCounted(t *testing.T) {
	lab.Require(t, "controller:pids")
	s := &site{Host: bareHost(t)}
	s.MustVsrun(t, "create", "8")
	add(t, s, "8", "calm", []string{"sleep", "100000"})
	s.MustVsrun(t, "exec", "8", "--", "sh", "-c", "setsid sleep 271828182 >/dev/null 2>&1 </dev/null &")
	g := cgroup.Find().Open("vs8")
	below := g.Below()
	g.Close()
	if u, ok := below["exec"]; !ok || u.Tasks == nil || *u.Tasks != 1 {
		t.Errorf("%+v", below)
	}
	s.MustVsrun(t, "destroy", "8")
}

// After a crash of everything, nothing is left of the cgroups by destroy, and enable
// uses none that is there.
func TestCgroupsAfterACrash(t *testing.T) {
	lab.Require(t, "cgroup2")
	s := &site{Host: bareHost(t)}
	s.MustVsrun(t, "create", "8")
	add(t, s, "8", "escapes", []string{"sh", "-c", fmt.Sprintf(escapes, 314159265)})
	crash := func() {
		t.Helper()
		if err := syscall.Kill(parentOf(t, s.service(t, "8", "escapes").Pid), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		crash()
		s.MustVsrun(t, "enable", "8")
		if now := s.service(t, "8", "escapes"); now.State != "running" {
			t.Errorf("enabled again: %+v", now)
		}
	}
	crash()
	s.MustVsrun(t, "destroy", "8")
	if _, err := os.Stat("/sys/fs/cgroup/vsrun"); err == nil {
		t.Error("destroyed, it leaves a cgroup")
	}
	if leaks := s.Leaks(); leaks != "" {
		t.Errorf("destroyed, it leaves\n%s", leaks)
	}
}

// What is left of a service for good delays its next start, and does not prevent it.
func TestCgroupThatStays(t *testing.T) {
	lab.Require(t, "cgroup2")
	s := &site{Host: bareHost(t)}
	s.MustVsrun(t, "create", "8")
	add(t, s, "8", "calm", []string{"sleep", "100000"})
	g := cgroup.Find().Open("vs8")
	defer g.Close()
	own, err := g.Child("calm.service")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	stays, err := own.Child("stays")
	if err != nil {
		t.Fatal(err)
	}
	stays.Close()
	began := time.Now()
	s.MustVsrun(t, "service", "restart", "8", "calm")
	if took := time.Since(began); took < 2*time.Second || took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if now := s.service(t, "8", "calm"); now.State != "running" {
		t.Errorf("%+v", now)
	}
	if err := own.Remove("stays"); err != nil {
		t.Error(err)
	}
	s.MustVsrun(t, "destroy", "8")
}

// Cgroups are the machine's: another vsrun, with directories of its own, may have a virtual
// server of that number. What cannot be begun beside it leaves it alone, and so does what
// takes it back.
func TestCgroupOfAnother(t *testing.T) {
	lab.Require(t, "cgroup2")
	s := &site{Host: bareHost(t)}
	g, err := cgroup.Find().Make("vs8")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	cmd := exec.Command("sleep", "100000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := g.Move(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	alive := func(after string) {
		t.Helper()
		select {
		case err := <-ended:
			t.Fatalf("after %s: %v", after, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
	refused := func(r lab.Result) {
		t.Helper()
		if r.Code == 0 || !strings.Contains(r.Stderr, cgroup.ErrBusy.Error()) {
			t.Error(r)
		}
		if _, err := os.Stat(filepath.Join(s.RunDir, "vs8")); err == nil {
			t.Error("it leaves a run directory")
		}
	}
	const document = "id: 8\nservices: [{name: calm, command: [sleep, \"100000\"]}]\n"
	refused(s.VsrunIn(document, "apply", "-f", "-"))
	alive("a failed create")
	s.MustVsrun(t, "create", "8")
	refused(s.Vsrun("service", "add", "8", "calm", "--", "sleep", "100000"))
	alive("a failed change")
	refused(s.Vsrun("exec", "8", "--", "true"))
	alive("a failed exec")
	s.MustVsrun(t, "disable", "8")
	alive("disable")
	cmd.Process.Kill()
	<-ended
	s.MustVsrun(t, "enable", "8")
	add(t, s, "8", "calm", []string{"sleep", "100000"})
	s.MustVsrun(t, "destroy", "8")
}
