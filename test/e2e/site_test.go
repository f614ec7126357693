package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/test/lab"
)

// A site is a host with one port on a segment, and a client at the other end of
// the wire.
type site struct {
	*lab.Host
	seg    *lab.Segment
	client *lab.Client
}

// newSite makes a host with the ports given, all on one segment; eth1 if none
// is. Whatever virtual servers a test leaves are destroyed at its end.
func newSite(t testing.TB, ports ...string) *site {
	t.Helper()
	if len(ports) == 0 {
		ports = []string{"eth1"}
	}
	h := bareHost(t)
	seg := h.Segment(ports...)
	return &site{h, seg, seg.Client("client1", "192.0.2.100/24", "2001:db8::100/64")}
}

func bareHost(t testing.TB) *lab.Host {
	t.Helper()
	// The run directory stays, as packages make it; what is in it does not.
	const run = "/run/vsrun"
	if err := os.MkdirAll(run, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(run) })
	h := lab.New(t)
	h.Keep(filepath.Join(h.StateDir, "lock"), filepath.Join(h.StateDir, "ledger.json"))
	t.Cleanup(func() {
		if r := h.Vsrun("destroy", "--all", "--timeout", "1s"); r.Code != 0 {
			t.Error(r)
		}
	})
	return h
}

// reach is nil when the address answers an echo request.
func reach(c *lab.Client, addr string) error {
	if r := c.TryRun("ping", "-n", "-c", "1", "-W", "2", addr); r.Code != 0 {
		return fmt.Errorf("%v", r)
	}
	return nil
}

// shown is what show -o json says.
type shown struct {
	ID         int
	Name       string
	State      string
	Namespace  string
	Use        cgroup.Use
	Interfaces []struct {
		Name, Port, Kind, MAC string
		MTU                   int
		Up                    bool
		Addresses, Gateways   []string
	}
	Volumes  []struct{ Path, Size string }
	Services []shownService
	Drift    []string
}

type shownService struct {
	Name, State   string
	Pid, Restarts int
	Since         time.Time
	Health, Last  string
	Use           cgroup.Use
}

func (s *site) show(t *testing.T, id string) shown {
	t.Helper()
	return decoded[shown](t, s.MustVsrun(t, "show", id, "-o", "json"))
}

// mac is the MAC address of an interface as the kernel has it.
func (s *site) mac(t *testing.T, ns, dev string) string {
	t.Helper()
	links := decoded[[]struct{ Address string }](t, s.In(ns).Run(t, "ip", "-j", "link", "show", "dev", dev))
	return links[0].Address
}

func decoded[T any](t *testing.T, text string) T {
	t.Helper()
	v, err := unmarshalled[T](text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func unmarshalled[T any](text string) (v T, err error) {
	if err = json.Unmarshal([]byte(text), &v); err != nil {
		err = fmt.Errorf("%w in %s", err, text)
	}
	return v, err
}

// soon waits until holds is nil, 10 seconds at most.
func soon(t testing.TB, holds func() error) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("still, after 10 seconds: %v", err)
		}
	}
}

// listenIn listens inside the client, with plain TCP: Go's own choice, MPTCP, is
// another socket to the kernel.
func listenIn(t *testing.T, c *lab.Client, network, address string) net.Listener {
	t.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	var l net.Listener
	err := c.Do(func() (err error) {
		l, err = config.Listen(t.Context(), network, address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// answer has the namespace answer text to whoever connects to address.
func answer(t *testing.T, c *lab.Client, address, text string) {
	t.Helper()
	l := listenIn(t, c, "tcp", address)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			conn.Read(make([]byte, 4096)) // the request
			fmt.Fprintf(conn, "HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
			conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}
