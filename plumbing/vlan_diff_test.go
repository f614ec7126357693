package plumbing

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tagged is eth0, on a VLAN.
func tagged(kind Kind, ids ...int) Network {
	return eth0(func(i *Interface) { i.VLAN, i.Kind = ids, kind })
}

// vlan10 is the host's device for VLAN 10 of eth1, as we make it.
var vlan10 = Port{Name: "vsvlan10", Index: 7, MTU: 1500, Up: true, Ours: true, Alias: "vsrun:vlan", Kind: "vlan"}

// beside is a host with that device, and perhaps others.
func beside(change func(map[string]Port)) State {
	s := absent()
	s.Ports["eth1/10"] = vlan10
	if change != nil {
		change(s.Ports)
	}
	return s
}

// inside is a namespace with eth0 on a device of the host's.
func inside(s State, change func(*Link)) State {
	p := present(nil)
	s.Namespace, s.Links, s.Addresses, s.Sysctls = p.Namespace, p.Links, p.Addresses, p.Sysctls
	change(&s.Links[1])
	return s
}

func altered(name string, change func(*Port)) func(map[string]Port) {
	return func(all map[string]Port) {
		p := all[name]
		change(&p)
		all[name] = p
	}
}

const (
	madeVLAN10 = `ip link add link eth1 name vsvlan10 group 118 type vlan protocol 802.1Q id 10 loose_binding on
ip link property add dev vsvlan10 altname vsrun-eth1.10
sysctl -qw net.ipv4.conf.vsvlan10.rp_filter=1 net.ipv6.conf.vsvlan10.disable_ipv6=1
ip link set dev vsvlan10 arp off up
ip link set dev vsvlan10 alias vsrun:vlan
`
	madeServer = "ip netns add vs8\nip netns exec vs8 sysctl -qw " + sysctl4 + sysctl6 + sysctlO + `
ip -n vs8 link set dev lo alias vsrun:vs8
ip -n vs8 link set dev lo up
`
	marked = `ip -n vs8 link set dev eth0 alias vsrun:vs8/eth0
ip -n vs8 link set dev eth0 up
# asked of the segment first: is anybody at 192.0.2.8 on eth0?
ip -n vs8 address add 192.0.2.8/24 broadcast + dev eth0
`
	unmade = `ip -n vs8 address delete 192.0.2.8/24 dev eth0
ip -n vs8 link set dev eth0 down
ip -n vs8 link delete dev eth0
`
)

func macvlanOn(port string) string {
	return "ip link add link " + port + " name eth0 address 02:00:00:00:00:08 mtu 1500 netns vs8 type macvlan mode bridge\n"
}

func TestDiffOfVLANs(t *testing.T) {
	announces := announced("192.0.2.8", "eth0", mac8)
	tests := []struct {
		name string
		want Network
		have State
		plan string
	}{{
		name: "the VLAN comes before what is on it, and is silent before it is up",
		want: tagged("", 10),
		have: absent(),
		plan: madeServer + madeVLAN10 + macvlanOn("vsvlan10") + marked + announces,
	}, {
		name: "one that is there is shared",
		want: tagged("", 10),
		have: beside(nil),
		plan: madeServer + macvlanOn("vsvlan10") + marked + announces,
	}, {
		name: "nothing differs",
		want: tagged("", 10),
		have: inside(beside(nil), func(l *Link) { l.Parent = 7 }),
	}, {
		name: "two interfaces on one VLAN: it is made once",
		want: func() Network {
			n := tagged("", 10)
			n.Interfaces = append(n.Interfaces, Interface{Name: "lan", Port: "eth1", VLAN: VLAN{10}, MAC: MAC{2, 9}})
			return n
		}(),
		have: absent(),
		plan: madeServer + madeVLAN10 + macvlanOn("vsvlan10") + `ip -n vs8 link set dev eth0 alias vsrun:vs8/eth0
ip -n vs8 link set dev eth0 up
ip link add link vsvlan10 name lan address 02:09:00:00:00:00 mtu 1500 netns vs8 type macvlan mode bridge
ip -n vs8 link set dev lan alias vsrun:vs8/lan
ip -n vs8 link set dev lan up
# asked of the segment first: is anybody at 192.0.2.8 on eth0?
ip -n vs8 address add 192.0.2.8/24 broadcast + dev eth0
` + announces,
	}, {
		name: "an operator's own is used, and not touched",
		want: tagged("", 10),
		have: beside(altered("eth1/10", func(p *Port) { *p = Port{Name: "eth1.10", Index: 7, MTU: 1400, Up: true, Kind: "vlan"} })),
		plan: madeServer + "ip link add link eth1.10 name eth0 address 02:00:00:00:00:08 mtu 1400 netns vs8 type macvlan mode bridge\n" + marked + announces,
	}, {
		name: "one inside another",
		want: tagged("", 100, 10),
		have: absent(),
		plan: madeServer + `ip link add link eth1 name vsvlan100 group 118 type vlan protocol 802.1ad id 100 loose_binding on
ip link property add dev vsvlan100 altname vsrun-eth1.ad100
sysctl -qw net.ipv4.conf.vsvlan100.rp_filter=1 net.ipv6.conf.vsvlan100.disable_ipv6=1
ip link set dev vsvlan100 arp off up
ip link set dev vsvlan100 alias vsrun:vlan
ip link add link vsvlan100 name vsvlan10 group 118 type vlan protocol 802.1Q id 10 loose_binding on
ip link property add dev vsvlan10 altname vsrun-eth1.ad100.10
sysctl -qw net.ipv4.conf.vsvlan10.rp_filter=1 net.ipv6.conf.vsvlan10.disable_ipv6=1
ip link set dev vsvlan10 arp off up
ip link set dev vsvlan10 alias vsrun:vlan
` + macvlanOn("vsvlan10") + marked + announces,
	}, {
		name: "inside an operator's, and beside the VLAN of the same number",
		want: tagged("", 100, 10),
		have: beside(func(all map[string]Port) {
			all["eth1/ad100"] = Port{Name: "isp", Index: 8, MTU: 1496, Up: true, Kind: "vlan"}
		}),
		plan: madeServer + `ip link add link isp name vsvlan10-2 group 118 type vlan protocol 802.1Q id 10 loose_binding on
ip link property add dev vsvlan10-2 altname vsrun-eth1.ad100.10
sysctl -qw net.ipv4.conf.vsvlan10-2.rp_filter=1 net.ipv6.conf.vsvlan10-2.disable_ipv6=1
ip link set dev vsvlan10-2 arp off up
ip link set dev vsvlan10-2 alias vsrun:vlan
ip link add link vsvlan10-2 name eth0 address 02:00:00:00:00:08 mtu 1496 netns vs8 type macvlan mode bridge
` + marked + announces,
	}, {
		name: "kind vlan: nothing is on the host",
		want: tagged(Vlan, 10),
		have: absent(),
		plan: madeServer + "ip link add link eth1 name eth0 address 02:00:00:00:00:08 mtu 1500 netns vs8 arp on type vlan protocol 802.1Q id 10 loose_binding on\n" + marked + announces,
	}, {
		name: "kind vlan, and nothing differs",
		want: tagged(Vlan, 10),
		have: inside(absent(), func(l *Link) { l.Kind, l.Mode, l.tag = Vlan, "", lowers("eth1", VLAN{10})[0].tag }),
	}, {
		name: "kind vlan inside another: the outer one can be shared",
		want: tagged(Vlan, 100, 10),
		have: beside(func(all map[string]Port) {
			all["eth1/ad100"] = Port{Name: "vsvlan100", Index: 8, MTU: 1500, Up: true, Kind: "vlan", Ours: true, Alias: vlanMark}
		}),
		plan: madeServer + "ip link add link vsvlan100 name eth0 address 02:00:00:00:00:08 mtu 1500 netns vs8 arp on type vlan protocol 802.1Q id 10 loose_binding on\n" + marked + announces,
	}, {
		name: "ours was made and no more: it is completed",
		want: tagged("", 10),
		have: beside(altered("eth1/10", func(p *Port) { p.Up, p.Alias = false, "" })),
		plan: madeServer + madeVLAN10[len("ip link add link eth1 name vsvlan10 group 118 type vlan protocol 802.1Q id 10 loose_binding on\n"):] +
			macvlanOn("vsvlan10") + marked + announces,
	}, {
		name: "ours is down",
		want: tagged("", 10),
		have: inside(beside(altered("eth1/10", func(p *Port) { p.Up = false })), func(l *Link) { l.Parent = 7 }),
		plan: "ip link set dev vsvlan10 arp off up\n",
	}, {
		name: "the host has IPv6 on ours, as after `sysctl net.ipv6.conf.all.disable_ipv6=0`",
		want: tagged("", 10),
		have: inside(beside(altered("eth1/10", func(p *Port) { p.Loud = true })), func(l *Link) { l.Parent = 7 }),
		plan: `sysctl -qw net.ipv4.conf.vsvlan10.rp_filter=1 net.ipv6.conf.vsvlan10.disable_ipv6=1
ip link set dev vsvlan10 arp off up
`,
	}, {
		name: "the port carries more by now: the VLAN first",
		want: tagged("", 10),
		have: inside(beside(altered("eth1", func(p *Port) { p.MTU = 9000 })), func(l *Link) { l.Parent = 7 }),
		plan: "ip link set dev vsvlan10 mtu 9000\nip -n vs8 link set dev eth0 mtu 9000\n",
	}, {
		name: "an operator's carries less than its port: that is his",
		want: tagged("", 10),
		have: inside(beside(altered("eth1/10", func(p *Port) { p.Ours, p.MTU, p.Alias = false, 1400, "" })), func(l *Link) { l.Parent, l.MTU = 7, 1400 }),
	}, {
		name: "another VLAN: the new one comes before the interface leaves the old one",
		want: tagged("", 20),
		have: inside(absent(), func(l *Link) { l.Parent = 7 }),
		plan: `ip link add link eth1 name vsvlan20 group 118 type vlan protocol 802.1Q id 20 loose_binding on
ip link property add dev vsvlan20 altname vsrun-eth1.20
sysctl -qw net.ipv4.conf.vsvlan20.rp_filter=1 net.ipv6.conf.vsvlan20.disable_ipv6=1
ip link set dev vsvlan20 arp off up
ip link set dev vsvlan20 alias vsrun:vlan
# asked of the segment first: is anybody at 192.0.2.8 on vsvlan20?
ip -n vs8 link set dev eth0 down
ip -n vs8 link set dev eth0 name 'eth0~'
` + strings.Replace(macvlanOn("vsvlan20")+marked, "# asked of the segment first: is anybody at 192.0.2.8 on eth0?\n", "", 1) + `ip -n vs8 address delete 192.0.2.8/24 dev 'eth0~'
` + announced("192.0.2.8", "eth0", mac8) + "ip -n vs8 link delete dev 'eth0~'\n" + announced("192.0.2.8", "eth0", mac8),
	}, {
		name: "from kind vlan to macvlan: the VLAN is free before it is made again",
		want: tagged("", 10),
		have: inside(absent(), func(l *Link) { l.Kind, l.Mode, l.tag = Vlan, "", lowers("eth1", VLAN{10})[0].tag }),
		plan: unmade + madeVLAN10 + macvlanOn("vsvlan10") + marked + announces,
	}, {
		name: "the VLAN was deleted on the host, and the interface with it",
		want: tagged("", 10),
		have: inside(absent(), func(l *Link) { *l = Link{} }),
		plan: madeVLAN10 + macvlanOn("vsvlan10") + marked + announces,
	}, {
		name: "the port is gone or has another name: what is there stays",
		want: tagged("", 10),
		have: inside(State{Features: modern}, func(l *Link) { l.Parent = 7 }),
	}, {
		name: "a kernel without IPv6",
		want: tagged("", 10),
		have: inside(func() State { s := absent(); s.Features = Features{}; return s }(), func(l *Link) { *l = Link{} }),
		plan: `ip link add link eth1 name vsvlan10 group 118 type vlan protocol 802.1Q id 10 loose_binding on
ip link property add dev vsvlan10 altname vsrun-eth1.10
sysctl -qw net.ipv4.conf.vsvlan10.rp_filter=1
ip link set dev vsvlan10 arp off up
ip link set dev vsvlan10 alias vsrun:vlan
` + macvlanOn("vsvlan10") + marked + announces,
	}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if l := &tt.have.Links; len(*l) > 1 && (*l)[1].Name == "" { // eth0 is gone
				*l, tt.have.Addresses = (*l)[:1], nil
			}
			plan, err := Diff(vs8, tt.want, tt.have)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.plan, plan.Script(vs8)); d != "" {
				t.Errorf("the plan (-want +got):\n%s", d)
			}
		})
	}
}

func TestDiffOfVLANsRefuses(t *testing.T) {
	operators := func(change func(*Port)) State {
		return beside(altered("eth1/10", func(p *Port) {
			*p = Port{Name: "eth1.10", Index: 7, MTU: 1500, Up: true, Kind: "vlan"}
			change(p)
		}))
	}
	tests := []struct {
		name      string
		want      Network
		have      State
		err, cure string
	}{
		{"no such port", tagged("", 10), State{HostLinks: []string{"eth2"}}, "no port eth1 on this host", "ports here: eth2"},
		{"a VLAN as others name it", eth0(func(i *Interface) { i.Port = "eth1.10" }), State{HostLinks: []string{"eth1"}},
			"no port eth1.10 on this host", "for vlan 10 of eth1: --port eth1 --vlan 10"},
		{"one that no VLAN is like", eth0(func(i *Interface) { i.Port = "eth1.4095" }), State{HostLinks: []string{"eth1"}},
			"no port eth1.4095 on this host", "ports here: eth1"},
		{"the port is down", tagged("", 10), beside(altered("eth1", func(p *Port) { p.Up = false })),
			"port eth1 is down", "bring it up: ip link set eth1 up"},
		{"the port is a member", tagged("", 10), beside(altered("eth1", func(p *Port) { p.Master, p.MasterKind = "bond0", "bond" })),
			"eth1 is a member of bond bond0", "use --port bond0"},
		{"the loopback", tagged("", 10), beside(altered("eth1", func(p *Port) { p.Loopback = true })),
			"port eth1 is the loopback: nothing can sit on it", "use a device that leads to a network"},
		{"an operator's VLAN is down", tagged("", 10), operators(func(p *Port) { p.Up = false }),
			"port eth1.10 is down", "bring it up: ip link set eth1.10 up"},
		{"an operator's VLAN is in a bridge", tagged("", 10), operators(func(p *Port) { p.Master, p.MasterKind = "br0", "bridge" }),
			"eth1.10 is a member of bridge br0", "use --port br0"},
		{"the host's own address on it", tagged("", 10), operators(func(p *Port) { p.Addresses = addrs("192.0.2.8") }),
			"address 192.0.2.8 is this host's own, on eth1.10", "choose another, or take it from the host first"},
		{"kind vlan of an operator's", tagged(Vlan, 10), operators(func(*Port) {}),
			"vlan 10 of port eth1 is in use on this host, as eth1.10", "share it: leave --kind out"},
		{"kind vlan of one that is shared", tagged(Vlan, 10), beside(nil),
			"vlan 10 of port eth1 is in use on this host, as vsvlan10", "share it: leave --kind out; or disable the virtual servers that are on it first"},
		{"our own as the port", tagged("", 10), beside(func(all map[string]Port) { all["eth1"] = vlan10 }),
			"port eth1 is vsrun's own, and goes when nobody uses it", "name the port and the VLAN: --port P --vlan V"},
		{"mtu above the port's", eth0(func(i *Interface) { i.VLAN, i.MTU = VLAN{10}, 9000 }), absent(),
			"mtu 9000 of eth0 is above 1500, the mtu of port eth1", "raise the port's: ip link set eth1 mtu 9000"},
		{"mtu above that of an operator's", eth0(func(i *Interface) { i.VLAN, i.MTU = VLAN{10}, 1500 }), operators(func(p *Port) { p.MTU = 1400 }),
			"mtu 1500 of eth0 is above 1400, the mtu of port eth1.10", "raise the port's: ip link set eth1.10 mtu 1500"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Diff(vs8, tt.want, tt.have)
			refusal, ok := err.(*Refusal)
			if !ok || refusal.Error() != tt.err || refusal.Hint() != tt.cure {
				t.Errorf("got %#v, want %q with the cure %q", err, tt.err, tt.cure)
			}
		})
	}
}

// What several may use by now is not taken back from them.
func TestVLANsAreNotUndone(t *testing.T) {
	for _, have := range []State{
		absent(),
		beside(altered("eth1/10", func(p *Port) { p.Up, p.Alias = false, "" })),
		beside(altered("eth1", func(p *Port) { p.MTU = 9000 })),
	} {
		_, plan := withVLANs(tagged("", 10), have)
		if len(plan) == 0 {
			t.Error("there is nothing to do")
		}
		for _, s := range plan {
			if u := s.undo(); u != nil {
				t.Errorf("%s is undone: %s", s, u)
			}
		}
	}
}

func TestRemovalOfVLAN(t *testing.T) {
	have := inside(absent(), func(l *Link) { l.form = form{Kind: Vlan} })
	want := "ip netns exec vs8 ss -K >/dev/null\nip -n vs8 link delete dev eth0\nip netns delete vs8\n"
	if d := cmp.Diff(want, Removal(have).Script(vs8)); d != "" {
		t.Errorf("the plan (-want +got):\n%s", d)
	}
}
