package e2e_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

// A multihomed site has vs8 with an interface on each of two segments, a router on each, and
// clients behind both: which way a packet takes depends on vs8's address alone.
type multihomed struct {
	*site
	far  []*lab.Client
	near [2]*lab.Capture // what eth0 and eth1 send to the segments
}

// twoWays is what is to go by eth0, and by eth1.
var twoWays = [2][]string{{"192.0.2.8", "2001:db8::8"}, {"198.51.100.8", "2001:db8:1::8"}}

const farAway = "203.0.113.%d/24 2001:db8:2::%d/64"

func newMultihomed(t *testing.T, document string) *multihomed {
	t.Helper()
	h := bareHost(t)
	s := &multihomed{site: &site{Host: h}}
	var one, two, beyond *lab.Segment
	h.Together(func() {
		one, two, beyond = h.Segment("eth1", "eth3"), h.Segment("eth2", "eth4"), h.Segment("eth5")
		var plugs []lab.Plug
		for _, n := range []int{101, 102} {
			plugs = append(plugs, lab.Plug{Name: fmt.Sprintf("far%d", n), Addresses: strings.Fields(fmt.Sprintf(farAway, n, n))})
		}
		s.far = beyond.Clients(plugs...)
	})
	s.near = [2]*lab.Capture{one.Capture(t, "eth1"), two.Capture(t, "eth2")}
	for k, near := range [][2]string{{"192.0.2.1/24", "2001:db8::1/64"}, {"198.51.100.1/24", "2001:db8:1::1/64"}} {
		router := fmt.Sprint(k + 1)
		s.MustVsrun(t, "create", router, "--no-probe", "--port", fmt.Sprintf("eth%d", k+3), "--address", near[0], "--address", near[1])
		far := strings.Fields(fmt.Sprintf(farAway, k+1, k+1))
		s.MustVsrun(t, "attach", router, "--no-probe", "--port", "eth5", "--address", far[0], "--address", far[1])
		s.In("vs"+router).Run(t, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
		for _, c := range s.far {
			for j, by := range far {
				c.Run(t, "ip", "route", "add", netip.MustParsePrefix(near[j]).Masked().String(), "via", netip.MustParsePrefix(by).Addr().String())
			}
		}
	}
	s.must(t, s.VsrunIn(document, "create", "-f", "-", "--no-probe"))
	for _, c := range s.far { // the kernel notices a carrier within a second
		for _, own := range twoWays {
			for _, addr := range own {
				soon(t, func() error { return reach(c, addr) })
			}
		}
	}
	return s
}

// astray counts what vs8 has sent with an address of one interface by the other one, and ok
// what it has sent by the right one.
func (s *multihomed) astray() (astray, ok int) {
	for k, wire := range s.near {
		for j, own := range twoWays {
			n := len(wire.Frames(func(f lab.Frame) bool { return slices.Contains(own, sender(f)) }))
			if j == k {
				ok += n
			} else {
				astray += n
			}
		}
	}
	return astray, ok
}

// sender is the IP address that a frame is from; "" for others.
func sender(f lab.Frame) string {
	switch p := f.Payload; {
	case f.EtherType == unix.ETH_P_IP && len(p) >= 20:
		return netip.AddrFrom4([4]byte(p[12:16])).String()
	case f.EtherType == unix.ETH_P_IPV6 && len(p) >= 40:
		return netip.AddrFrom16([16]byte(p[8:24])).String()
	}
	return ""
}

// fromOutside has the clients use all addresses of vs8, by ICMP, TCP and a closed port.
func (s *multihomed) fromOutside(t *testing.T) {
	t.Helper()
	for _, c := range s.far {
		for _, own := range twoWays {
			for _, addr := range own {
				if err := reach(c, addr); err != nil {
					t.Error(err)
				}
				if got, err := c.HTTPGet("http://" + net.JoinHostPort(addr, "80") + "/"); err != nil || got != "I am 8" {
					t.Errorf("%s: %q, %v", addr, got, err)
				}
				if conn, err := c.Dial("tcp", net.JoinHostPort(addr, "81")); err == nil || !strings.Contains(err.Error(), "refused") {
					t.Errorf("the closed port of %s: %v, %v", addr, conn, err)
				}
			}
		}
	}
}

// fromInside has vs8 use the clients, from each address and by each interface.
func (s *multihomed) fromInside(t *testing.T) {
	t.Helper()
	vs8 := s.In("vs8")
	for k, own := range twoWays {
		for j, far := range []string{"203.0.113.101", "2001:db8:2::101"} {
			for _, by := range []string{own[j], fmt.Sprintf("eth%d", k)} {
				if r := vs8.TryRun("ping", "-n", "-c", "1", "-W", "5", "-I", by, far); r.Code != 0 {
					t.Error(r)
				}
			}
			var conn net.Conn
			err := vs8.Do(func() (err error) {
				d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(own[j])}}
				conn, err = d.Dial("tcp", net.JoinHostPort(far, "80"))
				return err
			})
			if err != nil {
				t.Errorf("from %s: %v", own[j], err)
				continue
			}
			conn.Close()
		}
	}
}

const multihomedDocument = `
id: 8
interfaces:
- {name: eth0, port: eth1, addresses: [192.0.2.8/24, "2001:db8::8/64"], gateways: [192.0.2.1, "2001:db8::1"]}
- {name: eth1, port: eth2, addresses: [198.51.100.8/24, "2001:db8:1::8/64"], gateways: [198.51.100.1, "2001:db8:1::1"]}
`

func TestMultihomed(t *testing.T) {
	s := newMultihomed(t, multihomedDocument)
	answer(t, s.In("vs8"), ":80", "I am 8")
	answer(t, s.far[0], ":80", "I am far")
	check := func(when string) {
		t.Helper()
		s.fromOutside(t)
		s.fromInside(t)
		if astray, ok := s.astray(); astray != 0 || ok < 60 {
			t.Errorf("%s: %d packets on the wrong way, %d on the right one", when, astray, ok)
		}
	}
	check("created")

	// What has no address yet goes by the first, or by what has the lowest metric.
	first := func(dev string) {
		t.Helper()
		for _, far := range []string{"203.0.113.101", "2001:db8:2::101"} {
			if out := s.In("vs8").Run(t, "ip", "route", "get", far); !strings.Contains(out, " dev "+dev+" ") {
				t.Errorf("want %s: %s", dev, out)
			}
		}
	}
	first("eth0")
	s.must(t, s.VsrunIn(strings.Replace(multihomedDocument, "port: eth2", "port: eth2, metric: 7, table: 101", 1), "apply", "-f", "-"))
	first("eth1")
	check("with a metric, and a table of a number")

	// Rules that are gone are put back, one of somebody else's is told.
	s.In("vs8").Run(t, "ip", "rule", "del", "priority", "1180")
	s.In("vs8").Run(t, "ip", "rule", "add", "not", "from", "192.0.2.8", "tos", "0x10", "lookup", "118001", "priority", "1180", "protocol", "118")
	s.In("vs8").Run(t, "ip", "-6", "rule", "add", "priority", "77", "from", "2001:db8:77::/64", "lookup", "main")
	if r := s.Vsrun("diff", "8"); r.Code != 1 || !strings.Contains(r.Stdout, "add rule from 192.0.2.8/32 lookup 118001 priority 1180\n") ||
		!strings.Contains(r.Stdout, "foreign IPv6 rule 77") {
		t.Error(r)
	}
	s.MustVsrun(t, "enable", "8", "--prune")
	if r := s.Vsrun("diff", "8"); r.Code != 0 || r.Stdout != "" {
		t.Error(r)
	}
	check("mended")

	// Rules follow the addresses, and go with the second gateway.
	moved := strings.NewReplacer("198.51.100.8/", "198.51.100.9/", `, "2001:db8:1::1"`, "").Replace(multihomedDocument)
	s.must(t, s.VsrunIn(moved, "apply", "-f", "-"))
	rules := s.In("vs8").Run(t, "ip", "rule") + s.In("vs8").Run(t, "ip", "-6", "rule")
	if strings.Count(rules, "proto 118") != 2 || !strings.Contains(rules, "from 198.51.100.9 lookup 118002") {
		t.Errorf("the rules are\n%s", rules)
	}
	s.MustVsrun(t, "detach", "8", "eth1")
	if rules := s.In("vs8").Run(t, "ip", "rule"); strings.Contains(rules, "proto 118") {
		t.Errorf("one gateway is left, and so are the rules\n%s", rules)
	}
}

// What a realm has received is what its interface's IPv4 addresses have.
func TestRealms(t *testing.T) {
	s := newMultihomed(t, strings.Replace(multihomedDocument, "port: eth2", "port: eth2, realm: 8", 1))
	type counted struct {
		Realms map[string]map[string]int64
	}
	read := func() (int64, int64) {
		t.Helper()
		c := decoded[[]counted](t, s.MustVsrun(t, "stats", "8", "-o", "json"))[0].Realms["8"]
		return c["rxPackets"], c["rxBytes"]
	}
	packets, bytes := read() // the host's counters outlive namespaces
	for _, ping := range [][]string{{"-c", "3", "-s", "100", "198.51.100.8"}, {"-c", "5", "192.0.2.8"}, {"-c", "5", "2001:db8:1::8"}} {
		s.far[1].Run(t, append([]string{"ping", "-n", "-i", "0.01", "-W", "5"}, ping...)...)
	}
	if p, b := read(); p-packets != 3 || b-bytes != 3*128 {
		t.Errorf("%d packets, %d bytes, want 3 and 384", p-packets, b-bytes)
	}
	if out := s.MustVsrun(t, "stats", "8"); !strings.Contains(out, "REALM") {
		t.Error(out)
	}
	if r := s.Vsrun("create", "9", "--port", "eth1", "--address", "192.0.2.9/24", "--realm", "8"); r.Code == 0 || !strings.Contains(r.Stderr, "realm 8") {
		t.Error(r)
	}
}
