package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vsrun/vsrun/nsutil"
)

// A Client is a network namespace to act from: a machine on a segment, or what
// is inside a virtual server.
type Client struct {
	name, path string
}

// clientIf is the one interface of a client.
const clientIf = "eth0"

// Client plugs a client into the segment. Its eth0 has the addresses (CIDR),
// usable at once. The name may have 15 bytes and is the client's own on the
// host.
func (s *Segment) Client(name string, addresses ...string) *Client {
	s.h.t.Helper()
	return s.Clients(Plug{Name: name, Addresses: addresses})[0]
}

// In is the published namespace name as a client: to ask and to send from
// inside a virtual server, past the program under test.
func (h *Host) In(name string) *Client {
	return &Client{name, filepath.Join(h.NetnsDir, name)}
}

// Run runs a command in the client and returns its output. The test fails if
// the command does.
func (c *Client) Run(t testing.TB, argv ...string) string {
	t.Helper()
	return must(t, c.TryRun(argv...))
}

// TryRun runs a command in the client.
func (c *Client) TryRun(argv ...string) Result { return inside(c.path, argv...) }

// Start starts a command in the client that runs beside the test, until Stop or
// the end of the test.
func (c *Client) Start(t testing.TB, argv ...string) *Process {
	t.Helper()
	p, err := start(enter(c.path, argv)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop() })
	return p
}

// Ping sends up to three echo requests, and is nil as soon as one is answered.
// A link-local address wants its interface: "fe80::1%eth0".
func (c *Client) Ping(addr string) error {
	r := c.TryRun("ping", "-n", "-c", "3", "-i", "0.2", "-W", "1", addr)
	if r.Code == 0 {
		return nil
	}
	return fmt.Errorf("%s does not reach %s: %v", c.name, addr, r)
}

// Silent is nil if addr answers neither an echo request nor (ARP, ND) a
// question for its MAC address: the address is free.
func (c *Client) Silent(addr string) error {
	c.forget(addr)
	r := c.TryRun("ping", "-n", "-c", "1", "-W", "1", addr)
	if r.Code == 0 {
		return fmt.Errorf("%s answers: %v", addr, r)
	}
	if mac := c.Neighbour(addr); mac != "" {
		return fmt.Errorf("%s is silent, but %s holds it", addr, mac)
	}
	return nil
}

// Do runs fn on a thread inside the client: sockets it makes are the client's,
// and stay so. fn must not start goroutines.
func (c *Client) Do(fn func() error) error { return within(c.path, fn) }

func within(path string, fn func() error) error {
	ns, err := nsutil.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(fn)
}

// Dial connects from inside the client. Closing is the caller's.
func (c *Client) Dial(network, address string) (conn net.Conn, err error) {
	return c.dial(context.Background(), network, address)
}

func (c *Client) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	// An address, not a name: net makes the socket on this very thread.
	d := net.Dialer{Timeout: 5 * time.Second}
	err = c.Do(func() error {
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// HTTPGet fetches a page from inside the client, over a connection of its own.
// Any status but 200 is an error. The URL must have an address, not a name.
func (c *Client) HTTPGet(url string) (string, error) {
	transport := &http.Transport{DialContext: c.dial, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	web := http.Client{Transport: transport, Timeout: 30 * time.Second}
	resp, err := web.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return string(body), err
}

// MAC is the address of the client's eth0.
func (c *Client) MAC(t testing.TB) string {
	t.Helper()
	all, err := show(c.path, "ip", "-j", "link", "show", "dev", clientIf)
	if err != nil || len(all) != 1 {
		t.Fatalf("cannot read the MAC address of %s: %v %v", c.name, all, err)
	}
	return all[0]["address"].(string)
}

// Neighbour is the MAC address that the client has for an IP address, "" if it
// has none.
func (c *Client) Neighbour(addr string) string {
	all, _ := show(c.path, "ip", "-j", "neigh", "show", addr)
	for _, n := range all {
		if mac, ok := n["lladdr"].(string); ok {
			return mac
		}
	}
	return ""
}

// FlushNeighbours lets the client forget all MAC addresses that it has learned.
func (c *Client) FlushNeighbours(t testing.TB) {
	t.Helper()
	c.Run(t, "ip", "neigh", "flush", "all")
}

// forget drops what the client knows of one address.
func (c *Client) forget(addr string) {
	addr, _, _ = strings.Cut(addr, "%")
	c.TryRun("ip", "neigh", "flush", "to", addr)
}
