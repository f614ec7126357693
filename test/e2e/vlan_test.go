package e2e_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

// A vlanSite is a host with two ports on two segments, and clients on their VLANs. It
// is one for all tests here: making it takes longer than most of them.
type vlanSite struct {
	*site
	near, far *lab.Segment           // of eth0, and of longPort
	on        map[string]*lab.Client // by VLAN of the near one; "far" on VLAN 10 of the other
	before    string                 // what iproute2 says of the host
}

const (
	longPort  = "a-port-of-15-by"
	longPort2 = "b-port-of-15-by"
)

func TestVLAN(t *testing.T) {
	lab.Require(t, "kind:vlan")
	h := bareHost(t)
	s := &vlanSite{site: &site{Host: h}, on: map[string]*lab.Client{}}
	var plugs []lab.Plug
	for _, vlan := range []string{"", "10", "20", "30", "100.10", "100.20"} {
		plugs = append(plugs, lab.Plug{Name: "on" + vlan, VLAN: vlan, Addresses: []string{"192.0.2.100/24", "2001:db8::100/64"}})
	}
	h.Together(func() {
		s.near, s.far = h.Segment("eth0"), h.Segment(longPort, longPort2)
		for k, c := range s.near.Clients(plugs...) {
			s.on[plugs[k].VLAN] = c
		}
		plugs[1].Name = "far"
		s.on["far"] = s.far.Clients(plugs[1])[0]
	})
	s.seg, s.client = s.near, s.on["10"]
	s.before = s.devices(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *vlanSite)
	}{
		{"example", vlanExample},
		{"networks", vlanNetworks},
		{"apart", vlanApart},
		{"silent host", vlanSilentHost},
		{"reverse", vlanReverse},
		{"operators", vlanOperators},
		{"taken into use", vlanTakenIntoUse},
		{"names", vlanNames},
		{"follows port", vlanFollowsPort},
		{"at once", vlanAtOnce},
		{"fifty", vlanFifty},
		{"come and go", vlanComeAndGo},
		{"killed", vlanKilled},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Cleanup(func() { s.vsrun(t, "destroy --all"); s.isAsBefore(t) })
			c.test(t, s)
		})
	}
	if leaks := s.Leaks(); leaks != "" {
		t.Errorf("they leave\n%s", leaks)
	}
}

// isAsBefore fails when the host is not as it was before the first virtual server.
func (s *vlanSite) isAsBefore(t *testing.T) {
	t.Helper()
	if diff := cmp.Diff(s.before, s.devices(t)); diff != "" {
		t.Errorf("the host before (-) and after (+) differ:\n%s", diff)
	}
}

// vsrun runs a command line; its words have no spaces.
func (s *vlanSite) vsrun(t *testing.T, line string) string {
	t.Helper()
	return s.MustVsrun(t, strings.Fields(line)...)
}

// refused fails unless vsrun refuses, with these words.
func (s *vlanSite) refused(t *testing.T, line, words string) {
	t.Helper()
	if r := s.Vsrun(strings.Fields(line)...); r.Code != 1 || !strings.Contains(r.Stderr, words) {
		t.Errorf("%v\nwant it refused: %s", r, words)
	}
}

// tagged fails for frames from a MAC address with other tags than these, and when
// there are none at all.
func tagged(t *testing.T, wire *lab.Capture, mac, tags string) {
	t.Helper()
	all := wire.Await(1, 10*time.Second, lab.From(mac))
	wrong := slices.DeleteFunc(slices.Clone(all), func(f lab.Frame) bool { return f.Tags() == tags })
	if len(wrong) > 0 || len(all) == 0 {
		t.Errorf("%d of %d frames from %s are not tagged %q: %v", len(wrong), len(all), mac, tags, wrong)
		return
	}
	t.Logf("%s: all of its %d frames are tagged %q", mac, len(all), tags)
}

// The customer's note, to the letter: port, VLAN, address of a /8, gateway. The name
// inside is the port's.
func vlanExample(t *testing.T, s *vlanSite) {
	const example = "create 8 --port eth0 --vlan 10 --address 11.1.1.1/8 --gateway 11.0.0.1"
	client := s.on["10"]
	client.Run(t, "ip", "address", "add", "11.0.0.1/8", "dev", "eth0")
	wire := s.near.Capture(t, "eth0")
	script := s.vsrun(t, example+" --dry-run")
	s.isAsBefore(t)
	s.vsrun(t, example)
	answer(t, s.In("vs8"), ":80", "I am 8")
	if err := reach(client, "11.1.1.1"); err != nil {
		t.Error(err)
	}
	if got, err := client.HTTPGet("http://11.1.1.1/"); err != nil || got != "I am 8" {
		t.Errorf("%q, %v", got, err)
	}
	if got := s.In("vs8").Run(t, "ip", "route"); !strings.Contains(got, "default via 11.0.0.1 dev eth0") {
		t.Errorf("its routes:\n%s", got)
	}
	tagged(t, wire, s.mac(t, "vs8", "eth0"), "10")
	want, wantHost := lab.NetState(t, "vs8"), lab.NetState(t, "")
	s.vsrun(t, "destroy 8")

	paste(t, s.Host, script)
	for name, pair := range map[string][2]string{"vs8": {want, lab.NetState(t, "vs8")}, "the host": {wantHost, lab.NetState(t, "")}} {
		if diff := cmp.Diff(pair[0], pair[1]); diff != "" {
			t.Errorf("%s: vsrun (-) and the script (+) differ:\n%s\n%s", name, diff, script)
		}
	}
	// What the script made is ours: nothing is left to do, and all of it goes.
	s.vsrun(t, example+" --no-probe")
	if r := s.Vsrun("diff", "8"); r.Code != 0 || r.Stdout != "" {
		t.Error(r)
	}
}

// vlanServers are virtual servers with the same addresses, each in another network.
var vlanServers = []struct{ id, on, where, tags string }{
	{"8", "10", "eth0 --vlan 10", "10"},
	{"9", "20", "eth0 --vlan 20", "20"},
	{"10", "100.10", "eth0 --vlan 100.10", "ad100.10"},
	{"11", "100.20", "eth0 --vlan 100.20 --kind vlan", "ad100.20"},
	{"12", "30", "eth0 --vlan 30 --kind vlan", "30"},
	{"13", "far", longPort + " --vlan 10", "10"},
	{"14", "", "eth0", ""},
}

// One port carries any number of networks, with the same addresses in each.
func vlanNetworks(t *testing.T, s *vlanSite) {
	near, far := s.near.Capture(t, "eth0"), s.far.Capture(t, longPort)
	for _, v := range vlanServers {
		probe := " --no-probe"
		if v.on == "100.10" || v.on == "30" { // somebody else has it in other networks
			probe = ""
		}
		s.vsrun(t, "create "+v.id+probe+" --address 192.0.2.8/24 --address 2001:db8::8/64 --port "+v.where)
		answer(t, s.In("vs"+v.id), ":80", "I am "+v.id)
	}
	for _, v := range vlanServers {
		for _, url := range []string{"http://192.0.2.8/", "http://[2001:db8::8]/"} {
			if got, err := s.on[v.on].HTTPGet(url); err != nil || got != "I am "+v.id {
				t.Errorf("on %s %s is %q, %v", v.on, url, got, err)
			}
		}
		wire := near
		if v.on == "far" {
			wire = far
		}
		tagged(t, wire, derived(t, "vs"+v.id, "eth0"), v.tags)
	}
	// One more on a VLAN: they are neighbours.
	for _, where := range []string{"10", "100.10"} {
		s.vsrun(t, "create 18 --no-probe --port eth0 --address 192.0.2.18/24 --address 2001:db8::18/64 --vlan "+where)
		server := map[string]string{"10": "vs8", "100.10": "vs10"}[where]
		for _, addr := range []string{"192.0.2.18", "2001:db8::18"} {
			for _, from := range []*lab.Client{s.on[where], s.In(server)} {
				if err := reach(from, addr); err != nil {
					t.Error(err)
				}
			}
		}
		s.vsrun(t, "destroy 18")
	}
	s.refused(t, "create 19 --port eth0 --address 192.0.2.8/24 --vlan 100.10", "vs10 already has address 192.0.2.8 on vlan 100.10 of port eth0\nhint: ")
	s.refused(t, "create 19 --port eth0 --address 192.0.2.9/24 --vlan 30", "vs12 already has vlan 30 of port eth0, which cannot be shared (kind vlan)\nhint: ")
	s.refused(t, "create 19 --port eth0 --address 192.0.2.9/24 --vlan 10 --kind vlan", "already has vlan 10 of port eth0, which cannot be shared (kind vlan)\nhint: ")
}

// A virtual server sees the frames of its own VLAN and no other, whomever they are
// sent to.
func vlanApart(t *testing.T, s *vlanSite) {
	q := func(id uint16) lab.Tag { return lab.Tag{ID: id} }
	ad := func(id uint16) lab.Tag { return lab.Tag{ID: id, Protocol: unix.ETH_P_8021AD} }
	type tags = []lab.Tag
	// Others on the port, so that the frames do come in.
	s.vsrun(t, "create 7 --no-probe --port eth0 --address 192.0.2.7/24 --vlan 10")
	s.vsrun(t, "create 6 --no-probe --port eth0 --address 192.0.2.6/24")
	for _, c := range []struct {
		where string
		right tags
		wrong []tags
	}{
		{"--vlan 20", tags{q(20)}, []tags{nil, {q(10)}, {q(0)}, {q(21)}, {ad(20)}, {q(10), q(20)}, {ad(10), q(20)}, {ad(100), q(20)}}},
		{"--vlan 100.20", tags{ad(100), q(20)}, []tags{nil, {q(10)}, {q(100)}, {ad(100)}, {q(20)},
			{q(100), q(20)}, {ad(100), q(10)}, {ad(101), q(20)}, {ad(100), ad(20)}}},
		{"--vlan 30 --kind vlan", tags{q(30)}, []tags{nil, {q(10)}, {q(20)}, {ad(30)}, {ad(100), q(30)}}},
	} {
		s.vsrun(t, "create 9 --no-probe --port eth0 --address 192.0.2.9/24 --address 2001:db8::9/64 "+c.where)
		mac, seen := derived(t, "vs9", "eth0"), s.In("vs9").Capture(t)
		var frames [][]byte
		for _, tags := range c.wrong {
			frames = append(frames, toEverybody(t, mac, "wrong", tags)...)
		}
		right := toEverybody(t, mac, "right", c.right)
		s.on[""].Send(t, append(frames, right...)...)
		own := func(f lab.Frame) bool {
			return f.EtherType == experimental && bytes.HasPrefix(f.Payload, []byte("right"))
		}
		got := seen.Await(len(right), 10*time.Second, own)
		if len(got) != len(right) {
			t.Errorf("%s: it sees %d of %d frames of its own VLAN", c.where, len(got), len(right))
		}
		stray := seen.Frames(func(f lab.Frame) bool { return bytes.Contains(f.Payload, []byte("wrong")) || f.VLAN >= 0 })
		if len(stray) > 0 {
			t.Errorf("%s: it sees frames of others: %v", c.where, stray)
		}
		t.Logf("%s: saw %d of %d frames that were not for its VLAN, and %d of %d that were", c.where, len(stray), len(frames), len(got), len(right))
		seen.Stop()
		s.vsrun(t, "destroy 9")
	}
}

const experimental = 0x88b5 // the local experimental EtherType 1 of IEEE 802

// toEverybody are frames from a stranger to all whom a virtual server listens to.
func toEverybody(t *testing.T, mac, text string, tags []lab.Tag) (frames [][]byte) {
	t.Helper()
	its, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	for _, dst := range [][]byte{
		{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		{0x33, 0x33, 0, 0, 0, 1}, // all IPv6 nodes
		{1, 0, 0x5e, 0, 0, 1},    // all IPv4 systems
		its,
	} {
		for range 5 {
			frames = append(frames, lab.Tagged(dst, []byte{2, 0, 0, 0, 0, 1}, experimental, append([]byte(text), make([]byte, 46)...), tags...))
		}
	}
	return frames
}

// A VLAN that is others' is not the host's: it does not answer there for its own
// addresses, says nothing, and takes nothing from a router.
func vlanSilentHost(t *testing.T, s *vlanSite) {
	client := s.on["10"]
	s.Run(t, "ip", "address", "add", "192.0.2.1/24", "dev", "eth0")
	s.Run(t, "ip", "address", "add", "2001:db8::1/64", "dev", "eth0", "nodad")
	defer s.Run(t, "ip", "address", "flush", "dev", "eth0", "scope", "global")
	defer client.Run(t, "ip", "neigh", "flush", "nud", "permanent")
	host := hostMAC(t, s, "eth0")
	wire := s.near.Capture(t, "eth0")
	s.vsrun(t, "create 8 --no-probe --port eth0 --vlan 10 --address 192.0.2.8/24 --address 2001:db8::8/64")
	if err := reach(client, "192.0.2.8"); err != nil {
		t.Error(err)
	}
	// Not even to those who know where it is.
	for _, known := range []bool{false, true} {
		ask := "ip neigh flush all"
		if known {
			ask = fmt.Sprintf("ip neigh replace 192.0.2.1 lladdr %s dev eth0; ip neigh replace 2001:db8::1 lladdr %[1]s dev eth0", host)
		}
		// The neighbours are looked at before a kernel gives up on them.
		got := client.Run(t, "sh", "-c", ask+`
			for a in 192.0.2.1 2001:db8::1; do ping -n -c 1 -W 1 $a >/dev/null && echo $a answers & done; wait; ip neigh show nud reachable`)
		for line := range strings.Lines(got) {
			if strings.Contains(line, "192.0.2.1 ") || strings.Contains(line, "2001:db8::1 ") {
				t.Errorf("the host, with its MAC known %v: %s", known, line)
			}
		}
	}
	s.on[""].Send(t, lab.Tagged([]byte{0x33, 0x33, 0, 0, 0, 1}, []byte{2, 0, 0, 0, 0, 1}, unix.ETH_P_IPV6, advertisement(), lab.Tag{ID: 10}))
	if err := reach(client, "2001:db8::8"); err != nil { // it comes after that
		t.Error(err)
	}
	device := decoded[[]struct {
		Addr_info []any
		Flags     []string
	}](t, s.Run(t, "ip", "-j", "address", "show", "dev", "vsvlan10"))[0]
	if len(device.Addr_info) > 0 || !slices.Contains(device.Flags, "NOARP") {
		t.Errorf("the host's device is %+v", device)
	}
	if routes := s.Run(t, "ip", "-6", "route", "show", "table", "all", "dev", "vsvlan10"); routes != "" {
		t.Errorf("the host has routes there:\n%s", routes)
	}
	// Nor does it answer by another way, as one that has let a question in would.
	answers := func(f lab.Frame) bool {
		return f.Tags() != "" || f.EtherType == unix.ETH_P_ARP || f.EtherType == unix.ETH_P_IP || carries("2001:db8::100")(f)
	}
	if said := wire.Frames(lab.From(host), answers); len(said) > 0 {
		t.Errorf("the host says: %v", said)
	}
	if got := s.In("vs8").Run(t, "ip", "-6", "route", "show", "default"); got != "" {
		t.Errorf("the virtual server takes routes from a router:\n%s", got)
	}
}

func hostMAC(t *testing.T, s *vlanSite, dev string) string {
	t.Helper()
	return decoded[[]struct{ Address string }](t, s.Run(t, "ip", "-j", "link", "show", "dev", dev))[0].Address
}

// advertisement is a router's, with itself as the default and a prefix for all (RFC
// 4861, 4.2 and 4.6.2).
func advertisement() []byte {
	from, to := netip.MustParseAddr("fe80::1").As16(), netip.MustParseAddr("ff02::1").As16()
	icmp := []byte{134, 0, 0, 0, 64, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0,
		3, 4, 64, 0xc0, 0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0, 0, 0}
	prefix := netip.MustParseAddr("2001:db8:bad::").As16()
	icmp = append(icmp, prefix[:]...)
	sum := uint32(len(icmp)) + unix.IPPROTO_ICMPV6
	for _, b := range [][]byte{from[:], to[:], icmp} {
		for k := 0; k < len(b); k += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[k:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(icmp[2:], ^uint16(sum))
	head := []byte{0x60, 0, 0, 0, 0, byte(len(icmp)), unix.IPPROTO_ICMPV6, 255}
	return slices.Concat(head, from[:], to[:], icmp)
}
