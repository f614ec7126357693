package plumbing

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/test/lab"
)

// hear is a listener until the end of the test.
func hear(t *testing.T) *Listener {
	t.Helper()
	l, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// await waits for a notice that fits.
func (l *Listener) await(t *testing.T, what string, fits func(Notice) bool) Notice {
	t.Helper()
	l.SetDeadline(time.Now().Add(10 * time.Second))
	heard := 0
	for {
		list, err := l.Next()
		if err != nil {
			t.Fatalf("%s: %v, after %d others", what, err, heard)
		}
		if k := slices.IndexFunc(list, fits); k >= 0 {
			return list[k]
		}
		heard += len(list)
	}
}

// Each kind of change is heard, on the host and in a namespace that is followed; in
// another one it is not.
func TestHears(t *testing.T) {
	host := ports(t)
	h := enable(t, vs8, eth0(nil))
	l := hear(t)
	host.Run(t, "ip", "netns", "add", "other")
	host.Run(t, "ip", "-n", "other", "link", "set", "dev", "lo", "up")
	id, err := l.Follow(h.Namespace())
	if again, err2 := l.Follow(h.Namespace()); err != nil || err2 != nil || id != again || id < 0 {
		t.Fatalf("followed as %d, %v; then as %d, %v", id, err, again, err2)
	}
	for _, tt := range []struct {
		name  string
		topic Topic
		argv  []string
	}{
		{"a link", OfLink, []string{"ip", "-n", "vs8", "link", "set", "dev", "eth0", "mtu", "1400"}},
		{"an address", OfAddress, []string{"ip", "-n", "vs8", "address", "add", "192.0.2.9/24", "dev", "eth0"}},
		{"an IPv6 address", OfAddress, []string{"ip", "-n", "vs8", "address", "add", "2001:db8::9/64", "dev", "eth0", "nodad"}},
		{"a route", OfRoute, []string{"ip", "-n", "vs8", "route", "add", "203.0.113.0/24", "via", "192.0.2.1"}},
		{"an IPv6 route", OfRoute, []string{"ip", "-n", "vs8", "route", "add", "2001:db8:1::/64", "via", "2001:db8::1"}},
		{"a rule", OfRule, []string{"ip", "-n", "vs8", "rule", "add", "pref", "100", "table", "100"}},
		{"an IPv6 rule", OfRule, []string{"ip", "-n", "vs8", "-6", "rule", "add", "pref", "100", "table", "100"}},
		{"forwarding", OfSysctl, []string{"ip", "netns", "exec", "vs8", "sysctl", "-qw", "net.ipv4.ip_forward=1"}},
		{"filtering", OfSysctl, []string{"ip", "netns", "exec", "vs8", "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1"}},
	} {
		host.Run(t, tt.argv...)
		l.await(t, tt.name, func(n Notice) bool { return n.Namespace == id && n.Topic == tt.topic && !n.Gone })
	}

	host.Run(t, "ip", "link", "set", "dev", "eth1", "alias", "uplink")
	n := l.await(t, "the port's alias", func(n Notice) bool { return n.Namespace == Host && n.Topic == OfLink })
	if n.Link.Name != "eth1" || n.Link.Alias != "uplink" || !n.Link.Carrier || n.Link.Kind != "veth" || n.Link.MTU != 1500 {
		t.Errorf("heard %+v", n.Link)
	}
	host.Run(t, "ip", "link", "set", "dev", "eth1", "alias", "")

	host.Run(t, "ip", "-n", "vs8", "link", "delete", "dev", "eth0")
	n = l.await(t, "a link that goes", func(n Notice) bool { return n.Namespace == id && n.Topic == OfLink && n.Gone })
	if n.Link.Name != "eth0" {
		t.Errorf("heard %+v", n.Link)
	}
	host.Run(t, "ip", "netns", "delete", "other")
	host.Run(t, "ip", "netns", "delete", "vs8")
	h.leave()
	l.await(t, "a namespace that goes", func(n Notice) bool { return n.Topic == OfNamespace && n.Namespace == id })
}

// A listener that has not listened is told so, and hears what comes then.
func TestHearsThatNoticesWereLost(t *testing.T) {
	host := lab.New(t)
	host.Segment("eth1")
	l := hear(t)
	h, err := OpenHost()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	index, _ := h.index("eth1")
	unix.SetsockoptInt(int(l.f.Fd()), unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<10)
	for k := range 40 {
		h.host.one(linkMTU(index, 1400+k))
	}
	l.SetDeadline(time.Now().Add(10 * time.Second))
	for err = nil; err == nil; {
		_, err = l.Next()
	}
	if !errors.Is(err, ErrMissed) {
		t.Fatalf("the end of what was heard: %v", err)
	}
	host.Run(t, "ip", "link", "set", "dev", "eth1", "mtu", "1500")
	l.await(t, "what came after", func(n Notice) bool { return n.Topic == OfLink && n.Link.MTU == 1500 })
}

// Kernel parameters are heard by the namespace that they are written in.
func TestListenSysctls(t *testing.T) {
	lab.New(t)
	l, err := ListenSysctls()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var spaces [2]*nsutil.Namespace
	var watches [2][]int
	for k := range spaces {
		if spaces[k], err = nsutil.New(); err != nil {
			t.Fatal(err)
		}
		defer spaces[k].Close()
		if watches[k], err = l.Follow(spaces[k]); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range serverSysctls {
		err := spaces[1].Do(func() error { // by the host's /proc, which c.write has not
			was, err := c.read()
			if err == nil && was != "" {
				err = os.WriteFile(c.path(), []byte(was), 0)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(c.path()); err != nil { // not every kernel has all
			continue
		}
		got, err := l.Next()
		if err != nil || len(got) != 1 || !slices.Contains(watches[1], got[0]) {
			t.Errorf("%s: heard %v, %v; followed are %v", c.key, got, err, watches)
		}
	}
	l.Unfollow(watches[1])
	for _, ns := range []*nsutil.Namespace{spaces[1], spaces[0]} {
		c := serverSysctls[0]
		if err := ns.Do(func() error { return os.WriteFile(c.path(), []byte(c.value), 0) }); err != nil {
			t.Error(err)
		}
	}
	for heard := false; !heard; { // watches that are given back say so, once
		got, err := l.Next()
		if err != nil {
			t.Fatal(err)
		}
		heard = slices.ContainsFunc(got, func(w int) bool { return slices.Contains(watches[0], w) })
	}
}

// Following a namespace keeps it from nothing.
func TestFollowPinsNothing(t *testing.T) {
	lab.New(t)
	l := hear(t)
	ns, err := nsutil.New()
	if err != nil {
		t.Fatal(err)
	}
	id, err := l.Follow(ns)
	if err != nil {
		t.Fatal(err)
	}
	sysctls, err := ListenSysctls()
	if err != nil {
		t.Fatal(err)
	}
	defer sysctls.Close()
	if watches, err := sysctls.Follow(ns); err != nil || len(watches) < 3 {
		t.Fatalf("it follows with %v, %v", watches, err)
	}
	ns.Close()
	l.await(t, "its end", func(n Notice) bool { return n.Topic == OfNamespace && n.Namespace == id })
	l.SetDeadline(time.Unix(1, 0))
	if _, err := l.Next(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("with nothing to hear: %v", err)
	}
}

// Whatever the kernel sends is understood, or passed over.
func FuzzNotice(f *testing.F) {
	for _, m := range []message{
		linkRename(2, "eth0"), linkAltname(2, "uplink"), newVLAN("vsvlan10", 2, tag{10, unix.ETH_P_8021Q}),
		route(unix.RTM_NEWROUTE, 0, 2, Route{To: prefixes("198.51.100.0/24")[0]}), address(unix.RTM_NEWADDR, 0, 2, prefixes("2001:db8::8/64")[0]),
		{kind: unix.RTM_NEWNETCONF, body: []byte{2, 0, 0, 0, 8, 0, netconfIfindex, 0, 2, 0, 0, 0}},
		{kind: unix.RTM_DELNSID, body: []byte{0, 0, 0, 0, 8, 0, unix.NETNSA_NSID, 0, 2, 0, 0, 0}},
	} {
		f.Add(m.kind, m.body)
	}
	f.Fuzz(func(_ *testing.T, kind uint16, body []byte) {
		decodeNotice(kind, body)
		decodeAddress(body, nil)
		decodeRoute(body, nil)
		foreignRule(body)
		if d, ok := decodeDevice(body); ok {
			(&Handle{}).link(d)
		}
		decodePortMAC(body)
		namespaceOf(body)
	})
}
