package e2e_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A daemon that lives, listens and does not answer is found out and replaced.
func TestHungDaemonIsRestarted(t *testing.T) {
	s := newSite(t)
	share, command := nginx(t, s)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24")
	add(t, s, "8", "web", command, "--capability", "nginx", "--ready-tcp", "80", "--stop-timeout", "200ms",
		"--health-command", "cut -d: -f3 /proc/self/cgroup >&2; exec curl -sSf -o /dev/null http://192.0.2.8/report",
		"--health-interval", "50ms", "--health-timeout", "2s", "--health-failures", "1")
	soon(t, func() error {
		if now := s.service(t, "8", "web"); now.Health != "healthy" {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	if _, err := os.Stat("/sys/fs/cgroup/vsrun/vs8/web.service"); err == nil {
		if log := s.MustVsrun(t, "logs", "8", "web"); !strings.Contains(log, "/vs8/web.service\n") {
			t.Errorf("checks run in %s", log)
		}
	}
	before := s.service(t, "8", "web")
	for _, pid := range append(children(t, before.Pid), before.Pid) {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	soon(t, func() error {
		now := s.service(t, "8", "web")
		if now.Restarts != 1 || now.Health != "healthy" || now.Last != "unhealthy: it took longer than 2s" {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	serves(t, s.client, "http://192.0.2.8/report", share)
	if out := s.MustVsrun(t, "ps", "8"); !strings.Contains(out, "healthy") {
		t.Errorf("ps says\n%s", out)
	}
}

// children are the processes that a process has started.
func children(t *testing.T, pid int) (pids []int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(string(b)) {
		n, _ := strconv.Atoi(word)
		pids = append(pids, n)
	}
	return pids
}
