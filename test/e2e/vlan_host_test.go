package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// devices is what iproute2 shows of the host's devices.
func (s *vlanSite) devices(t *testing.T) string {
	t.Helper()
	return s.Run(t, "ip", "-d", "address")
}

// ours are the names of the host's devices that are vsrun's.
func (s *vlanSite) ours(t *testing.T) []string {
	t.Helper()
	var names []string
	for line := range strings.Lines(s.Run(t, "ip", "-o", "link", "show", "group", "118")) {
		name, _, _ := strings.Cut(strings.Fields(line)[1], "@")
		names = append(names, strings.TrimSuffix(name, ":"))
	}
	slices.Sort(names)
	return names
}

func (s *vlanSite) mustHave(t *testing.T, when string, names ...string) {
	t.Helper()
	if got := s.ours(t); !slices.Equal(got, names) {
		t.Errorf("%s: the host has %q of ours, want %q", when, got, names)
	}
}

// Whatever the order, the last one that leaves a VLAN takes its device along, and the
// host is what it was.
func vlanReverse(t *testing.T, s *vlanSite) {
	const on10, on20 = " --no-probe --port eth0 --vlan 10", " --no-probe --port eth0 --vlan 20"
	document := func(vlan string) string {
		return writeDocument(t, "id: 8\ninterfaces: [{name: eth0, port: eth0, addresses: [192.0.2.8/24], "+vlan+"}]\n")
	}
	before := s.devices(t)
	for _, c := range []struct {
		name  string
		lines string // a vsrun a line, and behind | what the host has of ours then
	}{
		{"one, enabled again", "create 8" + on10 + "|vsvlan10\ndisable 8|\nenable 8 --no-probe|vsvlan10\ndestroy 8|"},
		{"first in, first out", "create 8" + on10 + "\ncreate 9" + on10 + "\ndisable 8|vsvlan10\ndisable 9|"},
		{"first in, last out", "enable 8 --no-probe\nenable 9 --no-probe\ndestroy 9|vsvlan10\ndestroy 8|"},
		{"one inside another", "create 8 --no-probe --port eth0 --vlan 100.10|vsvlan10 vsvlan100\n" +
			"create 9 --no-probe --port eth0 --vlan 100.11|vsvlan10 vsvlan100 vsvlan11\ndisable 8|vsvlan100 vsvlan11\ndestroy 9|\ndestroy 8|"},
		{"kind vlan", "create 8 --kind vlan" + on10 + "|\ncreate 9 --no-probe --port eth0 --kind vlan --vlan 100.10|vsvlan100\ndestroy 9|\ndestroy 8|"},
		{"detach", "create 8" + on10 + "\nattach 8" + on20 + "|vsvlan10 vsvlan20\ndetach 8 eth0|vsvlan20\ndestroy 8|"},
		{"moved", "apply --no-probe -f " + document("vlan: 10") + "|vsvlan10\napply --no-probe -f " + document("vlan: 20") + "|vsvlan20\n" +
			"apply --no-probe -f " + document("kind: vlan, vlan: 30") + "|\napply --no-probe -f " + document("vlan: 30") + "|vsvlan30\n" +
			"apply --no-probe -f " + document("mtu: 1500") + "|\ndestroy 8|"},
	} {
		for line := range strings.SplitSeq(c.lines, "\n") {
			line, have, look := strings.Cut(line, "|")
			s.vsrun(t, line)
			if look {
				s.mustHave(t, c.name+", after "+line, strings.Fields(have)...)
			}
		}
		if diff := cmp.Diff(before, s.devices(t)); diff != "" {
			t.Errorf("%s: the host before (-) and after (+) differ:\n%s", c.name, diff)
		}
	}
	// Somebody has the address, which is found out when the VLAN is there.
	s.refused(t, "create 8 --port eth0 --vlan 10 --address 192.0.2.100/24", "192.0.2.100 is in use on the segment")
	s.refused(t, "create 8 --port eth0 --vlan 100.20 --kind vlan --address 2001:db8::100/64", "2001:db8::100 is in use on the segment")
	s.mustHave(t, "refused")
	// A change that fails goes back to what was.
	s.vsrun(t, "apply --no-probe -f "+document("kind: vlan, vlan: 10"))
	s.refused(t, "apply -f "+document("vlan: 10, gateways: [192.0.2.1], mac: 02:00:00:00:00:01, mtu: 9000"), "is above 1500, the mtu of port eth0\nhint: ")
	taken := writeDocument(t, "id: 8\ninterfaces: [{name: eth0, port: eth0, addresses: [192.0.2.8/24, 192.0.2.100/24], vlan: 10}]\n")
	s.refused(t, "apply -f "+taken, "192.0.2.100 is in use on the segment")
	s.mustHave(t, "gone back")
	if err := reach(s.on["10"], "192.0.2.8"); err != nil {
		t.Error(err)
	}
	s.vsrun(t, "disable 8")
	// What is moved off a VLAN and on to it again keeps its device, in a dry run too.
	s.vsrun(t, "apply --no-probe -f "+document("vlan: 10"))
	if script := s.vsrun(t, "apply --dry-run -f "+document("vlan: 10, mac: 02:00:00:00:00:01")); strings.Contains(script, "delete dev vsvlan10") {
		t.Errorf("this deletes what it needs:\n%s", script)
	}
	paste(t, s.Host, s.vsrun(t, "apply --dry-run -f "+document("vlan: 20")))
	s.mustHave(t, "pasted", "vsvlan20")
}

// An operator's own VLAN device is used as it is, and stays.
func vlanOperators(t *testing.T, s *vlanSite) {
	for _, c := range []struct{ name, address string }{{"eth0.10", ""}, {"tenants", "192.0.2.1/24"}} {
		s.Run(t, "sh", "-ec", "ip link add link eth0 name "+c.name+" type vlan id 10; ip link set "+c.name+" up")
		if c.address != "" {
			s.Run(t, "ip", "address", "add", c.address, "dev", c.name)
		}
		soon(t, func() error { // its link-local address is no longer tentative
			if a := s.Run(t, "ip", "-6", "-o", "address", "show", "dev", c.name, "scope", "link", "-tentative"); a == "" {
				return fmt.Errorf("%s has no link-local address", c.name)
			}
			return nil
		})
		look := func() string { return s.Run(t, "ip", "-d", "address", "show", "dev", c.name) }
		before := look()
		s.vsrun(t, "create 8 --no-probe --port eth0 --vlan 10 --address 192.0.2.8/24")
		s.mustHave(t, "adopted")
		if diff := cmp.Diff(before, look()); diff != "" {
			t.Errorf("%s is used, and not as before (-):\n%s", c.name, diff)
		}
		if link := s.look(t, "8").Interfaces[0].Link; link != c.name {
			t.Errorf("it is on %q, want %s", link, c.name)
		}
		if err := reach(s.on["10"], "192.0.2.8"); err != nil {
			t.Error(err)
		}
		s.vsrun(t, "destroy 8")
		if diff := cmp.Diff(before, look()); diff != "" {
			t.Errorf("%s was used, and is not as before (-):\n%s", c.name, diff)
		}
		s.refused(t, "create 8 --port eth0 --vlan 10 --kind vlan",
			"vlan 10 of port eth0 is in use on this host, as "+c.name+"\nhint: share it: leave --kind out\n")
		if c.address != "" {
			s.refused(t, "create 8 --port eth0 --vlan 10 --address 192.0.2.1/24",
				"address 192.0.2.1 is this host's own, on "+c.name+"\nhint: ")
		}
		s.Run(t, "ip", "link", "set", c.name, "down")
		s.refused(t, "create 8 --port eth0 --vlan 10", "port "+c.name+" is down\nhint: bring it up: ip link set "+c.name+" up\n")
		s.Run(t, "ip", "link", "del", c.name)
	}
	// One inside an operator's is ours, and that is not.
	s.Run(t, "sh", "-ec", "ip link add link eth0 name isp type vlan protocol 802.1ad id 100; ip link set isp up")
	s.vsrun(t, "create 8 --no-probe --port eth0 --vlan 100.10 --address 192.0.2.8/24")
	s.mustHave(t, "inside an operator's", "vsvlan10")
	if err := reach(s.on["100.10"], "192.0.2.8"); err != nil {
		t.Error(err)
	}
	s.vsrun(t, "destroy 8")
	s.Run(t, "ip", "link", "del", "isp") // it is there
	// The kernel has each VLAN of a device once, in whatever namespace.
	s.Run(t, "sh", "-ec", "ip netns add op; ip link add link eth0 name mine type vlan id 10; ip link set mine netns op")
	for _, kind := range []string{"macvlan", "vlan"} {
		s.refused(t, "create 8 --port eth0 --vlan 10 --kind "+kind, "another namespace has it\nhint: look for it with: ip -all netns exec ip -d link show type vlan")
	}
	if found := s.Run(t, "sh", "-c", "ip -all netns exec ip -d link show type vlan"); !strings.Contains(found, "netns: op") || !strings.Contains(found, "mine@") {
		t.Errorf("the hint finds\n%s", found)
	}
	s.Run(t, "sh", "-ec", "ip -n op link del mine; ip netns del op")
}

// A device of ours that an operator has taken into use stays as long as he does.
func vlanTakenIntoUse(t *testing.T, s *vlanSite) {
	for _, c := range []struct{ name, use, let string }{
		{"an address", "ip address add 203.0.113.1/24 dev vsvlan10", "ip address del 203.0.113.1/24 dev vsvlan10"},
		{"a VLAN inside it", "ip link add link vsvlan10 name v5 type vlan id 5", "ip link del v5"},
		{"a macvlan on the host, down", "ip link add link vsvlan10 name m0 type macvlan", "ip link del m0"},
		{"a macvlan in another namespace", "ip netns add op; ip link add link vsvlan10 name m0 netns op type macvlan; ip -n op link set m0 up", "ip -n op link del m0; ip netns del op"},
		{"one that is down", "ip netns add op; ip link add link vsvlan10 name m0 netns op type macvlan", "ip -n op link del m0; ip netns del op"},
	} {
		s.vsrun(t, "create 8 --no-probe --port eth0 --vlan 10")
		s.Run(t, "sh", "-ec", c.use)
		s.vsrun(t, "destroy 8")
		s.mustHave(t, c.name, "vsvlan10")
		s.Run(t, "sh", "-ec", c.let)
		s.vsrun(t, "destroy 8")
		s.mustHave(t, c.name+" is gone")
	}
	// What the kernel itself puts there is no use of it: the address, as after a line in
	// sysctl.conf, is drift.
	s.vsrun(t, "create 8 --no-probe --port eth0 --vlan 10")
	s.Run(t, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0")
	if got := s.look(t, "8"); got.State != "degraded" || !strings.Contains(strings.Join(got.Drift, "; "), "disable_ipv6=1") {
		t.Errorf("the host has IPv6 on its VLAN: %+v", got)
	}
	s.vsrun(t, "enable 8")
	if got := s.Run(t, "ip", "-o", "address", "show", "dev", "vsvlan10"); got != "" {
		t.Errorf("the host has addresses there: %s", got)
	}
	s.Run(t, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0")
	s.vsrun(t, "destroy 8")
	s.mustHave(t, "with a link-local address")
	// Another namespace's devices have numbers of their own, which may be the same.
	s.vsrun(t, "create 8 --no-probe --port eth0 --vlan 10")
	s.Run(t, "sh", "-ec", `ip netns add op
		ip -n op link add d0 index $(cat /sys/class/net/vsvlan10/ifindex) type dummy; ip -n op link add link d0 name d1 type vlan id 10`)
	s.vsrun(t, "destroy 8")
	s.mustHave(t, "a device of the same number")
	s.Run(t, "sh", "-ec", "ip -n op link del d0; ip netns del op")
	// What is ours is not a port.
	s.vsrun(t, "create 8 --no-probe --port eth0 --vlan 10")
	for _, name := range []string{"vsvlan10", "vsrun-eth0.10"} {
		s.refused(t, "create 9 --port "+name, "port "+name+" is vsrun's own, and goes when nobody uses it\nhint: name the port and the VLAN: --port P --vlan V\n")
	}
}

// looked is what show -o json says of where an interface is.
type looked struct {
	State      string
	Interfaces []struct {
		Port, Kind, Link string
		VLAN             any
		MTU              int
	}
	Drift []string
}

func (s *vlanSite) look(t *testing.T, id string) looked {
	t.Helper()
	return decoded[looked](t, s.vsrun(t, "show "+id+" -o json"))
}

// A device is one of the host's, as iproute2 shows it.
type device struct {
	Ifname, Link, Ifalias string
	Altnames              []string
	Group                 string
	MTU                   int
	Flags                 []string
	Linkinfo              struct {
		Info_data struct {
			Protocol string
			ID       int
			Flags    []string
		}
	}
}

// The host's device of an interface is found by what the kernel says of it, or by its
// second name; nothing need be known of how it is named.
func vlanNames(t *testing.T, s *vlanSite) {
	for _, c := range []struct{ id, port, where, alt string }{
		{"1", longPort, "--vlan 4094", "4094"}, {"2", longPort, "--vlan 4094.4094", "ad4094.4094"},
		{"3", longPort2, "--vlan 4094", "4094"}, {"4", longPort2, "--vlan 4094.4094", "ad4094.4094"},
		{"5", "eth0", "--vlan 4094 --kind macvlan", "4094"}, {"6", "eth0", "--vlan 1 --kind vlan", ""},
	} {
		s.vsrun(t, "create "+c.id+" --no-probe --port "+c.port+" "+c.where)
		i := s.look(t, c.id).Interfaces[0]
		var vlan any = 4094.0
		kind := "macvlan"
		switch {
		case strings.Contains(c.alt, "."):
			vlan = []any{4094.0, 4094.0}
		case c.alt == "":
			vlan, kind = 1.0, "vlan"
		}
		if i.Port != c.port || i.Kind != kind || cmp.Diff(vlan, i.VLAN) != "" {
			t.Errorf("vs%s is on port %s, kind %s, vlan %v", c.id, i.Port, i.Kind, i.VLAN)
		}
		if c.alt == "" { // it sits on the port itself
			if i.Link != c.port {
				t.Errorf("vs%s is on %s", c.id, i.Link)
			}
			continue
		}
		d := decoded[[]device](t, s.Run(t, "ip", "-d", "-j", "link", "show", "dev", "vsrun-"+c.port+"."+c.alt))[0]
		if d.Ifname != i.Link || d.Group != "118" || d.Ifalias != "vsrun:vlan" || !slices.Contains(d.Flags, "NOARP") ||
			d.Linkinfo.Info_data.ID != 4094 || d.Linkinfo.Info_data.Protocol != "802.1Q" || !slices.Contains(d.Linkinfo.Info_data.Flags, "LOOSE_BINDING") {
			t.Errorf("vs%s: show says %s, iproute2 %+v", c.id, i.Link, d)
		}
	}
	if got := s.ours(t); len(got) != 7 { // 3 + 2 × (outer + inner)
		t.Errorf("the host has %q", got)
	}
	// A name that somebody else's device has, be it its second, is left to it.
	s.Run(t, "sh", "-ec", "ip link add vsvlan7 type dummy; ip link property add dev vsvlan7 altname vsvlan7-2 altname vsrun-eth0.7")
	s.vsrun(t, "create 7 --no-probe --port eth0 --vlan 7")
	if link := s.look(t, "7").Interfaces[0].Link; link != "vsvlan7-3" {
		t.Errorf("vs7 is on %s", link)
	}
	s.vsrun(t, "destroy 7")
	s.Run(t, "ip", "link", "del", "vsvlan7")
	s.refused(t, "create 7 --port eth0.7", "no port eth0.7 on this host\nhint: for vlan 7 of eth0: --port eth0 --vlan 7\n")
	s.refused(t, "create 7 --port eth9 --vlan 7", "no port eth9 on this host\nhint: ports here: "+longPort+", "+longPort2+", eth0\n")
}

// Settings of a port carry on to its VLANs, and its ups and downs leave no trace.
func vlanFollowsPort(t *testing.T, s *vlanSite) {
	s.vsrun(t, "create 8 --no-probe --port eth0 --vlan 10 --address 192.0.2.8/24 --address 2001:db8::8/64 --gateway 192.0.2.1 --gateway 2001:db8::1")
	s.vsrun(t, "create 9 --no-probe --port eth0 --vlan 30 --kind vlan --address 192.0.2.8/24 --address 2001:db8::8/64 --gateway 192.0.2.1 --gateway 2001:db8::1")
	s.vsrun(t, "create 10 --no-probe --port eth0 --vlan 100.20 --kind vlan --address 192.0.2.8/24 --address 2001:db8::8/64 --gateway 192.0.2.1 --gateway 2001:db8::1")
	inside := map[string]string{"vs8": "10", "vs9": "30", "vs10": "100.20"}
	states := func() map[string]string {
		all := map[string]string{}
		for vs := range inside {
			text := s.In(vs).Run(t, "sh", "-c", "ip -o address; ip route; ip -6 route")
			all[vs] = strings.NewReplacer("optimistic ", "", "tentative ", "").Replace(text) // the link-local one
		}
		return all
	}
	before := states()
	for _, c := range []struct {
		name     string
		down, up func()
	}{
		{"the cable", func() { s.near.SetCarrier(t, "eth0", false) }, func() { s.near.SetCarrier(t, "eth0", true) }},
		{"the port", func() { s.Run(t, "ip", "link", "set", "eth0", "down") }, func() { s.Run(t, "ip", "link", "set", "eth0", "up") }},
	} {
		c.down()
		c.up()
		for vs, vlan := range inside {
			soon(t, func() error {
				if r := s.on[vlan].TryRun("sh", "-c", "ping -n -c 1 -W 1 192.0.2.8 && ping -n -c 1 -W 1 2001:db8::8"); r.Code != 0 {
					return fmt.Errorf("%s, after %s: %v", vs, c.name, r)
				}
				return nil
			})
		}
		if diff := cmp.Diff(before, states()); diff != "" {
			t.Errorf("after %s (+), and before (-):\n%s", c.name, diff)
		}
	}
	awaitHostLinkLocal(t, s)
	// A larger port: the next look makes what is on it larger, a smaller one the kernel
	// makes smaller.
	defer s.Run(t, "ip", "link", "set", "eth0", "mtu", "1500")
	s.Run(t, "ip", "link", "set", "eth0", "mtu", "9000")
	for _, id := range []string{"8", "10"} {
		if got := s.look(t, id); got.State != "degraded" || !strings.Contains(strings.Join(got.Drift, "; "), "set mtu 9000 on eth0") {
			t.Errorf("with a larger port vs%s is %+v", id, got)
		}
		s.vsrun(t, "enable "+id)
		if got := s.look(t, id); got.State != "enabled" || got.Interfaces[0].MTU != 9000 {
			t.Errorf("enabled again, vs%s is %+v", id, got)
		}
	}
	s.Run(t, "ip", "link", "set", "eth0", "mtu", "1500")
	if got := s.look(t, "8"); got.State != "enabled" || got.Interfaces[0].MTU != 1500 {
		t.Errorf("with a smaller port it is %+v", got)
	}
	// Taken down or away by hand, a device of ours is put back.
	for _, c := range []struct{ by, drift string }{
		{"down", "bring up vsvlan10"}, {"alias ", "mark vsvlan10 as vsrun:vlan"}, {"", "add vlan 10 on eth0"},
	} {
		if c.by == "" {
			s.Run(t, "ip", "link", "del", "vsvlan10")
		} else {
			s.Run(t, append([]string{"ip", "link", "set", "vsvlan10"}, strings.Split(c.by, " ")...)...)
		}
		if got := s.look(t, "8"); got.State != "degraded" || !strings.Contains(strings.Join(got.Drift, "; "), c.drift) {
			t.Errorf("it lacks %q: %+v", c.drift, got)
		}
		s.vsrun(t, "enable 8 --no-probe")
		if got := s.look(t, "8"); got.State != "enabled" {
			t.Errorf("enabled again: %+v", got)
		}
	}
	if err := reach(s.on["10"], "192.0.2.8"); err != nil {
		t.Error(err)
	}
}

// awaitHostLinkLocal waits for the port's own IPv6 address, which it had before.
func awaitHostLinkLocal(t *testing.T, s *vlanSite) {
	t.Helper()
	soon(t, func() error {
		if s.Run(t, "ip", "-6", "-o", "address", "show", "dev", "eth0", "scope", "link", "-tentative") == "" {
			return fmt.Errorf("eth0 has no link-local address")
		}
		return nil
	})
}
