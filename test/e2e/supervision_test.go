package e2e_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
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
	before := s.service(t, "8", "web")
	if own, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", before.Pid)); err != nil || strings.Contains(string(own), "/web.service\n") {
		if log := s.MustVsrun(t, "logs", "8", "web"); !strings.Contains(log, "/web.service\n") {
			t.Errorf("%v; checks run in %s", err, log)
		}
	}
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

// Clients of a real daemon that is handed its sockets are never refused, however
// often it is restarted or killed; and it needs no right to bind port 80. nginx
// takes them as its own upgrade hands them over (NGINX).
func TestNobodyIsRefusedByNginx(t *testing.T) {
	s := newSite(t)
	share, command := nginx(t, s)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64")
	add(t, s, "8", "web", command, "--capability", "CHOWN,SETGID,SETUID", "--env", "NGINX=3;4;", "--stop-signal", "QUIT",
		"--listen-stream", "0.0.0.0:80", "--listen-stream", "[::]:80")
	var asked, lost atomic.Int32
	done := make(chan struct{})
	var clients sync.WaitGroup
	for _, url := range []string{"http://192.0.2.8/report", "http://[2001:db8::8]/report"} {
		out := filepath.Join(t.TempDir(), "out")
		clients.Go(func() {
			for {
				r := s.client.TryRun("curl", "-sSf", "--max-time", "20", "-o", out, url)
				b, err := os.ReadFile(out)
				switch {
				case r.Code == 18, r.Code == 52, r.Code == 56: // the connection ended in the middle, or was reset
					lost.Add(1)
				case r.Code != 0 || err != nil || fmt.Sprintf("%x", sha256.Sum256(b)) != share.sum:
					t.Errorf("%v, %v", r, err)
				}
				asked.Add(1)
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range 20 {
		s.MustVsrun(t, "service", "restart", "8", "web")
	}
	if n := lost.Load(); n != 0 {
		t.Errorf("%d were not answered", n)
	}
	const kills = 20
	for range kills {
		before := s.service(t, "8", "web")
		if err := syscall.Kill(before.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		soon(t, func() error {
			if now := s.service(t, "8", "web"); now.Pid == before.Pid {
				return fmt.Errorf("%+v", now)
			}
			return nil
		})
		s.MustVsrun(t, "service", "restart", "8", "web") // without the longer and longer pauses
	}
	close(done)
	clients.Wait()
	if n := lost.Load(); n > 2*kills { // one of each client's
		t.Errorf("%d were not answered", n)
	}
	t.Logf("%d asked during 40 restarts and %d kills, %d of them the killed did not answer", asked.Load(), kills, lost.Load())
	s.MustVsrun(t, "service", "stop", "8", "web")
	if r := s.client.TryRun("curl", "-sS", "--max-time", "20", "http://192.0.2.8/"); r.Code != 7 {
		t.Errorf("stopped: %v", r)
	}
	s.MustVsrun(t, "destroy", "8")
	if leaks := s.Leaks(); leaks != "" {
		t.Errorf("destroyed, it leaves\n%s", leaks)
	}
}

// A session of a daemon that lives on when the daemon has ended is the service's, and
// ends with it: its client sees the connection close.
func TestSessionsEnd(t *testing.T) {
	lab.Require(t, "vsftpd")
	lab.NeedRoot(t, "vsftpd becomes another user")
	s := newSite(t)
	dir := s.Dir(t)
	conf := filepath.Join(dir, "conf")
	if err := os.WriteFile(conf, []byte("listen=YES\nbackground=NO\nanonymous_enable=YES\nanon_root="+dir+
		"\nseccomp_sandbox=NO\nisolate=NO\nisolate_network=NO\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24")
	add(t, s, "8", "ftp", []string{"vsftpd", conf}, "--capability", "vsftpd", "--private", "/run/vsftpd/empty", "--ready-tcp", "21")
	for _, order := range []string{"restart", "stop"} {
		conn, err := s.client.Dial("tcp", "192.0.2.8:21")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Read(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		before := s.service(t, "8", "ftp")
		sessions := children(t, before.Pid)
		if len(sessions) == 0 {
			t.Fatal("there is no session")
		}
		if out := s.MustVsrun(t, "service", order, "8", "ftp"); strings.Contains(out, "kill") {
			t.Errorf("it says %s", out)
		}
		if _, err := conn.Read(make([]byte, 1000)); errors.Is(err, os.ErrDeadlineExceeded) || err == nil {
			t.Errorf("%s: the client sees %v", order, err)
		}
		for _, pid := range sessions {
			if syscall.Kill(pid, 0) == nil {
				t.Errorf("%s: a session lives on", order)
			}
		}
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

// A service is started, and is stopped, when nothing of its earlier life is left: the
// kernel takes a while to end many children, and they have the port until then.
func TestChildrenEnd(t *testing.T) {
	lab.Require(t, "controller:pids", "perl")
	s := &site{Host: bareHost(t)}
	s.MustVsrun(t, "create", "8")
	const program = `use Socket; my $size = 30_000_000; $| = 1;
		socket(S, PF_INET, SOCK_STREAM, 0); setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1);
		bind(S, sockaddr_in(8081, INADDR_ANY)) or die "$!"; pipe(R, W);
		for (1..20) { next if fork; my $x = "x" x $size; syswrite(W, "x"); sleep }
		for (1..20) { sysread(R, my $x, 1) } listen(S, 5); sleep`
	add(t, s, "8", "many", []string{"perl", "-e", program}, "--ready-tcp", "8081", "--restart", "never")
	for range 8 {
		s.MustVsrun(t, "service", "restart", "8", "many")
		if now := s.service(t, "8", "many"); now.State != "running" {
			t.Errorf("%+v", now)
		}
	}
	left := children(t, s.service(t, "8", "many").Pid)
	s.MustVsrun(t, "service", "stop", "8", "many")
	left = slices.DeleteFunc(left, func(pid int) bool { return syscall.Kill(pid, 0) != nil })
	if len(left) > 0 {
		t.Errorf("stopped, %d of its processes live", len(left))
	}
	if log := s.MustVsrun(t, "logs", "8", "many"); log != "" {
		t.Errorf("it says %q", log)
	}
}
