package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// onPort reports whether the port's list of addresses has a MAC address: it
// does as long as an interface in some namespace, dead or alive, holds it.
func (s *site) onPort(t *testing.T, mac string) bool {
	t.Helper()
	return strings.Contains(s.Run(t, "bridge", "fdb", "show", "dev", "eth1"), mac)
}

// stalled is a connection from the client to a web server that sends more than
// both ends can hold, of which the client reads nothing.
func stalled(t *testing.T, s *site, ns, addr string) net.Conn {
	t.Helper()
	conn, err := s.client.Dial("tcp", net.JoinHostPort(addr, "80"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.(*net.TCPConn).SetReadBuffer(4096)
	io.WriteString(conn, "GET /big HTTP/1.0\r\n\r\n")
	_, port, _ := net.SplitHostPort(conn.LocalAddr().String())
	full := ""
	soon(t, func() error { // the queue is full when it grows no more
		was := full
		f := strings.Fields(s.In(ns).Run(t, "ss", "-tnH", "dport = :"+port))
		if len(f) < 3 || f[2] == "0" || f[2] != was {
			full = fmt.Sprint(append(f, "", "", "")[2])
			return fmt.Errorf("send queue %s, then %q", was, f)
		}
		return nil
	})
	t.Logf("%s: the client reads nothing, %s bytes wait in the send queue", addr, full)
	return conn
}

// Whatever keeps the namespace alive, its addresses are silent and its MAC is
// free when destroy returns.
func TestDestroyIsFinal(t *testing.T) {
	s := newSite(t)
	share, web := nginx(t, s)
	if err := os.WriteFile(filepath.Join(share.dir, "big"), make([]byte, 30<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	create := strings.Fields("create 8 --no-probe --port eth1 --address 192.0.2.8/24 --address 2001:db8::8/64")
	mac := derived(t, "vs8", "eth0")
	for _, c := range []struct {
		verb string
		then []string // at once; the same MAC and addresses
	}{
		{"disable", nil}, {"destroy", nil},
		{"disable", []string{"enable", "8", "--no-probe"}}, {"destroy", create},
	} {
		s.MustVsrun(t, create...)
		add(t, s, "8", "web", web, "--capability", "nginx")
		add(t, s, "8", "escapes", []string{"sh", "-c", fmt.Sprintf(escapes, 100000)})
		serves(t, s.client, "http://192.0.2.8/report", share)
		// A process and a listener that are not the virtual server's own, and so
		// not vsrun's to end.
		holder := enters(t, s, "vs8")
		listener := listenIn(t, s.In("vs8"), "tcp", ":81")
		held, outside := outsider(t, s, listener)
		conns := []net.Conn{stalled(t, s, "vs8", "192.0.2.8"), stalled(t, s, "vs8", "2001:db8::8"), outside}

		began := time.Now()
		s.MustVsrun(t, c.verb, "8")
		returned := time.Now()
		if c.then != nil {
			s.MustVsrun(t, c.then...)
			t.Logf("%s took %v, %s at once thereafter succeeds", c.verb, returned.Sub(began).Round(time.Millisecond), c.then[0])
			if err := reach(s.client, "192.0.2.8"); err != nil {
				t.Error(err)
			}
		} else if s.onPort(t, mac) {
			t.Errorf("after %s the port still has %s", c.verb, mac)
		}
		for k, conn := range conns {
			conn.SetReadDeadline(returned.Add(5 * time.Second))
			n, err := io.Copy(io.Discard, conn)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("connection %d hangs after %s", k, c.verb)
			}
			if c.then == nil {
				t.Logf("%s took %v; connection %d sees %v after %d bytes more, within %v", c.verb,
					returned.Sub(began).Round(time.Millisecond), k, end(err), n, time.Since(returned).Round(time.Millisecond))
			}
			conn.Close()
		}
		for _, addr := range []string{"192.0.2.8", "2001:db8::8"} {
			if c.then == nil {
				if err := s.client.Silent(addr); err != nil {
					t.Errorf("after %s: %v", c.verb, err)
				}
			}
		}
		holder.Stop()
		listener.Close()
		held.Close()
		s.MustVsrun(t, "destroy", "8")
	}
	if leaks := s.Leaks(); leaks != "" {
		t.Errorf("it leaves\n%s", leaks)
	}
}

// enters has a process of the host enter the namespace, and stay.
func enters(t *testing.T, s *site, ns string) *lab.Process {
	t.Helper()
	host, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	p := s.Start(t, "ip", "netns", "exec", ns, "sleep", "100000")
	soon(t, func() error {
		if now, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", p.Pid())); err != nil || now == host {
			return errors.Join(err, errors.New("it is not inside yet"))
		}
		return nil
	})
	return p
}

// outsider is a connection to a socket in the virtual server that a process of
// the host holds, with a full send queue.
func outsider(t *testing.T, s *site, l net.Listener) (held, far net.Conn) {
	t.Helper()
	far, err := s.client.Dial("tcp", "192.0.2.8:81")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	held, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { held.Close() })
	held.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := held.Write(make([]byte, 30<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the queue is not full: %v", err)
	}
	return held, far
}

func end(err error) string {
	switch {
	case err == nil:
		return "EOF"
	case errors.Is(err, syscall.ECONNRESET):
		return "a reset"
	}
	return err.Error()
}

// namespaces is how many network namespaces the whole machine has, dead ones
// that wait for their clean-up included; 0 where nobody may know.
func namespaces() int {
	b, _ := os.ReadFile("/proc/slabinfo")
	for line := range bytes.Lines(b) {
		var name string
		var n int
		if fmt.Sscan(string(line), &name, &n); name == "net_namespace" {
			return n
		}
	}
	return 0
}

// Each time the MAC and the addresses are those that were in use a moment ago.
func TestCreateAndDestroy200Times(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "8")
	s.MustVsrun(t, "destroy", "8")
	before, slab := s.Snapshot(), namespaces()
	const rounds = 200
	document := `{id: 8, interfaces: [{name: eth0, port: eth1, addresses: [192.0.2.8/24, "2001:db8::8/64"], gateways: [192.0.2.1]}]%s}`
	failures := 0
	var creating, destroying time.Duration
	for k := range rounds {
		services := ""
		if k%4 == 0 {
			services = `, services: [{name: one, command: [sh, -c, "setsid sleep 100000 & exec sleep 100000"]}]`
		}
		began := time.Now()
		if r := s.VsrunIn(fmt.Sprintf(document, services), "create", "--no-probe", "-f", "-"); r.Code != 0 {
			failures++
			t.Logf("round %d: %v", k, r)
		}
		made := time.Now()
		if r := s.Vsrun("destroy", "8"); r.Code != 0 {
			failures++
			t.Logf("round %d: %v", k, r)
		}
		creating += made.Sub(began)
		destroying += time.Since(made)
	}
	if s.onPort(t, derived(t, "vs8", "eth0")) {
		t.Error("the port has the MAC address still")
	}
	left := before.Diff(s.Snapshot())
	t.Logf("%d times create (%v each) and destroy (%v each), same MAC and addresses: %d failures", rounds,
		(creating / rounds).Round(time.Millisecond/10), (destroying / rounds).Round(time.Millisecond/10), failures)
	t.Logf("namespaces, mounts, devices, processes, cgroups, descriptors and files left: %d", strings.Count(left, "\n"))
	if slab > 0 {
		t.Logf("network namespaces on the whole machine, dead ones included: %d before, %d after", slab, namespaces())
	}
	if failures > 0 || left != "" {
		t.Errorf("%d failures, and it leaves\n%s", failures, left)
	}
}
