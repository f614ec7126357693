package e2e_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// A share is a directory with a file of random bytes, for a server to serve.
type share struct {
	dir  string
	sum  string // of the file "report"
	conf string // the server's configuration
}

func newShare(t *testing.T, s *site) share {
	t.Helper()
	dir := s.Dir(t)
	report := make([]byte, 1_000_000)
	rand.Read(report)
	if err := os.WriteFile(filepath.Join(dir, "report"), report, 0o644); err != nil {
		t.Fatal(err)
	}
	return share{dir, fmt.Sprintf("%x", sha256.Sum256(report)), filepath.Join(dir, "conf")}
}

func (s share) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(s.conf, []byte(strings.ReplaceAll(text, "DIR", s.dir)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// nginx is a share and the command that serves it on port 80.
func nginx(t *testing.T, at *site) (share, []string) {
	t.Helper()
	lab.Require(t, "nginx", "curl")
	s := newShare(t, at)
	s.write(t, `user root;
worker_processes 1;
error_log stderr;
pid DIR/pid;
events {}
http {
    access_log off;
    client_body_temp_path DIR/body;
    proxy_temp_path DIR/proxy;
    fastcgi_temp_path DIR/fastcgi;
    uwsgi_temp_path DIR/uwsgi;
    scgi_temp_path DIR/scgi;
    server {
        listen 80;
        listen [::]:80;
        root DIR;
    }
}
`)
	return s, []string{"nginx", "-c", s.conf, "-g", "daemon off;"}
}

// samba is a share and the command that serves it on port 445, read-only.
func samba(t *testing.T, at *site) (share, []string) {
	t.Helper()
	lab.Require(t, "samba")
	s := newShare(t, at)
	s.write(t, `[global]
    server role = standalone server
    map to guest = bad user
    guest account = nobody
    disable netbios = yes
    smb ports = 445
    load printers = no
    disable spoolss = yes
    log file = DIR/log
    pid directory = DIR
    lock directory = DIR
    state directory = DIR
    cache directory = DIR
    private dir = DIR
    ncalrpc dir = DIR/ncalrpc
[files]
    path = DIR
    guest ok = yes
    read only = yes
`)
	return s, []string{"smbd", "--foreground", "--no-process-group", "-s", s.conf}
}

// fetch is the checksum of what curl gets, from the client.
func fetch(t *testing.T, c *lab.Client, url string) (sum string, err error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	if r := c.TryRun("curl", "-sSf", "--max-time", "20", "-o", out, url); r.Code != 0 {
		return "", fmt.Errorf("%v", r)
	}
	b, err := os.ReadFile(out)
	return fmt.Sprintf("%x", sha256.Sum256(b)), err
}

// serves waits until the client gets the share from a server that has just been
// started.
func serves(t *testing.T, c *lab.Client, url string, want share) {
	t.Helper()
	var sum string
	soon(t, func() (err error) { sum, err = fetch(t, c, url); return err })
	if sum != want.sum {
		t.Errorf("%s is not the file of its share", url)
	}
}

func add(t *testing.T, s *site, id, name string, command []string, flags ...string) {
	t.Helper()
	s.MustVsrun(t, append(append(append([]string{"service", "add", id, name}, flags...), "--"), command...)...)
}

func (s *site) service(t *testing.T, id, name string) shownService {
	t.Helper()
	for _, one := range decoded[[]shownService](t, s.MustVsrun(t, "ps", id, "-o", "json")) {
		if one.Name == name {
			return one
		}
	}
	t.Fatalf("vs%s has no service %s", id, name)
	return shownService{}
}

func TestNginxInTwoServers(t *testing.T) {
	s := newSite(t)
	shares := map[string]share{}
	for _, id := range []string{"8", "9"} {
		s.MustVsrun(t, "create", id, "--no-probe", "--port", "eth1", "--address", "192.0.2."+id+"/24", "--address", "2001:db8::"+id+"/64")
		share, command := nginx(t, s)
		add(t, s, id, "web", command, "--capability", "nginx")
		shares[id] = share
	}
	for id, share := range shares {
		for _, url := range []string{"http://192.0.2." + id + "/report", "http://[2001:db8::" + id + "]/report"} {
			serves(t, s.client, url, share)
		}
	}

	// Killed, it is started again.
	before := s.service(t, "8", "web")
	if err := syscall.Kill(before.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	soon(t, func() error {
		if now := s.service(t, "8", "web"); now.State != "running" || now.Restarts == 0 {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	serves(t, s.client, "http://192.0.2.8/report", shares["8"])

	// A vsrun that is killed in the middle of something takes nothing along.
	web := s.service(t, "9", "web").Pid
	p := s.Start(t, filepath.Join(lab.Programs(t), "vsrun"), "exec", "9", "--", "sleep", "100000")
	soon(t, func() error {
		return contains(s.Vsrun("exec", "9", "--", "sh", "-c", "cat /proc/[0-9]*/cmdline").Stdout, "100000") // one may end meanwhile
	})
	p.Stop()
	if now := s.service(t, "9", "web"); now.Pid != web || now.State != "running" {
		t.Errorf("it was process %d, now it is %+v", web, now)
	}
	serves(t, s.client, "http://192.0.2.9/report", shares["9"])

	s.MustVsrun(t, "destroy", "8", "9")
	if leaks := s.Leaks(); leaks != "" {
		t.Errorf("destroyed, they leave\n%s", leaks)
	}
}

func contains(text, what string) error {
	if !strings.Contains(text, what) {
		return fmt.Errorf("%q is not in %s", what, text)
	}
	return nil
}

func TestSambaGuestShare(t *testing.T) {
	lab.NeedRoot(t, "Samba's guests are another user")
	s := newSite(t)
	share, command := samba(t, s)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24")
	add(t, s, "8", "smbd", command, "--capability", "samba")
	get := func() {
		t.Helper()
		out := filepath.Join(t.TempDir(), "out")
		soon(t, func() error {
			r := s.client.TryRun("smbclient", "-N", "//192.0.2.8/files", "-c", "get report "+out)
			if r.Code != 0 {
				return fmt.Errorf("%v", r)
			}
			return nil
		})
		b, err := os.ReadFile(out)
		if got := fmt.Sprintf("%x", sha256.Sum256(b)); got != share.sum {
			t.Errorf("another file, or none: %v", err)
		}
	}
	get()
	before := s.service(t, "8", "smbd")
	if err := syscall.Kill(before.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	soon(t, func() error {
		if now := s.service(t, "8", "smbd"); now.State != "running" || now.Pid == before.Pid {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	get()
	s.MustVsrun(t, "destroy", "8")
	if leaks := s.Leaks(); leaks != "" {
		t.Errorf("destroyed, it leaves\n%s", leaks)
	}
}

func TestLogsAreKept(t *testing.T) {
	s := &site{Host: bareHost(t)}
	s.MustVsrun(t, "create", "8")
	add(t, s, "8", "talk", []string{"sh", "-c", "echo out; echo err >&2; exec sleep 100000"})
	add(t, s, "8", "mute", []string{"sleep", "100000"})
	heard := func(times int) func() error {
		return func() error {
			if got := s.MustVsrun(t, "logs", "8", "talk"); got != strings.Repeat("out\nerr\n", times) {
				return fmt.Errorf("the log is %q", got)
			}
			return nil
		}
	}
	soon(t, heard(1))
	s.MustVsrun(t, "service", "restart", "8", "talk")
	soon(t, heard(2))
	s.MustVsrun(t, "disable", "8")
	soon(t, heard(2))
	s.MustVsrun(t, "enable", "8")
	soon(t, heard(3))
	if got := s.MustVsrun(t, "logs", "8"); !strings.Contains(got, "==> talk <==\nout\n") || !strings.Contains(got, "==> mute <==\n") {
		t.Errorf("all logs: %q", got)
	}
	follow := s.Start(t, filepath.Join(lab.Programs(t), "vsrun"), "logs", "8", "talk", "-f")
	s.MustVsrun(t, "service", "restart", "8", "talk")
	soon(t, func() error { return contains(follow.Output(), strings.Repeat("out\nerr\n", 4)) })
}

// escapes leaves a grandchild in a session of its own, as daemons do.
const escapes = `(setsid sh -c 'sleep %d & sleep %[1]d' >/dev/null 2>&1 &); exec sleep %[1]d`

// alive counts the host's processes that have a word in their command line.
func alive(t *testing.T, word string) int {
	t.Helper()
	n := 0
	lists, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, list := range lists {
		b, _ := os.ReadFile(list)
		if bytes.Contains(b, []byte(word)) {
			n++
		}
	}
	return n
}

func TestNoProcessOutlivesDisable(t *testing.T) {
	s := &site{Host: bareHost(t)}
	s.MustVsrun(t, "create", "8")
	add(t, s, "8", "escapes", []string{"sh", "-c", fmt.Sprintf(escapes, 314159265)})
	s.MustVsrun(t, "exec", "8", "--", "sh", "-c", "setsid sleep 271828182 >/dev/null 2>&1 </dev/null &")
	soon(t, func() error {
		if n := alive(t, "314159265"); n < 4 { // the main process, the shell, and its two
			return fmt.Errorf("%d processes", n)
		}
		if n := alive(t, "271828182"); n != 1 { // it need not have become that when exec returns
			return fmt.Errorf("what exec has left in the background runs %d times", n)
		}
		return nil
	})
	s.MustVsrun(t, "disable", "8")
	if n := alive(t, "314159265") + alive(t, "271828182"); n != 0 {
		t.Errorf("after disable %d processes are left", n)
	}
}

func TestStoppedStaysStopped(t *testing.T) {
	s := &site{Host: bareHost(t)}
	s.MustVsrun(t, "create", "8")
	add(t, s, "8", "one", []string{"sleep", "100001"})
	add(t, s, "8", "two", []string{"sleep", "100002"})
	is := func(name, want string) {
		t.Helper()
		if got := s.service(t, "8", name); got.State != want || (got.Pid != 0) != (want == "running") {
			t.Errorf("%s: %+v, want %s", name, got, want)
		}
	}
	s.MustVsrun(t, "service", "stop", "8", "one")
	is("one", "stopped")
	is("two", "running")
	two := s.service(t, "8", "two").Pid
	// Other work on the virtual server does not bring it back.
	add(t, s, "8", "three", []string{"sleep", "100003"})
	is("one", "stopped")
	if got := s.service(t, "8", "two").Pid; got != two {
		t.Errorf("two was process %d and is %d", two, got)
	}
	s.MustVsrun(t, "service", "start", "8", "one")
	is("one", "running")
	s.MustVsrun(t, "service", "stop", "8", "one")
	s.MustVsrun(t, "disable", "8")
	s.MustVsrun(t, "enable", "8")
	for _, name := range []string{"one", "two", "three"} {
		is(name, "running")
	}
	s.MustVsrun(t, "service", "rm", "8", "two")
	if alive(t, "100002") != 0 {
		t.Error("removed, it runs")
	}
}

func TestMissingProgramIsRefused(t *testing.T) {
	s := newSite(t)
	document := `
id: 8
interfaces: [{name: eth0, port: eth1, addresses: [192.0.2.8/24]}]
services:
  - {name: good, command: [sleep, "100000"]}
  - {name: bad, command: [no-such-program]}
`
	r := s.VsrunIn(document, "create", "--no-probe", "-f", "-")
	if r.Code != 1 || !strings.Contains(r.Stderr, "no-such-program: no such file or directory") || strings.Count(r.Stderr, "\n") > 2 {
		t.Error(r)
	}
	if leaks := s.Leaks(); leaks != "" {
		t.Errorf("refused, it leaves\n%s", leaks)
	}
	if r := s.Vsrun("show", "8"); r.Code != 3 {
		t.Error(r)
	}
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24")
	if r := s.Vsrun("service", "add", "8", "bad", "--", "/no/such/program"); r.Code != 1 {
		t.Error(r)
	}
	if got := s.show(t, "8"); got.State != "enabled" || len(got.Services) != 0 {
		t.Errorf("a service was refused, and now %+v", got)
	}
	if err := reach(s.client, "192.0.2.8"); err != nil {
		t.Error(err)
	}
}

func TestDisableKillsWhatDoesNotEnd(t *testing.T) {
	s := &site{Host: bareHost(t)}
	s.MustVsrun(t, "create", "8")
	add(t, s, "8", "polite", []string{"sleep", "100000"})
	add(t, s, "8", "deaf", []string{"sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 100000; done"})
	soon(t, func() error { return contains(s.MustVsrun(t, "logs", "8", "deaf"), "deaf") })
	add(t, s, "8", "late", []string{"sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 100000; done"}, "--stop-timeout", "100ms", "--ready-output", "deaf")
	for verb, done := range map[string]string{"restart": "restarted", "stop": "stopped"} {
		if out := s.MustVsrun(t, "service", verb, "8", "late"); out != "vs8 service late "+done+", had to kill late\n" {
			t.Errorf("it says %q", out)
		}
		if out := s.MustVsrun(t, "service", "start", "8", "late"); out != "vs8 service late started\n" {
			t.Errorf("it says %q", out)
		}
	}
	s.MustVsrun(t, "service", "rm", "8", "late")
	began := time.Now()
	out := s.MustVsrun(t, "disable", "8", "--timeout", "1s")
	took := time.Since(began)
	t.Logf("disable of a service that ignores SIGTERM, --timeout 1s: %v, %q", took.Round(time.Millisecond), out)
	if out != "vs8 disabled, had to kill deaf\n" {
		t.Errorf("it says %q", out)
	}
	if took < time.Second || took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
	s.MustVsrun(t, "service", "rm", "8", "deaf")
	s.MustVsrun(t, "enable", "8")
	began = time.Now()
	if out := s.MustVsrun(t, "disable", "8"); out != "vs8 disabled\n" {
		t.Errorf("it says %q", out)
	}
	t.Logf("disable of one that obeys: %v", time.Since(began).Round(time.Millisecond))
}

func TestDocumentOrder(t *testing.T) {
	s := &site{Host: bareHost(t)}
	var b strings.Builder
	b.WriteString("id: 8\nservices:\n")
	log := filepath.Join(s.Dir(t), "log")
	for k := range 5 {
		fmt.Fprintf(&b, "  - name: s%d\n    restart: never\n    command: [sh, -c, 'trap \"echo stop %d >>%s; exit\" TERM; echo start %d >>%[3]s; while :; do sleep 0.01; done']\n", k, k, log, k)
	}
	if r := s.VsrunIn(b.String(), "create", "-f", "-"); r.Code != 0 {
		t.Fatal(r)
	}
	lines := func() []string {
		b, _ := os.ReadFile(log)
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
	soon(t, func() error {
		if len(lines()) != 5 {
			return fmt.Errorf("%q", lines())
		}
		return nil
	})
	for k, one := range decoded[[]shownService](t, s.MustVsrun(t, "ps", "8", "-o", "json")) {
		if one.Name != "s"+strconv.Itoa(k) || one.State != "running" {
			t.Errorf("place %d is %+v", k, one)
		}
	}
	s.MustVsrun(t, "disable", "8")
	if got := lines(); len(got) != 10 {
		t.Errorf("not all were asked to end: %q", got)
	}
}
