package e2e_test

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

func TestClientReachesTheRightServer(t *testing.T) {
	s := newSite(t)
	for _, id := range []string{"8", "9"} {
		s.MustVsrun(t, "create", id, "--port", "eth1", "--address", "192.0.2."+id+"/24", "--address", "2001:db8::"+id+"/64")
		answer(t, s.In("vs"+id), ":80", "I am "+id)
	}
	for _, id := range []string{"8", "9"} {
		for _, addr := range []string{"192.0.2." + id, "2001:db8::" + id} {
			if err := reach(s.client, addr); err != nil {
				t.Error(err)
			}
			if got, want := s.client.Neighbour(addr), s.mac(t, "vs"+id, "eth0"); got != want {
				t.Errorf("%s is at %s, want %s", addr, got, want)
			}
			got, err := s.client.HTTPGet("http://" + net.JoinHostPort(addr, "80") + "/")
			if err != nil || got != "I am "+id {
				t.Errorf("%s: %q, %v", addr, got, err)
			}
		}
	}
	// Macvlans of one port reach one another.
	for _, addr := range []string{"192.0.2.9", "2001:db8::9"} {
		if err := reach(s.In("vs8"), addr); err != nil {
			t.Error(err)
		}
	}
	s.MustVsrun(t, "disable", "8")
	for _, addr := range []string{"192.0.2.8", "2001:db8::8"} {
		if err := s.client.Silent(addr); err != nil {
			t.Error(err)
		}
	}
	if got, err := s.client.HTTPGet("http://192.0.2.9/"); got != "I am 9" {
		t.Errorf("the other one: %q, %v", got, err)
	}
}

// derived is the MAC address that an interface has to have on this machine: 46
// bits of a hash, locally administered.
func derived(t *testing.T, namespace, ifname string) string {
	t.Helper()
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("vsrun\x00" + strings.TrimSpace(string(id)) + "\x00" + namespace + "\x00" + ifname))
	sum[0] = sum[0]&^3 | sum[0]&2 | 2
	return net.HardwareAddr(sum[:6]).String()
}

func TestMACIsStable(t *testing.T) {
	s := newSite(t)
	const create = "create 8 --no-probe --port eth1 --address 192.0.2.8/24"
	s.MustVsrun(t, strings.Fields(create)...)
	want := derived(t, "vs8", "eth0")
	check := func(when string) {
		t.Helper()
		if got := s.mac(t, "vs8", "eth0"); got != want {
			t.Errorf("%s: MAC address %s, want %s", when, got, want)
		}
		if got := s.show(t, "8").Interfaces[0].MAC; got != want {
			t.Errorf("%s: show says %s, want %s", when, got, want)
		}
	}
	check("created")
	if hw, _ := net.ParseMAC(want); hw[0]&3 != 2 {
		t.Errorf("%s is not unicast and locally administered", want)
	}
	s.MustVsrun(t, "disable", "8")
	if got := s.show(t, "8").Interfaces[0].MAC; got != want {
		t.Errorf("disabled: show says %s, want %s", got, want)
	}
	s.MustVsrun(t, "enable", "8", "--no-probe")
	check("enabled again")
	s.MustVsrun(t, "destroy", "8")
	s.MustVsrun(t, strings.Fields(create)...)
	check("created again")
	s.MustVsrun(t, "attach", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.18/24")
	if got := s.mac(t, "vs8", "eth1"); got != derived(t, "vs8", "eth1") || got == want {
		t.Errorf("the second interface has %s", got)
	}
}

func TestTwoSegments(t *testing.T) {
	s := newSite(t)
	other := s.Segment("eth2").Client("client2", "198.51.100.100/24", "2001:db8:2::100/64")
	s.MustVsrun(t, "create", "8", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64")
	s.MustVsrun(t, "attach", "8", "--port", "eth2", "--address", "198.51.100.8/24", "--address", "2001:db8:2::8/64")
	for _, c := range []struct {
		from      *lab.Client
		addr, dev string
	}{
		{s.client, "192.0.2.8", "eth0"}, {s.client, "2001:db8::8", "eth0"},
		{other, "198.51.100.8", "eth1"}, {other, "2001:db8:2::8", "eth1"},
	} {
		if err := reach(c.from, c.addr); err != nil {
			t.Error(err)
		}
		if got, want := c.from.Neighbour(c.addr), s.mac(t, "vs8", c.dev); got != want {
			t.Errorf("%s is at %s, want %s", c.addr, got, want)
		}
	}
	// Neither interface answers for the other one's address.
	s.client.Run(t, "ip", "route", "add", "198.51.100.0/24", "dev", "eth0")
	if err := s.client.Silent("198.51.100.8"); err != nil {
		t.Error(err)
	}
	s.MustVsrun(t, "detach", "8", "eth1")
	if err := other.Silent("198.51.100.8"); err != nil {
		t.Error(err)
	}
	if err := reach(s.client, "192.0.2.8"); err != nil {
		t.Error(err)
	}
}

func TestTwoInterfacesOnOneSubnet(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64")
	s.MustVsrun(t, "attach", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.18/24", "--address", "2001:db8::18/64")
	wire := s.client.Capture(t)
	s.client.FlushNeighbours(t)
	for _, c := range []struct{ addr, dev, other string }{
		{"192.0.2.8", "eth0", "eth1"}, {"192.0.2.18", "eth1", "eth0"},
		{"2001:db8::8", "eth0", "eth1"}, {"2001:db8::18", "eth1", "eth0"},
	} {
		if err := reach(s.client, c.addr); err != nil {
			t.Error(err)
		}
		if got, want := s.client.Neighbour(c.addr), s.mac(t, "vs8", c.dev); got != want {
			t.Errorf("%s is at %s, want %s of %s", c.addr, got, want, c.dev)
		}
		tells := func(f lab.Frame) bool { // an ARP reply, or a solicited advertisement
			p := f.Payload
			return f.EtherType == unix.ETH_P_ARP && p[7] == 2 && netip.AddrFrom4([4]byte(p[14:18])).String() == c.addr ||
				f.EtherType == unix.ETH_P_IPV6 && len(p) > 64 && p[6] == unix.IPPROTO_ICMPV6 && p[40] == 136 &&
					netip.AddrFrom16([16]byte(p[48:64])).String() == c.addr
		}
		if got := wire.Await(1, 10*time.Second, tells, lab.From(s.mac(t, "vs8", c.dev)), not(lab.Announces(c.addr))); len(got) == 0 {
			t.Errorf("%s does not answer for %s", c.dev, c.addr)
		}
		if got := wire.Frames(tells, lab.From(s.mac(t, "vs8", c.other))); len(got) != 0 {
			t.Errorf("%s answers for %s: %v", c.other, c.addr, got)
		}
	}
}

// Two routers lead to another segment: one is the default gateway, a static
// route goes by the other.
func TestRoutesCarryTraffic(t *testing.T) {
	s := newSite(t, "eth1", "eth3")
	beyond := s.Segment("eth2")
	far1 := beyond.Client("far1", "198.51.100.100/24", "2001:db8:2::100/64")
	far2 := beyond.Client("far2", "203.0.113.100/24")
	for _, r := range []struct{ id, near, near6, far, far6 string }{
		{"1", "192.0.2.1/24", "2001:db8::1/64", "198.51.100.1/24", "2001:db8:2::1/64"},
		{"2", "192.0.2.2/24", "2001:db8::2/64", "203.0.113.2/24", "2001:db8:3::2/64"},
	} {
		s.MustVsrun(t, "create", r.id, "--no-probe", "--port", "eth3", "--address", r.near, "--address", r.near6)
		s.MustVsrun(t, "attach", r.id, "--no-probe", "--port", "eth2", "--address", r.far, "--address", r.far6)
		s.In("vs"+r.id).Run(t, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	}
	far1.Run(t, "ip", "route", "add", "192.0.2.0/24", "via", "198.51.100.1")
	far1.Run(t, "ip", "route", "add", "2001:db8::/64", "via", "2001:db8:2::1")
	far2.Run(t, "ip", "route", "add", "192.0.2.0/24", "via", "203.0.113.2")
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64",
		"--gateway", "192.0.2.1", "--gateway", "2001:db8::1", "--route", "203.0.113.0/24 via 192.0.2.2 metric 50")
	forwarded := func(id, group, name string) int64 {
		return readStats(t, s.Host, id)[0].MIB[group][name]
	}
	for _, c := range []struct{ addr, by, group, name string }{
		{"198.51.100.100", "1", "Ip", "ForwDatagrams"},
		{"203.0.113.100", "2", "Ip", "ForwDatagrams"},
		{"2001:db8:2::100", "1", "Ip6", "OutForwDatagrams"},
	} {
		before := forwarded(c.by, c.group, c.name)
		if err := reach(s.In("vs8"), c.addr); err != nil {
			t.Error(err)
		}
		if forwarded(c.by, c.group, c.name) == before {
			t.Errorf("vs%s has forwarded nothing to %s", c.by, c.addr)
		}
	}
}

func TestMTU(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64", "--mtu", "1400")
	s.MustVsrun(t, "create", "9", "--no-probe", "--port", "eth1", "--address", "192.0.2.9/24")
	for _, c := range []struct {
		vs, to string
		size   int // of the packet
		passes bool
	}{
		{"vs8", "192.0.2.100", 1400, true},
		{"vs8", "192.0.2.100", 1401, false},
		{"vs8", "2001:db8::100", 1400, true},
		{"vs8", "2001:db8::100", 1401, false},
		{"vs9", "192.0.2.100", 1500, true},
	} {
		head := 28
		if strings.Contains(c.to, ":") {
			head = 48
		}
		r := s.In(c.vs).TryRun("ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", fmt.Sprint(c.size-head), c.to)
		if (r.Code == 0) != c.passes {
			t.Errorf("%d bytes, want %v: %v", c.size, c.passes, r)
		}
		if !c.passes && !strings.Contains(strings.ToLower(r.Stdout+r.Stderr), "message too long") {
			t.Errorf("%d bytes: %v", c.size, r)
		}
	}
	if got := s.show(t, "8").Interfaces[0].MTU; got != 1400 {
		t.Errorf("show says MTU %d", got)
	}
}

func TestAddressesSurviveLinkDown(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64",
		"--gateway", "192.0.2.1", "--gateway", "2001:db8::1")
	s.In("vs8").Run(t, "ip", "link", "set", "eth0", "down")
	if got := s.show(t, "8"); got.State != "degraded" || got.Interfaces[0].Up {
		t.Errorf("its link is down, and show says %+v", got)
	}
	s.In("vs8").Run(t, "ip", "link", "set", "eth0", "up")
	for _, addr := range []string{"192.0.2.8", "2001:db8::8"} {
		if err := reach(s.client, addr); err != nil {
			t.Error(err)
		}
	}
	// The kernel drops the routes by a gateway; enable puts them back.
	s.MustVsrun(t, "enable", "8")
	if got := s.show(t, "8"); got.State != "enabled" {
		t.Errorf("after enable: %+v", got)
	}
	// The cable does no more than that.
	s.seg.SetCarrier(t, "eth1", false)
	s.seg.SetCarrier(t, "eth1", true)
	for _, addr := range []string{"192.0.2.8", "2001:db8::8"} {
		soon(t, func() error { return reach(s.client, addr) }) // the kernel notices a carrier within a second
	}
	if got := s.show(t, "8"); got.State != "enabled" {
		t.Errorf("after the cable: %+v", got)
	}
}
