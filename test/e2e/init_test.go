package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// inits counts the inits of vs8.
func inits(t *testing.T) int { return alive(t, "vs-init\x00vs8\x00") }

// within fails the test when do takes longer than limit.
func within(t *testing.T, limit time.Duration, what string, do func()) {
	t.Helper()
	began := time.Now()
	do()
	took := time.Since(began)
	t.Logf("%s: %v", what, took.Round(time.Millisecond))
	if took > limit {
		t.Errorf("%s took %v, %v are allowed", what, took, limit)
	}
}

func TestStoppedInit(t *testing.T) {
	s := newSite(t)
	s.must(t, s.VsrunIn(crashDocument, "create", "--no-probe", "-f", "-"))
	pid := parentOf(t, s.service(t, "8", "one").Pid)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	const silent = "the init does not answer"
	within(t, 8*time.Second, "ls", func() {
		if r := s.Vsrun("ls", "-o", "wide"); r.Code != 0 || !strings.Contains(r.Stdout, silent) {
			t.Error(r)
		}
	})
	within(t, 8*time.Second, "show", func() {
		got := s.show(t, "8")
		if got.State != "degraded" || !slices.Contains(got.Drift, silent) || len(got.Services) != 1 || got.Services[0].State != "unknown" {
			t.Errorf("%+v", got)
		}
	})
	within(t, 8*time.Second, "diff", func() {
		if r := s.Vsrun("diff", "8"); r.Code != 1 || !strings.Contains(r.Stdout, silent) {
			t.Error(r)
		}
	})
	within(t, 25*time.Second, "enable", func() {
		if r := s.Vsrun("enable", "8"); r.Code != 1 || !strings.Contains(r.Stderr, silent+"\nhint: ") {
			t.Error(r)
		}
	})
	if err := reach(s.client, "192.0.2.8"); err != nil {
		t.Error(err)
	}
	within(t, 20*time.Second, "destroy", func() { s.MustVsrun(t, "destroy", "8", "--timeout", "1s") })
	if n := alive(t, "100000") + inits(t); n > 0 {
		t.Errorf("%d of its processes live", n)
	}
	if leaks := s.Leaks(); leaks != "" {
		t.Errorf("destroyed, it leaves\n%s", leaks)
	}
}

func TestLostSocket(t *testing.T) {
	s := newSite(t)
	dir := filepath.Join(s.RunDir, "vs8")
	for _, c := range []struct{ lost, verb string }{
		{filepath.Join(dir, "init.sock"), "destroy"}, {dir, "destroy"}, {dir, "disable"},
	} {
		s.must(t, s.VsrunIn(crashDocument, "create", "--no-probe", "-f", "-"))
		if err := os.RemoveAll(c.lost); err != nil {
			t.Fatal(err)
		}
		s.MustVsrun(t, c.verb, "8")
		if n := alive(t, "100000") + inits(t); n > 0 {
			t.Errorf("without %s, after %s %d of its processes live", c.lost, c.verb, n)
		}
		s.MustVsrun(t, "destroy", "8")
	}
	s.must(t, s.VsrunIn(crashDocument, "create", "--no-probe", "-f", "-"))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	s.MustVsrun(t, "enable", "8")
	if n := inits(t); n != 1 {
		t.Errorf("enabled again, it has %d inits", n)
	}
	if got := s.service(t, "8", "one"); got.State != "running" || alive(t, "100000") != 2 {
		t.Errorf("enabled again: %+v, and %d of its processes live", got, alive(t, "100000"))
	}
	s.MustVsrun(t, "destroy", "8")
	if leaks := s.Leaks(); leaks != "" {
		t.Errorf("destroyed, it leaves\n%s", leaks)
	}
}

// What follows a crash need not wait until an init that was about to start is
// ready, or gone.
func TestAtOnceAfterACrash(t *testing.T) {
	s := newSite(t)
	create := strings.Fields("create --no-probe -f -")
	whole := crash(t, time.Minute, crashDocument, create...)
	s.MustVsrun(t, "destroy", "8")
	const runs = 40
	for k := range runs {
		crash(t, whole*time.Duration(k+1)/runs, crashDocument, create...)
		if k%2 == 0 {
			// The kernel may take a while to give the MAC back.
			soon(t, func() error {
				r := s.VsrunIn(crashDocument, create...)
				if strings.Contains(r.Stderr, "init") {
					t.Error(r)
				}
				if r.Code != 0 {
					return fmt.Errorf("%v", r)
				}
				return nil
			})
			if got := s.service(t, "8", "one"); got.State != "running" {
				t.Errorf("created again: %+v", got)
			}
		}
		s.MustVsrun(t, "destroy", "8")
		soon(t, func() error {
			if n := alive(t, "100000") + inits(t); n > 0 {
				return fmt.Errorf("%d of its processes live", n)
			}
			return nil
		})
	}
	if leaks := s.Leaks(); leaks != "" {
		t.Errorf("it leaves\n%s", leaks)
	}
}

// Somebody deletes the namespace by hand: the services do not notice, and enable
// gives it its name again.
func TestNamespaceDeletedByHand(t *testing.T) {
	s := newSite(t)
	s.must(t, s.VsrunIn(crashDocument, "create", "--no-probe", "-f", "-"))
	before := s.service(t, "8", "one")
	s.Run(t, "ip", "netns", "delete", "vs8")
	s.MustVsrun(t, "enable", "8", "--no-probe")
	if got := s.show(t, "8"); got.State != "enabled" || got.Services[0].Pid != before.Pid {
		t.Errorf("it was %+v, now it is %+v", before, got)
	}
	if err := reach(s.client, "192.0.2.8"); err != nil {
		t.Error(err)
	}
	// Without a name, destroy takes it down as well, at once.
	mac := s.mac(t, "vs8", "eth0")
	s.Run(t, "ip", "netns", "delete", "vs8")
	s.MustVsrun(t, "destroy", "8")
	if s.onPort(t, mac) {
		t.Error("destroyed, the port still has its MAC address")
	}
	if leaks := s.Leaks(); leaks != "" {
		t.Errorf("destroyed, it leaves\n%s", leaks)
	}
}

// What the init was told once, it is told again when that has changed.
func TestChangedNameAndDNS(t *testing.T) {
	s := &site{Host: bareHost(t)}
	document := func(rest string) string {
		return "id: 8\nservices: [{name: one, command: [sleep, '100000']}]\n" + rest
	}
	inside := func() string {
		return s.MustVsrun(t, "exec", "8", "--", "sh", "-c", "hostname; cat /etc/resolv.conf")
	}
	s.must(t, s.VsrunIn(document("name: before\n"), "create", "-f", "-"))
	after := document("name: after\ndns: {servers: [192.0.2.53]}\n")
	if r := s.VsrunIn(after, "diff", "-f", "-"); r.Code != 1 || !strings.Contains(r.Stdout, "restart all services: name, dns, share or volumes changed") {
		t.Error(r)
	}
	s.must(t, s.VsrunIn(after, "apply", "-f", "-"))
	if got := inside(); !strings.HasPrefix(got, "after\n") || !strings.Contains(got, "nameserver 192.0.2.53\n") {
		t.Errorf("inside: %s", got)
	}
	pid := s.service(t, "8", "one").Pid
	s.must(t, s.VsrunIn(after, "apply", "-f", "-"))
	if now := s.service(t, "8", "one").Pid; now != pid || inits(t) != 1 {
		t.Errorf("applied again, one is process %d, not %d, and there are %d inits", now, pid, inits(t))
	}
	s.must(t, s.VsrunIn(document("name: after\n"), "apply", "-f", "-"))
	if got := inside(); strings.Contains(got, "192.0.2.53") {
		t.Errorf("inside: %s", got)
	}
}

func TestServiceDrift(t *testing.T) {
	s := &site{Host: bareHost(t)}
	document := func(services string) string { return "id: 8\nservices: [" + services + "]\n" }
	s.must(t, s.VsrunIn(document("{name: a, command: [sleep, '100000']}, {name: b, command: [sleep, '100000']}"), "create", "-f", "-"))
	for _, c := range []struct{ services, want string }{
		{"{name: a, command: [sleep, '100000']}, {name: b, command: [sleep, '100000']}", ""},
		{"{name: a, command: [sleep, '100001']}, {name: b, command: [sleep, '100000']}", "restart service a (changed)"},
		{"{name: a, command: [sleep, '100000'], restart: never}, {name: b, command: [sleep, '100000']}", "restart service a (changed)"},
		{"{name: b, command: [sleep, '100000']}", "stop service a"},
		{"{name: a, command: [sleep, '100000']}, {name: b, command: [sleep, '100000']}, {name: c, command: [sleep, '1']}", "start service c"},
	} {
		r := s.VsrunIn(document(c.services), "diff", "-f", "-")
		if (r.Code == 0) != (c.want == "") || !strings.Contains(r.Stdout, c.want) || strings.Count(r.Stdout, "service ") > 1 {
			t.Errorf("want %q: %v", c.want, r)
		}
	}
	s.must(t, s.Vsrun("service", "add", "8", "fails", "--restart", "never", "--", "sh", "-c", "exit 3"))
	soon(t, func() error {
		got := s.show(t, "8")
		if got.State != "degraded" || !slices.Contains(got.Drift, "service fails: exit status 3") {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	if r := s.Vsrun("show", "8", "-o", "json"); !strings.Contains(r.Stdout, `"pid": 0`) {
		t.Error(r)
	}
}

// A service that cannot be started leaves the virtual server as it was, without
// an init.
func TestRefusedServiceLeavesNothing(t *testing.T) {
	s := &site{Host: bareHost(t)}
	s.MustVsrun(t, "create", "8")
	for range 2 {
		if r := s.Vsrun("service", "add", "8", "web", "--", "/no/such/program"); r.Code != 1 {
			t.Error(r)
		}
		if n := inits(t); n != 0 {
			t.Errorf("%d inits are left", n)
		}
	}
	for _, path := range []string{filepath.Join(s.RunDir, "vs8"), filepath.Join(s.StateDir, "vs8", "log", "web.log")} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	// A log that was there is somebody's to read.
	add(t, s, "8", "web", []string{"sh", "-c", "echo precious; exec sleep 100000"})
	soon(t, func() error { return contains(s.MustVsrun(t, "logs", "8"), "precious") })
	if r := s.Vsrun("service", "add", "8", "web", "--", "/no/such/program"); r.Code != 1 {
		t.Error(r)
	}
	if got := s.service(t, "8", "web"); got.State != "running" {
		t.Errorf("%+v", got)
	}
	s.MustVsrun(t, "service", "rm", "8", "web")
	if r := s.Vsrun("service", "add", "8", "web", "--", "/no/such/program"); r.Code != 1 {
		t.Error(r)
	}
	log, err := os.ReadFile(filepath.Join(s.StateDir, "vs8", "log", "web.log"))
	if err != nil || !strings.Contains(string(log), " precious\n") {
		t.Errorf("%q, %v", log, err)
	}
}

// Signals to vsrun exec are the command's.
func TestExecPassesSignals(t *testing.T) {
	s := &site{Host: bareHost(t)}
	s.MustVsrun(t, "create", "8")
	for sig, want := range map[syscall.Signal]int{syscall.SIGTERM: 5, syscall.SIGINT: 6, syscall.SIGHUP: 7} {
		script := "trap 'exit 5' TERM; trap 'exit 6' INT; trap 'exit 7' HUP; echo ready; sleep 100000 >/dev/null 2>&1 & wait"
		p := s.Start(t, filepath.Join(lab.Programs(t), "vsrun"), "exec", "8", "--", "bash", "-c", script)
		soon(t, func() error { return contains(p.Output(), "ready") })
		if err := syscall.Kill(p.Pid(), sig); err != nil {
			t.Fatal(err)
		}
		select {
		case <-p.Done():
		case <-time.After(10 * time.Second):
			t.Errorf("%v: it goes on", sig)
		}
		if r := p.Stop(); r.Code != want {
			t.Errorf("%v: want exit status %d: %v", sig, want, r)
		}
	}
}

// A virtual server sees neither the sockets nor the records of any, wherever they
// are kept.
func TestHostsRoomsAreHidden(t *testing.T) {
	t.Run("below /run and /tmp", func(t *testing.T) { roomsAreHidden(t, &site{Host: bareHost(t)}, "") })
	t.Run("elsewhere", func(t *testing.T) {
		s := &site{Host: bareHost(t)}
		dir := s.Dir(t)
		for name, path := range map[string]*string{
			"VSRUN_STATE_DIR": &s.StateDir, "VSRUN_RUN_DIR": &s.RunDir, "VSRUN_NETNS_DIR": &s.NetnsDir,
		} {
			*path = filepath.Join(dir, name)
			t.Setenv(name, *path)
		}
		roomsAreHidden(t, s, "%s\n")
		s.Run(t, "umount", s.NetnsDir) // publishing has made it a mount, which stays
	})
}

// roomsAreHidden: find shows of each of vsrun's directories what is given.
func roomsAreHidden(t *testing.T, s *site, shown string) {
	for _, id := range []string{"8", "9"} {
		s.MustVsrun(t, "create", id)
		add(t, s, id, "talk", []string{"sh", "-c", "echo out; exec sleep 100000"}, "--private", "/var/cache")
	}
	for _, dir := range []string{s.RunDir, s.StateDir, s.NetnsDir} {
		if r := s.Vsrun("exec", "8", "--", "find", dir); r.Stdout != strings.ReplaceAll(shown, "%s", dir) {
			t.Errorf("inside there is %v", r)
		}
	}
	s.MustVsrun(t, "exec", "8", "--", "sh", "-c", "echo secret >/var/cache/own")
	if r := s.Vsrun("exec", "9", "--", "ls", "-A", "/var/cache"); r.Stdout != "" {
		t.Error(r)
	}
	s.MustVsrun(t, "service", "restart", "8", "talk")
	soon(t, func() error { return contains(s.MustVsrun(t, "logs", "8", "talk"), "out\nout\n") })
	s.MustVsrun(t, "destroy", "--all")
}
