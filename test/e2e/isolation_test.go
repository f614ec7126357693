package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/vsrun/vsrun/test/lab"
)

// Two of the same daemon with one configuration, which say where they are by the
// same pid file and the same sockets, have nothing to do with each other.
func TestOneConfigurationTwice(t *testing.T) {
	lab.Require(t, "nginx", "curl")
	s := newSite(t)
	dir := s.Dir(t)
	conf := dir + "/nginx.conf"
	text := `user root;
worker_processes 1;
error_log stderr;
pid /run/nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path /tmp/body;
    proxy_temp_path /var/tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    server { listen 80; root /tmp; }
    server { listen unix:/run/nginx.sock; root /tmp; }
}
`
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	get := func(id string) error {
		if r := s.client.TryRun("curl", "-sSf", "--max-time", "20", "http://192.0.2."+id+"/who"); r.Stdout != id+"\n" {
			return fmt.Errorf("%v", r)
		}
		r := s.Vsrun("exec", id, "--", "curl", "-sSf", "--unix-socket", "/run/nginx.sock", "http://localhost/who")
		if r.Stdout != id+"\n" {
			return fmt.Errorf("%v", r)
		}
		return nil
	}
	for _, id := range []string{"8", "9"} {
		s.MustVsrun(t, "create", id, "--no-probe", "--port", "eth1", "--address", "192.0.2."+id+"/24")
		add(t, s, id, "web", []string{"nginx", "-c", conf, "-g", "daemon off;"}, "--capability", "nginx", "--ready-tcp", "80")
		s.MustVsrun(t, "exec", id, "--", "sh", "-c", "echo $VSRUN_ID >/tmp/who; chmod 644 /tmp/who")
	}
	for _, id := range []string{"8", "9"} {
		if err := get(id); err != nil {
			t.Error(err)
		}
	}
	// Each's own tool stops its own.
	other := s.service(t, "9", "web")
	s.MustVsrun(t, "exec", "8", "--", "nginx", "-c", conf, "-s", "stop")
	soon(t, func() error {
		if now := s.service(t, "8", "web"); now.Restarts == 0 || now.State != "running" {
			return fmt.Errorf("%+v", now)
		}
		return get("8")
	})
	if now := s.service(t, "9", "web"); now.Pid != other.Pid || now.Restarts != 0 {
		t.Errorf("the other was %+v, and is %+v", other, now)
	}
	if err := get("9"); err != nil {
		t.Error(err)
	}
	for _, file := range []string{"/run/nginx.pid", "/run/nginx.sock"} {
		if _, err := os.Lstat(file); !os.IsNotExist(err) {
			t.Errorf("%s is on the host: %v", file, err)
		}
	}
}

// POSIX shared memory of one name is two, and the host's is a third.
func TestSharedMemoryApart(t *testing.T) {
	s := &site{Host: bareHost(t)}
	name := fmt.Sprintf("vsrun-test-%d", os.Getpid())
	segment := func(text string) []string { // as shm_open(3) does it, and nobody may have been there
		return []string{"sh", "-c", fmt.Sprintf("set -C; printf %s >/dev/shm/%s", text, name)}
	}
	s.Run(t, segment("host")...)
	t.Cleanup(func() { os.Remove("/dev/shm/" + name) })
	for _, id := range []string{"8", "9"} {
		s.MustVsrun(t, "create", id)
		s.MustVsrun(t, append([]string{"exec", id, "--"}, segment("vs_"+id)...)...)
	}
	for _, id := range []string{"8", "9"} {
		if got := s.MustVsrun(t, "exec", id, "--", "head", "-c", "4", "/dev/shm/"+name); got != "vs_"+id {
			t.Errorf("vs%s has %q", id, got)
		}
	}
	s.MustVsrun(t, "create", "10", "--share", "/dev/shm/"+name)
	if got := s.MustVsrun(t, "exec", "10", "--", "head", "-c", "4", "/dev/shm/"+name); got != "host" {
		t.Errorf("shared, it is %q", got)
	}
}

// A change of what is shared is a change of the init, as one of its name is; a
// change of addresses is not.
func TestChangedShare(t *testing.T) {
	s := newSite(t)
	if err := os.WriteFile(s.RunDir+".shared", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(s.RunDir + ".shared") })
	document := func(address, rest string) string {
		return fmt.Sprintf("{id: 8, name: finance, interfaces: [{name: eth0, port: eth1, addresses: [%s]}], "+
			"services: [{name: one, command: [sleep, '100000']}]%s}", address, rest)
	}
	apply := func(text string) (pid int) {
		t.Helper()
		s.must(t, s.VsrunIn(text, "apply", "--no-probe", "-f", "-"))
		return s.service(t, "8", "one").Pid
	}
	first := apply(document("192.0.2.8/24", ""))
	hosts := s.MustVsrun(t, "exec", "8", "--", "cat", "/etc/hosts", "/etc/hostname")
	if !strings.Contains(hosts, "127.0.1.1 finance\n") || !strings.HasSuffix(hosts, "\nfinance\n") {
		t.Errorf("its names: %s", hosts)
	}
	if got := s.MustVsrun(t, "exec", "8", "--", "getent", "hosts", "finance"); !strings.HasPrefix(got, "127.0.1.1 ") {
		t.Errorf("its own name is %q", got)
	}
	if now := apply(document("192.0.2.18/24", "")); now != first {
		t.Errorf("a change of the address restarts process %d, now %d", first, now)
	}
	shared := document("192.0.2.18/24", ", share: ["+s.RunDir+".shared]")
	if r := s.VsrunIn(shared, "diff", "-f", "-"); r.Code != 1 || !strings.Contains(r.Stdout, "restart all services: name, dns, share or volumes changed") {
		t.Error(r)
	}
	second := apply(shared)
	if second == first || syscall.Kill(first, 0) == nil {
		t.Errorf("process %d was %d", second, first)
	}
	s.MustVsrun(t, "exec", "8", "--", "test", "-e", s.RunDir+".shared")
	if now := apply(shared); now != second {
		t.Errorf("applied again, process %d is %d", second, now)
	}
	apply(document("192.0.2.18/24", ""))
	if r := s.Vsrun("exec", "8", "--", "ls", "-A", "/run"); r.Stdout != "" {
		t.Errorf("not shared any more: %v", r)
	}
	// A share that is missing is refused, and all is as before.
	if r := s.VsrunIn(document("192.0.2.18/24", ", share: [/run/absent]"), "apply", "--no-probe", "-f", "-"); r.Code != 1 ||
		!strings.Contains(r.Stderr, "/run/absent does not exist on this host: start what makes it, or take it out of share") {
		t.Error(r)
	}
	if got := s.show(t, "8"); got.State != "enabled" || got.Services[0].State != "running" {
		t.Errorf("after that: %+v", got)
	}
	s.MustVsrun(t, "destroy", "8")
	if inits(t) != 0 {
		t.Error("an init is left")
	}
}
