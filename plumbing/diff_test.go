package plumbing

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	vs8    = Place{Dir: "/run/netns", Name: "vs8"}
	mac8   = MAC{2, 0, 0, 0, 0, 8}
	modern = Features{IPv6: true, OptimisticDAD: true}
)

func prefixes(words ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, w := range words {
		list = append(list, netip.MustParsePrefix(w))
	}
	return list
}

func addrs(words ...string) []netip.Addr {
	var list []netip.Addr
	for _, w := range words {
		list = append(list, netip.MustParseAddr(w))
	}
	return list
}

// eth0 is the interface that most cases are about.
func eth0(change func(*Interface)) Network {
	i := Interface{Name: "eth0", Port: "eth1", MAC: mac8, Addresses: prefixes("192.0.2.8/24")}
	if change != nil {
		change(&i)
	}
	return Network{Interfaces: []Interface{i}}
}

// absent is a host with a port, and no namespace yet.
func absent() State {
	return State{
		Ports:    map[string]Port{"eth1": {Name: "eth1", Index: 3, MTU: 1500, Up: true}},
		Features: modern,
	}
}

// present is what eth0(nil) looks like once it is there.
func present(change func(*State)) State {
	s := absent()
	s.Namespace = Ours
	s.Links = []Link{
		{Name: "lo", Index: 1, Up: true, MTU: 65536, Alias: "vsrun:vs8"},
		{Name: "eth0", Index: 2, form: form{Kind: Macvlan, Mode: Bridge}, Parent: 3, MAC: mac8, MTU: 1500, Up: true, Alias: "vsrun:vs8/eth0"},
	}
	s.Addresses = []Address{{Dev: "eth0", Prefix: netip.MustParsePrefix("192.0.2.8/24")}}
	s.Sysctls = map[string]string{}
	for _, c := range serverSysctls {
		s.Sysctls[c.key] = c.value
	}
	if change != nil {
		change(&s)
	}
	return s
}

const (
	sysctl4 = "net.ipv4.ip_forward=0 net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2 net.ipv4.conf.all.rp_filter=2 " +
		"net.ipv4.conf.all.accept_redirects=0 net.ipv4.conf.all.accept_source_route=0 net.ipv4.conf.all.promote_secondaries=1 net.ipv4.conf.all.arp_notify=1 net.ipv4.conf.default.accept_redirects=0"
	sysctl6 = " net.ipv6.conf.default.disable_ipv6=0 net.ipv6.conf.default.accept_ra=0 net.ipv6.conf.default.autoconf=0 net.ipv6.conf.default.accept_redirects=0 net.ipv6.conf.default.addr_gen_mode=0 net.ipv6.conf.default.use_tempaddr=0 net.ipv6.conf.all.forwarding=0 net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.all.keep_addr_on_down=1"
	sysctlO = " net.ipv6.conf.all.optimistic_dad=1 net.ipv6.conf.all.use_optimistic=1"
)

func announced(where, dev string, mac MAC) string {
	return "# tells the segment: " + where + " on " + dev + fmt.Sprintf("\nip -n vs8 link set dev %s address %s\n", dev, mac)
}

func TestDiff(t *testing.T) {
	made := "ip netns add vs8\nip netns exec vs8 sysctl -qw " + sysctl4 + sysctl6 + sysctlO + `
ip -n vs8 link set dev lo alias vsrun:vs8
ip -n vs8 link set dev lo up
`
	link := `ip link add link eth1 name eth0 address 02:00:00:00:00:08 mtu 1500 netns vs8 type macvlan mode bridge
ip -n vs8 link set dev eth0 alias vsrun:vs8/eth0
ip -n vs8 link set dev eth0 up
`
	tests := []struct {
		name string
		want Network
		have State
		plan string
	}{{
		name: "nothing differs",
		want: eth0(nil),
		have: present(nil),
	}, {
		name: "loopback alone",
		have: absent(),
		plan: made,
	}, {
		name: "one interface with everything",
		want: func() Network {
			n := eth0(func(i *Interface) {
				i.Addresses = prefixes("192.0.2.8/24", "2001:db8::8/64")
				i.Gateways = addrs("192.0.2.1", "2001:db8::1")
			})
			n.Routes = []Route{{To: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr("192.0.2.7"), Table: 5, Metric: 50, Realm: 3}}
			return n
		}(),
		have: absent(),
		plan: made + link + `ip netns exec vs8 sysctl -qw net.ipv6.conf.all.ndisc_notify=1
# asked of the segment first: is anybody at 192.0.2.8, 2001:db8::8 on eth0?
ip -n vs8 address add 192.0.2.8/24 broadcast + dev eth0
ip -n vs8 address add 2001:db8::8/64 dev eth0 nodad
ip -n vs8 route add default via 192.0.2.1 dev eth0 proto 118
ip -n vs8 route add ::/0 via 2001:db8::1 dev eth0 proto 118
ip -n vs8 route add 198.51.100.0/24 via 192.0.2.7 dev eth0 table 5 metric 50 realm 3 proto 118
` + announced("192.0.2.8, 2001:db8::8", "eth0", mac8),
	}, {
		name: "a gateway beside what routers say",
		want: eth0(func(i *Interface) { i.RA, i.Gateways = true, addrs("fe80::1") }),
		have: present(func(s *State) { s.Links[1].RA, s.Links[1].Defrtr = true, true }),
		plan: "ip netns exec vs8 sysctl -qw net/ipv6/conf/eth0/accept_ra_defrtr=0\nip -n vs8 route add ::/0 via fe80::1 dev eth0 proto 118\n",
	}, {
		name: "routers' gateway again",
		want: eth0(func(i *Interface) { i.RA = true }),
		have: present(func(s *State) { s.Links[1].RA = true }),
		plan: "ip netns exec vs8 sysctl -qw net/ipv6/conf/eth0/accept_ra_defrtr=1\n",
	}, {
		name: "the second interface's gateway gives way",
		want: Network{Interfaces: []Interface{
			{Name: "eth0", Port: "eth1", MAC: mac8, Addresses: prefixes("192.0.2.8/24", "2001:db8::8/64"), Gateways: addrs("192.0.2.1", "2001:db8::1")},
			{Name: "lan", Port: "eth1", MAC: MAC{2, 9}, MTU: 1400, Addresses: prefixes("203.0.113.8/31", "2001:db8:1::8/64"), Gateways: addrs("203.0.113.9", "fe80::1")},
		}},
		have: present(func(s *State) {
			s.Addresses = append(s.Addresses, Address{Dev: "eth0", Prefix: netip.MustParsePrefix("2001:db8::8/64")})
		}),
		plan: `ip link add link eth1 name lan address 02:09:00:00:00:00 mtu 1400 netns vs8 type macvlan mode bridge
ip -n vs8 link set dev lan alias vsrun:vs8/lan
ip -n vs8 link set dev lan up
# asked of the segment first: is anybody at 203.0.113.8, 2001:db8:1::8 on lan?
ip -n vs8 address add 203.0.113.8/31 dev lan
ip -n vs8 address add 2001:db8:1::8/64 dev lan nodad
ip -n vs8 route add default via 192.0.2.1 dev eth0 proto 118
ip -n vs8 route add ::/0 via 2001:db8::1 dev eth0 proto 118
ip -n vs8 route add default via 203.0.113.9 dev lan metric 100 proto 118
ip -n vs8 route add ::/0 via fe80::1 dev lan metric 1124 proto 118
ip -n vs8 route add 192.0.2.0/24 dev eth0 src 192.0.2.8 table 118001 proto 118
ip -n vs8 route add default via 192.0.2.1 dev eth0 table 118001 proto 118
ip -n vs8 route add 203.0.113.8/31 dev lan src 203.0.113.8 table 118002 proto 118
ip -n vs8 route add default via 203.0.113.9 dev lan table 118002 proto 118
ip -n vs8 route add 2001:db8::/64 dev eth0 table 118001 proto 118
ip -n vs8 route add ::/0 via 2001:db8::1 dev eth0 table 118001 proto 118
ip -n vs8 route add 2001:db8:1::/64 dev lan table 118002 proto 118
ip -n vs8 route add ::/0 via fe80::1 dev lan table 118002 proto 118
ip -n vs8 rule add from 192.0.2.8/32 lookup 118001 priority 1180 protocol 118
ip -n vs8 rule add from 203.0.113.8/32 lookup 118002 priority 1180 protocol 118
ip -n vs8 -6 rule add from 2001:db8::8/128 lookup 118001 priority 1180 protocol 118
ip -n vs8 -6 rule add from 2001:db8:1::8/128 lookup 118002 priority 1180 protocol 118
` + announced("203.0.113.8, 2001:db8:1::8", "lan", MAC{2, 9}),
	}, {
		name: "an address changes: the new one comes before the old one goes",
		want: eth0(func(i *Interface) { i.Addresses = prefixes("192.0.2.9/24") }),
		have: present(nil),
		plan: `# asked of the segment first: is anybody at 192.0.2.9 on eth0?
ip -n vs8 address add 192.0.2.9/24 broadcast + dev eth0
ip -n vs8 address delete 192.0.2.8/24 dev eth0
` + announced("192.0.2.9", "eth0", mac8),
	}, {
		name: "a gateway changes: the route is replaced",
		want: eth0(func(i *Interface) { i.Gateways = addrs("192.0.2.2") }),
		have: present(func(s *State) {
			s.Routes = []Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1"), Dev: "eth0"}}
		}),
		plan: "ip -n vs8 route replace default via 192.0.2.2 dev eth0 proto 118\n",
	}, {
		name: "a route goes",
		want: eth0(nil),
		have: present(func(s *State) {
			s.Routes = []Route{{To: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr("192.0.2.7"), Dev: "eth0"}}
		}),
		plan: "ip -n vs8 route delete 198.51.100.0/24 via 192.0.2.7 dev eth0 proto 118\n",
	}, {
		name: "an IPv6 route goes, and not the one with another metric",
		want: func() Network {
			n := eth0(nil)
			n.Routes = []Route{{To: netip.MustParsePrefix("2001:db8:7::/48"), Dev: "eth0", Metric: 50}}
			return n
		}(),
		have: present(func(s *State) {
			to := netip.MustParsePrefix("2001:db8:7::/48")
			s.Routes = []Route{{To: to, Dev: "eth0", Metric: 50}, {To: to, Dev: "eth0"}}
		}),
		plan: "ip -n vs8 route delete 2001:db8:7::/48 dev eth0 metric 1024 proto 118\n",
	}, {
		name: "drift of every kind",
		want: eth0(nil),
		have: present(func(s *State) {
			s.Sysctls["net.ipv4.ip_forward"] = "1"
			s.Links[0].Up = false
			s.Links[1].Up = false
			s.Links[1].MTU = 1300
			s.Addresses = nil
		}),
		plan: `ip netns exec vs8 sysctl -qw net.ipv4.ip_forward=0
ip -n vs8 link set dev lo up
ip -n vs8 link set dev eth0 mtu 1500
ip -n vs8 link set dev eth0 up
# asked of the segment first: is anybody at 192.0.2.8 on eth0?
ip -n vs8 address add 192.0.2.8/24 broadcast + dev eth0
` + announced("192.0.2.8", "eth0", mac8),
	}, {
		name: "another MAC: the interface is made anew, and all on it",
		want: eth0(func(i *Interface) { i.MAC = MAC{2, 7} }),
		have: present(func(s *State) {
			s.Routes = []Route{{To: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr("192.0.2.7"), Dev: "eth0"}}
		}),
		plan: `ip -n vs8 route delete 198.51.100.0/24 via 192.0.2.7 dev eth0 proto 118
ip -n vs8 address delete 192.0.2.8/24 dev eth0
ip -n vs8 link set dev eth0 down
ip -n vs8 link delete dev eth0
ip link add link eth1 name eth0 address 02:07:00:00:00:00 mtu 1500 netns vs8 type macvlan mode bridge
ip -n vs8 link set dev eth0 alias vsrun:vs8/eth0
ip -n vs8 link set dev eth0 up
# asked of the segment first: is anybody at 192.0.2.8 on eth0?
ip -n vs8 address add 192.0.2.8/24 broadcast + dev eth0
` + announced("192.0.2.8", "eth0", MAC{2, 7}),
	}, {
		name: "an IPv6 address with another prefix length has to go first",
		want: eth0(func(i *Interface) { i.Addresses = prefixes("192.0.2.8/24", "2001:db8::8/48") }),
		have: present(func(s *State) {
			s.Addresses = append(s.Addresses, Address{Dev: "eth0", Prefix: netip.MustParsePrefix("2001:db8::8/64")})
		}),
		plan: `ip -n vs8 address delete 2001:db8::8/64 dev eth0
# asked of the segment first: is anybody at 2001:db8::8 on eth0?
ip -n vs8 address add 2001:db8::8/48 dev eth0 nodad
` + announced("2001:db8::8", "eth0", mac8),
	}, {
		name: "a port that is down, gone or has another name does not matter to what is there",
		want: eth0(nil),
		have: present(func(s *State) { s.Ports = nil }),
	}, {
		name: "nor does it while down",
		want: eth0(nil),
		have: present(port(func(p *Port) { p.Up = false })),
	}, {
		name: "what is not ours stays",
		want: eth0(nil),
		have: present(func(s *State) {
			s.Links = append(s.Links, Link{Name: "veth7", Index: 3, form: form{Kind: "veth"}, Up: true})
			s.Addresses = append(s.Addresses, Address{Dev: "veth7", Prefix: netip.MustParsePrefix("203.0.113.1/24")})
		}),
	}, {
		name: "one made before a crash and not marked yet is ours",
		want: eth0(nil),
		have: present(func(s *State) { s.Links[1].Alias = "" }),
		plan: "ip -n vs8 link set dev eth0 alias vsrun:vs8/eth0\n",
	}, {
		name: "a kernel without IPv6",
		want: eth0(nil),
		have: func() State { s := absent(); s.Features = Features{}; return s }(),
		plan: "ip netns add vs8\nip netns exec vs8 sysctl -qw " + sysctl4 + `
ip -n vs8 link set dev lo alias vsrun:vs8
ip -n vs8 link set dev lo up
` + link + `# asked of the segment first: is anybody at 192.0.2.8 on eth0?
ip -n vs8 address add 192.0.2.8/24 broadcast + dev eth0
` + announced("192.0.2.8", "eth0", mac8),
	}, {
		name: "a kernel without optimistic detection",
		want: eth0(func(i *Interface) { i.Addresses = prefixes("192.0.2.8/24", "2001:db8::8/64") }),
		have: present(func(s *State) { s.Features.OptimisticDAD = false }),
		plan: `# asked of the segment first: is anybody at 2001:db8::8 on eth0?
ip -n vs8 address add 2001:db8::8/64 dev eth0 nodad
` + announced("2001:db8::8", "eth0", mac8),
	}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
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

func TestDiffRefuses(t *testing.T) {
	tests := []struct {
		name      string
		want      Network
		change    func(*State)
		err, cure string
	}{
		{"no such port", eth0(nil), func(s *State) { s.Ports, s.HostLinks = nil, []string{"eth2", "eth3"} }, "no port eth1 on this host", "ports here: eth2, eth3"},
		{"port down", eth0(nil), port(func(p *Port) { p.Up = false }), "port eth1 is down", "bring it up: ip link set eth1 up"},
		{"bond member", eth0(nil), port(func(p *Port) { p.Master, p.MasterKind = "bond0", "bond" }), "eth1 is a member of bond bond0", "use --port bond0"},
		{"loopback", eth0(nil), port(func(p *Port) { p.Loopback = true }), "port eth1 is the loopback: nothing can sit on it", "use a device that leads to a network"},
		{"no Ethernet", eth0(nil), port(func(p *Port) { p.NoEthernet = true }), "port eth1 is not Ethernet: no macvlan can sit on it", "use kind device, or a port that has MACs: a NIC, a bond, a bridge"},
		{"mtu above the port's", eth0(func(i *Interface) { i.MTU = 9000 }), nil, "mtu 9000 of eth0 is above 1500, the mtu of port eth1", "raise the port's: ip link set eth1 mtu 9000"},
		{"macvlan as port", eth0(nil), port(func(p *Port) { p.Kind = "macvlan" }), "port eth1 is a macvlan itself", "use the device below it: ip link show eth1"},
		{"the host's own address", eth0(nil), port(func(p *Port) { p.Addresses = addrs("192.0.2.8") }), "address 192.0.2.8 is this host's own, on eth1", "choose another, or take it from the host first"},
		{"a port that the host would lose", eth0(func(i *Interface) { i.MAC, i.Mode = MAC{}, Passthru }), port(func(p *Port) { p.Addresses = addrs("fe80::1", "192.0.2.1") }), "the host has addresses on eth1: 192.0.2.1", "if the host can do without them: ip address flush dev eth1 scope global"},
		{"a small port", eth0(func(i *Interface) { i.Addresses = prefixes("2001:db8::8/64") }), port(func(p *Port) { p.MTU = 1000 }), "mtu 1000 of port eth1 is too small for IPv6", "raise the port's: ip link set eth1 mtu 1280"},
		{"no IPv6", eth0(func(i *Interface) { i.Addresses = prefixes("2001:db8::8/64") }), func(s *State) { s.Features = Features{} }, "this kernel has no IPv6", "boot without ipv6.disable=1, or leave the IPv6 addresses out"},
		{"foreign namespace", eth0(nil), func(s *State) { s.Namespace = Foreign }, "/run/netns/vs8 is a network namespace of somebody else's", "choose another id, or remove it: ip netns delete vs8"},
		{"foreign device", eth0(nil), func(s *State) {
			*s = present(func(s *State) { s.Links[1] = Link{Name: "eth0", form: form{Kind: "veth"}} })
		}, "vs8 already has a device eth0 of somebody else's", "give the interface another name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			have := absent()
			if tt.change != nil {
				tt.change(&have)
			}
			_, err := Diff(vs8, tt.want, have)
			refusal, ok := err.(*Refusal)
			if !ok || refusal.Error() != tt.err || refusal.Hint() != tt.cure {
				t.Errorf("got %#v, want %q with the cure %q", err, tt.err, tt.cure)
			}
		})
	}
}

func port(change func(*Port)) func(*State) {
	return func(s *State) {
		p := s.Ports["eth1"]
		change(&p)
		s.Ports["eth1"] = p
	}
}

func TestRemoval(t *testing.T) {
	have := present(func(s *State) {
		s.Links = append(s.Links, Link{Name: "lan", form: form{Kind: Macvlan}, Alias: "vsrun:vs8/lan"}, Link{Name: "veth7", form: form{Kind: "veth"}})
	})
	want := `ip netns exec vs8 ss -K >/dev/null
ip -n vs8 link set dev lan down
ip -n vs8 link set dev eth0 down
ip netns delete vs8
`
	if d := cmp.Diff(want, Removal(have).Script(vs8)); d != "" {
		t.Errorf("the plan (-want +got):\n%s", d)
	}
	for _, s := range []State{{}, {Namespace: Foreign}} {
		if plan := Removal(s); len(plan) > 0 {
			t.Errorf("%v is to be removed by %v", s, plan)
		}
	}
}

// Elsewhere than in /run/netns iproute2 cannot be told a name.
func TestScriptElsewhere(t *testing.T) {
	place := Place{Dir: "/srv/my netns", Name: "vs8"}
	plan, err := Diff(place, eth0(nil), absent())
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"mkdir -p '/srv/my netns' && touch '/srv/my netns/vs8' && unshare --net='/srv/my netns/vs8' true",
		"netns '/srv/my netns/vs8' type macvlan",
		"nsenter --net='/srv/my netns/vs8' ip link set dev eth0 up",
		"nsenter --net='/srv/my netns/vs8' sysctl -qw ",
	} {
		if !strings.Contains(plan.Script(place), line) {
			t.Errorf("%q is missing in\n%s", line, plan.Script(place))
		}
	}
}

// Undoing a plan from the back takes back each step of it.
func TestReversed(t *testing.T) {
	plan, err := Diff(vs8, eth0(func(i *Interface) { i.MTU, i.Gateways = 1400, addrs("192.0.2.1") }), present(func(s *State) {
		s.Sysctls["net.ipv4.ip_forward"] = "1"
		s.Addresses = nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := `ip -n vs8 link set dev eth0 mtu 1500
ip -n vs8 route delete default via 192.0.2.1 dev eth0 proto 118
ip -n vs8 address delete 192.0.2.8/24 dev eth0
ip netns exec vs8 sysctl -qw net.ipv4.ip_forward=1
`
	if d := cmp.Diff(want, plan.reversed().Script(vs8)); d != "" {
		t.Errorf("the undoing (-want +got):\n%s", d)
	}
}
