package e2e_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

// advertise has a client be a router: it tells all nodes that it is a gateway, and that
// 2001:db8:5::/64 is theirs for ever, and 2001:db8:6::/64 for an hour.
func advertise(t *testing.T, c *lab.Client) {
	t.Helper()
	prefix := func(p string, lifetime ...byte) []byte {
		o := append([]byte{3, 4, 64, 0xc0}, lifetime...) // on-link, autonomous (RFC 4861, 4.6.2)
		o = append(append(o, lifetime...), 0, 0, 0, 0)
		return append(o, netip.MustParseAddr(p).AsSlice()...)
	}
	b := []byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0} // a gateway for 1800 s
	b = append(b, prefix("2001:db8:5::", 0xff, 0xff, 0xff, 0xff)...)
	b = append(b, prefix("2001:db8:6::", 0, 0, 14, 16)...)
	err := c.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		dev, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
			return err
		}
		return unix.Sendto(fd, b, 0, &unix.SockaddrInet6{ZoneId: uint32(dev.Index), Addr: netip.MustParseAddr("ff02::1").As16()})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// An interface heeds routers where it is told to, and nowhere else; what it has from them is
// nobody's drift, and goes when that is over.
func TestRouterAdvertisements(t *testing.T) {
	s := newSite(t)
	router := s.seg.Client("router", "2001:db8:5::1/64")
	const hosts = "net.ipv6.conf.eth1.accept_ra="
	s.Run(t, "sysctl", "-qw", hosts+"0")
	t.Cleanup(func() { s.Run(t, "sysctl", "-qw", hosts+"1") })
	vs8 := s.In("vs8")
	addresses := func() string { return vs8.Run(t, "ip", "-6", "-o", "address", "show", "scope", "global") }
	const plain = `{id: 8, interfaces: [{name: eth0.5, port: eth1, mac: "02:00:5e:10:00:08", addresses: ["2001:db8::8/64"]}]}`
	heeding := strings.Replace(plain, "mac:", "ra: true, mac:", 1)
	s.must(t, s.VsrunIn(plain, "create", "-f", "-", "--no-probe"))
	if out := s.Vsrun("apply", "-f", writeDocument(t, heeding), "--dry-run").Stdout; !strings.Contains(out,
		"sysctl -qw net/ipv6/conf/eth0.5/autoconf=1 net/ipv6/conf/eth0.5/accept_ra_defrtr=1 net/ipv6/conf/eth0.5/accept_ra=1\n") {
		t.Errorf("the dry run is\n%s", out)
	}
	s.must(t, s.VsrunIn(heeding, "apply", "-f", "-"))

	// A gateway of its own comes and goes.
	for _, tt := range []struct{ document, defrtr string }{
		{strings.Replace(heeding, "mac:", `gateways: ["2001:db8::1"], mac:`, 1), "0"},
		{heeding, "1"},
	} {
		s.must(t, s.VsrunIn(tt.document, "apply", "-f", "-"))
		if got := strings.TrimSpace(vs8.Run(t, "sysctl", "-n", "net/ipv6/conf/eth0.5/accept_ra_defrtr")); got != tt.defrtr {
			t.Errorf("accept_ra_defrtr is %s by %s", got, tt.document)
		}
	}

	soon(t, func() error {
		advertise(t, router)
		return reach(router, "2001:db8:5::5eff:fe10:8")
	})
	all := addresses()
	for _, want := range []string{"2001:db8::8/64", "2001:db8:5:0:0:5eff:fe10:8/64", "2001:db8:6:0:0:5eff:fe10:8/64"} {
		if p := netip.MustParsePrefix(want).String(); !strings.Contains(all, " "+p+" ") {
			t.Errorf("%s is not among\n%s", p, all)
		}
	}
	if strings.Count(all, "inet6") != 3 || strings.Contains(all, "temporary") {
		t.Errorf("there is more than that:\n%s", all)
	}
	if route := vs8.Run(t, "ip", "-6", "route", "show", "default"); !strings.Contains(route, "proto ra") {
		t.Errorf("the default route is %q", route)
	}
	if r := s.Vsrun("diff", "8"); r.Code != 0 || r.Stdout != "" {
		t.Error(r)
	}

	// One that is asked for wins over the router's, on whatever interface, and gives way again.
	for _, ways := range []string{
		strings.Replace(heeding, "mac:", `gateways: ["2001:db8::1"], mac:`, 1),
		strings.Replace(heeding, "}]}", `}, {name: eth1, port: eth1, addresses: ["2001:db8:1::8/64"], gateways: ["2001:db8:1::1"]}]}`, 1),
	} {
		s.must(t, s.VsrunIn(ways, "apply", "-f", "-"))
		advertise(t, router)
		if route := vs8.Run(t, "ip", "-6", "route", "show", "default"); strings.Contains(route, "proto ra") || strings.Count(route, "default via 2001:db8:") != 1 {
			t.Errorf("the default route is %q", route)
		}
		if r := s.Vsrun("diff", "8"); r.Code != 0 || r.Stdout != "" {
			t.Error(r)
		}
		s.must(t, s.VsrunIn(heeding, "apply", "-f", "-"))
		soon(t, func() error {
			advertise(t, router)
			if route := vs8.Run(t, "ip", "-6", "route", "show", "default"); !strings.Contains(route, "proto ra") {
				return fmt.Errorf("the default route is %q", route)
			}
			return nil
		})
	}
	s.MustVsrun(t, "enable", "8", "--prune")
	if got := addresses(); strings.Count(got, "inet6") != 3 {
		t.Errorf("after enable --prune:\n%s", got)
	}
	if err := reach(router, "2001:db8:5::5eff:fe10:8"); err != nil {
		t.Error(err)
	}

	// Somebody has switched it off: it is drift, and mended.
	vs8.Run(t, "sysctl", "-qw", "net/ipv6/conf/eth0.5/accept_ra=0")
	if r := s.Vsrun("diff", "8"); r.Code != 1 {
		t.Error(r)
	}
	s.MustVsrun(t, "enable", "8")
	s.must(t, s.VsrunIn(plain, "apply", "-f", "-"))
	advertise(t, router)
	time.Sleep(300 * time.Millisecond) // nothing is to come
	if got := addresses(); strings.Count(got, "inet6") != 1 || !strings.Contains(got, "2001:db8::8/64") {
		t.Errorf("without routers there is\n%s", got)
	}
}

// Its link-local address is the same every time, whatever the host's kernel is told.
func TestLinkLocalIsStable(t *testing.T) {
	s := newSite(t)
	for range 2 {
		s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--mac", "02:00:5e:10:00:08", "--address", "2001:db8::8/64")
		if got := s.In("vs8").Run(t, "ip", "-6", "-o", "address", "show", "scope", "link"); !strings.Contains(got, " fe80::5eff:fe10:8/64 ") {
			t.Error(got)
		}
		s.MustVsrun(t, "destroy", "8")
		s.Run(t, "sysctl", "-qw", "net.ipv6.conf.default.addr_gen_mode=3")
	}
	s.Run(t, "sysctl", "-qw", "net.ipv6.conf.default.addr_gen_mode=0")
}
