package plumbing

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// lan is an interface beside eth0.
func lan(words ...string) Interface {
	return Interface{Name: "lan", Port: "eth1", Addresses: prefixes(words...)}
}

// one is a network of eth0, changed, and with some routes.
func one(change func(*Interface), routes ...Route) Network {
	n := eth0(change)
	n.Routes = routes
	return n
}

func to(words string) Route { return Route{To: netip.MustParsePrefix(words), Dev: "eth0"} }

func via(to, gw string) Route {
	return Route{To: netip.MustParsePrefix(to), Via: netip.MustParseAddr(gw)}
}

var validations = []struct {
	name     string
	network  Network
	problems string // a line each
}{
	{name: "nothing"},
	{name: "everything", network: everything()},
	{name: "words left out", network: Network{Interfaces: []Interface{{Port: "eth1"}, {Name: "eth0"}}}, problems: `
interfaces[0].name: an interface has no name
interfaces[1].port: interface eth0 has no port: name the host's device it sits on`},

	// Names.
	{name: "longest names", network: one(func(i *Interface) { i.Name, i.Port = "a-name-of-15-by", "a.name-of-15_by" })},
	{name: "names too long", network: one(func(i *Interface) { i.Name, i.Port = "a-name-of-16-byt", "a.name-of-16_byt" }), problems: `
interfaces[0].name: name "a-name-of-16-byt" is 16 bytes long: the kernel's limit is 15
interfaces[0].port: name "a.name-of-16_byt" is 16 bytes long: the kernel's limit is 15`},
	{name: "bytes count, not letters", network: one(func(i *Interface) { i.Name = "ßßßßßßßß" }), problems: `
interfaces[0].name: name "ßßßßßßßß" is 16 bytes long: the kernel's limit is 15`},
	{name: "odd names", network: Network{Interfaces: []Interface{
		{Name: ".", Port: ".."}, {Name: "a/b", Port: "a b"}, {Name: "eth0:1", Port: "a\tb"}, {Name: "-a", Port: "a\x00b"}, {Name: "a\n", Port: "a\x7f"},
		{Name: "eth%d", Port: "\xff"},
	}}, problems: `
interfaces[0].name: "." cannot be a device's name
interfaces[0].port: ".." cannot be a device's name
interfaces[1].name: "a/b" cannot be a device's name
interfaces[1].port: "a b" cannot be a device's name
interfaces[2].name: "eth0:1" cannot be a device's name
interfaces[2].port: "a\tb" cannot be a device's name
interfaces[3].name: "-a" cannot be a device's name
interfaces[3].port: "a\x00b" cannot be a device's name
interfaces[4].name: "a\n" cannot be a device's name
interfaces[4].port: "a\x7f" cannot be a device's name
interfaces[5].name: "eth%d" cannot be a device's name
interfaces[5].port: "\xff" cannot be a device's name`},
	{name: "names that the kernel has taken", network: Network{Interfaces: []Interface{
		{Name: "lo", Port: "lo"}, {Name: "all", Port: "all"}, {Name: "default", Port: "default"},
	}}, problems: `
interfaces[0].name: interface name "lo" is taken by the kernel
interfaces[1].name: interface name "all" is taken by the kernel
interfaces[2].name: interface name "default" is taken by the kernel`},

	// Kind and MTU.
	{name: "kinds", network: Network{Interfaces: []Interface{
		{Name: "a", Port: "eth1", Kind: Macvlan}, {Name: "b", Port: "eth1", Kind: "macvtap"},
	}}, problems: `
interfaces[1].kind: kind "macvtap" is unknown: it is macvlan, vlan or device`},
	{name: "mtu at its bounds", network: Network{Interfaces: []Interface{
		{Name: "a", Port: "eth1", MTU: 68, Addresses: prefixes("192.0.2.8/24")},
		{Name: "b", Port: "eth1", MTU: 65535, Addresses: prefixes("2001:db8::8/64")},
		{Name: "c", Port: "eth1", MTU: 1280, Addresses: prefixes("2001:db8::9/64")},
	}}},
	{name: "mtu beyond them", network: Network{Interfaces: []Interface{
		{Name: "a", Port: "eth1", MTU: 67}, {Name: "b", Port: "eth1", MTU: 65536}, {Name: "c", Port: "eth1", MTU: -1},
		{Name: "d", Port: "eth1", MTU: 1279, Addresses: prefixes("192.0.2.8/24", "2001:db8::9/64")},
	}}, problems: `
interfaces[0].mtu: mtu 67 is out of range: 68 to 65535 bytes
interfaces[1].mtu: mtu 65536 is out of range: 68 to 65535 bytes
interfaces[2].mtu: mtu -1 is out of range: 68 to 65535 bytes
interfaces[3].mtu: mtu 1279 is too small for IPv6: at least 1280 bytes`},

	// Addresses.
	{name: "addresses of every size", network: one(func(i *Interface) {
		i.Addresses = prefixes("192.0.2.8/1", "192.0.2.1/24", "192.0.2.254/24", "198.51.100.0/31", "198.51.100.3/31", "203.0.113.7/32",
			"169.254.1.1/16", "2001:db8::8/64", "2001:db8::ffff/127", "2001:db8::9/128", "fd00::1/8")
	})},
	{name: "no host's addresses", network: one(func(i *Interface) {
		i.Addresses = append(prefixes("192.0.2.0/24", "192.0.2.255/24", "192.0.2.127/25", "192.0.2.8/0", "0.0.0.0/8", "127.0.0.1/8", "224.0.0.1/24",
			"255.255.255.255/32", "::/64", "::1/128", "ff02::1/64", "2001:db8::8/0", "::ffff:192.0.2.8/120", "fe80::8/64"), netip.Prefix{})
	}), problems: `
interfaces[0].addresses[0]: address 192.0.2.0/24 is the network's own address, not a host's
interfaces[0].addresses[1]: address 192.0.2.255/24 is the network's broadcast address
interfaces[0].addresses[2]: address 192.0.2.127/25 is the network's broadcast address
interfaces[0].addresses[3]: address 192.0.2.8/0 has prefix length 0
interfaces[0].addresses[4]: address 0.0.0.0/8 cannot be an interface's
interfaces[0].addresses[5]: address 127.0.0.1/8 cannot be an interface's
interfaces[0].addresses[6]: address 224.0.0.1/24 cannot be an interface's
interfaces[0].addresses[7]: address 255.255.255.255/32 cannot be an interface's
interfaces[0].addresses[8]: address ::/64 cannot be an interface's
interfaces[0].addresses[9]: address ::1/128 cannot be an interface's
interfaces[0].addresses[10]: address ff02::1/64 cannot be an interface's
interfaces[0].addresses[11]: address 2001:db8::8/0 has prefix length 0
interfaces[0].addresses[12]: address ::ffff:192.0.2.8/120 is IPv4 written as IPv6
interfaces[0].addresses[13]: address fe80::8/64 is link-local: the kernel gives each interface its own
interfaces[0].addresses[14]: an address is missing`},

	// Gateways.
	{name: "gateways", network: Network{Interfaces: []Interface{
		{Name: "a", Port: "eth1", Addresses: prefixes("192.0.2.8/24", "2001:db8::8/64"), Gateways: addrs("192.0.2.1", "2001:db8::1")},
		{Name: "b", Port: "eth1", Addresses: prefixes("203.0.113.8/31", "2001:db8:1::8/128"), Gateways: addrs("fe80::1", "203.0.113.9")},
	}}},
	{name: "no gateways", network: one(func(i *Interface) {
		i.Gateways = append(addrs("192.0.2.8", "2001:db8::1", "198.51.100.1", "0.0.0.0", "224.0.0.1", "127.0.0.1", "fe80::1%eth0", "::ffff:192.0.2.1"), netip.Addr{})
	}), problems: `
interfaces[0].gateways[0]: gateway 192.0.2.8 is the interface's own address
interfaces[0].gateways[1]: gateway 2001:db8::1 is outside every prefix of eth0
interfaces[0].gateways[2]: gateway 198.51.100.1 is outside every prefix of eth0
interfaces[0].gateways[2]: interface eth0 has two gateways of one family
interfaces[0].gateways[3]: 0.0.0.0 cannot be a gateway
interfaces[0].gateways[3]: interface eth0 has two gateways of one family
interfaces[0].gateways[4]: 224.0.0.1 cannot be a gateway
interfaces[0].gateways[4]: interface eth0 has two gateways of one family
interfaces[0].gateways[5]: 127.0.0.1 cannot be a gateway
interfaces[0].gateways[5]: interface eth0 has two gateways of one family
interfaces[0].gateways[6]: fe80::1%eth0 cannot be a gateway
interfaces[0].gateways[6]: interface eth0 has two gateways of one family
interfaces[0].gateways[7]: ::ffff:192.0.2.1 cannot be a gateway
interfaces[0].gateways[7]: interface eth0 has two gateways of one family
interfaces[0].gateways[8]: a gateway is missing
interfaces[0].gateways[8]: interface eth0 has two gateways of one family`},
	{name: "an IPv4 gateway on the link needs a prefix", network: one(func(i *Interface) {
		i.Addresses, i.Gateways = prefixes("198.51.100.8/32"), addrs("169.254.0.1")
	}), problems: `
interfaces[0].gateways[0]: gateway 169.254.0.1 is outside every prefix of eth0`},

	// What may be there once.
	{name: "twice", network: Network{Interfaces: []Interface{
		{Name: "eth0", Port: "eth1", MAC: mac8, Addresses: prefixes("192.0.2.8/24", "192.0.2.8/25")},
		{Name: "eth0", Port: "eth2", MAC: mac8, Addresses: prefixes("192.0.2.8/32")},
		{Name: "a", Port: "eth1"}, {Name: "b", Port: "eth1"}, // without a MAC, both
	}}, problems: `
interfaces[0].addresses[1]: address 192.0.2.8 is there twice
interfaces[1].name: interface eth0 is there twice
interfaces[1].mac: MAC 02:00:00:00:00:08 is there twice
interfaces[1].addresses[0]: address 192.0.2.8 is there twice`},

	// Routes.
	{name: "routes", network: Network{
		Interfaces: []Interface{eth0(nil).Interfaces[0], lan("2001:db8::8/64")},
		Routes: []Route{
			to("198.51.100.0/24"), via("198.51.100.0/25", "192.0.2.1"), via("2001:db8:7::/48", "2001:db8::1"),
			{To: netip.MustParsePrefix("2001:db8:8::/48"), Via: netip.MustParseAddr("fe80::1"), Dev: "eth0"},
			{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1"), Table: 1, Metric: 4294967295, Realm: 65535},
			{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1"), Table: 4294967295},
		},
	}},
	{name: "no routes", network: one(nil,
		Route{},
		Route{To: netip.MustParsePrefix("198.51.100.0/24")},
		via("198.51.100.7/24", "192.0.2.1"),
		via("198.51.100.0/25", "203.0.113.1"),
		via("198.51.100.0/26", "2001:db8::1"),
		via("2001:db8:7::/48", "fe80::1"),
		via("198.51.100.0/27", "224.0.0.1"),
		Route{To: netip.MustParsePrefix("198.51.100.0/28"), Dev: "eth1"},
	), problems: `
routes[0].to: a route has no destination
routes[1]: route to 198.51.100.0/24 needs via or dev
routes[2].to: route to 198.51.100.7/24 has host bits set: did you mean 198.51.100.0/24?
routes[2]: route 198.51.100.7/24 via 192.0.2.1: there is one with its destination and metric
routes[3].via: route to 198.51.100.0/25: gateway 203.0.113.1 is outside every connected prefix
routes[4].via: route to 198.51.100.0/26 via 2001:db8::1 mixes address families
routes[5].via: route to 2001:db8:7::/48: gateway fe80::1 is outside every connected prefix
routes[6].via: 224.0.0.1 cannot be a gateway
routes[6].via: route to 198.51.100.0/27: gateway 224.0.0.1 is outside every connected prefix
routes[7].dev: route to 198.51.100.0/28 leaves by eth1, which is no interface here`},
	{name: "numbers out of range", network: one(func(i *Interface) { i.Addresses = prefixes("192.0.2.8/24", "2001:db8::8/64") },
		Route{To: netip.MustParsePrefix("198.51.100.0/24"), Dev: "eth0", Table: -1, Metric: -1, Realm: -1},
		Route{To: netip.MustParsePrefix("198.51.100.0/24"), Dev: "eth0", Table: 4294967296, Metric: 4294967296, Realm: 65536},
		Route{To: netip.MustParsePrefix("2001:db8:7::/48"), Dev: "eth0", Realm: 1},
	), problems: `
routes[0].table: table -1 is out of range: 0 to 4294967295
routes[0].metric: metric -1 is out of range: 0 to 4294967295
routes[0].realm: realm -1 is out of range: 0 to 65535
routes[1].table: table 4294967296 is out of range: 0 to 4294967295
routes[1].metric: metric 4294967296 is out of range: 0 to 4294967295
routes[1].realm: realm 65536 is out of range: 0 to 65535
routes[2].realm: route to 2001:db8:7::/48: IPv6 routes have no realm`},
	{name: "modes", network: Network{Interfaces: []Interface{
		{Name: "a", Port: "eth1", Mode: Private},
		{Name: "b", Port: "eth1", Mode: "passthrough"},
		{Name: "c", Port: "eth1", Kind: Vlan, VLAN: VLAN{10}, Mode: VEPA},
		{Name: "d", Port: "eth1", Mode: Source, Sources: []MAC{{2, 1}}},
		{Name: "e", Port: "eth1", Mode: Source},
		{Name: "f", Port: "eth1", Sources: []MAC{{2, 1}, {2, 2}, {2, 1}}},
		{Name: "g", Port: "eth2", Mode: Passthru},
		{Name: "h", Port: "eth3", Mode: Passthru, MAC: MAC{2, 3}},
		{Name: "i", Port: "eth3", Mode: Private},
		{Name: "j", Port: "eth3", VLAN: VLAN{10}},
		{Name: "k", Port: "eth1", Mode: Source, Sources: macs(1024)},
		{Name: "l", Port: "eth1", Mode: Source, Sources: macs(1025)},
	}}, problems: `
interfaces[1].mode: mode "passthrough" is unknown: it is bridge, private, vepa, source or passthru
interfaces[2].mode: interface c is of kind vlan, which has no modes
interfaces[4].sources: interface e is a macvlan in mode source and has no sources
interfaces[5].sources: interface f has sources, and is a macvlan in mode bridge
interfaces[5].sources[2]: MAC 02:01:00:00:00:00 is there twice
interfaces[7].mac: interface h is a macvlan in mode passthru, which has the MAC of what it sits on
interfaces[8].port: interface h already has port eth3, in another way than macvlan in mode private
interfaces[11].sources: interface l has 1025 sources: at most 1024`},
	{name: "sources of routes", network: one(func(i *Interface) { i.Addresses = prefixes("192.0.2.8/24", "2001:db8::8/64") },
		Route{To: netip.MustParsePrefix("198.51.100.0/24"), Dev: "eth0", Src: netip.MustParseAddr("192.0.2.8")},
		Route{To: netip.MustParsePrefix("198.51.100.0/25"), Dev: "eth0", Src: netip.MustParseAddr("192.0.2.9")},
		Route{To: netip.MustParsePrefix("198.51.100.0/26"), Dev: "eth0", Src: netip.MustParseAddr("2001:db8::8")},
	), problems: `
routes[1].src: route to 198.51.100.0/25: source 192.0.2.9 is no address here
routes[2].src: route to 198.51.100.0/26 from 2001:db8::8 mixes address families`},
	{name: "metrics, tables and realms of interfaces", network: Network{Interfaces: []Interface{
		{Name: "a", Port: "eth1", Metric: 5, Table: 101, Realm: 255, Addresses: prefixes("192.0.2.8/24"), Gateways: addrs("192.0.2.1")},
		{Name: "b", Port: "eth1", Metric: 5, Table: 101, Realm: 255, Addresses: prefixes("198.51.100.8/24"), Gateways: addrs("198.51.100.1")},
		{Name: "c", Port: "eth1", Metric: -1, Table: -1, Realm: -1},
		{Name: "d", Port: "eth1", Metric: 4294967296, Table: 4294967296, Realm: 256},
		{Name: "e", Port: "eth1", Table: 254},
	}}, problems: `
interfaces[1].table: table 101 is a's
interfaces[2].metric: metric -1 is out of range: 0 to 4294967295
interfaces[2].table: table -1 is out of range: 0 to 4294967295
interfaces[2].realm: realm -1 is out of range: 0 to 255, which is what the kernel counts apart
interfaces[3].metric: metric 4294967296 is out of range: 0 to 4294967295
interfaces[3].table: table 4294967296 is out of range: 0 to 4294967295
interfaces[3].realm: realm 256 is out of range: 0 to 255, which is what the kernel counts apart
interfaces[4].table: table 254 is the kernel's, for all interfaces
interfaces[1].metric: metric 5 of b's gateway is another interface's, too`},
	{name: "a table that another interface gets by itself", network: Network{Interfaces: []Interface{
		{Name: "a", Port: "eth1", Table: 118002, Addresses: prefixes("192.0.2.8/24"), Gateways: addrs("192.0.2.1")},
		{Name: "b", Port: "eth1", Addresses: prefixes("198.51.100.8/24"), Gateways: addrs("198.51.100.1")},
		{Name: "c", Port: "eth1", Table: 118003, Addresses: prefixes("203.0.113.8/24")},
		{Name: "d", Port: "eth1", Table: 118006, Addresses: prefixes("203.0.113.9/24")},
		{Name: "e", Port: "eth1", Addresses: prefixes("203.0.113.10/24"), Realm: 8},
		{Name: "f", Port: "eth1", Addresses: prefixes("2001:db8::8/64"), Table: 118005}, // of the other family
	}}, problems: `
interfaces[0].table: table 118002 is b's own, which asks for none`},
	{name: "routes that are there without", network: Network{
		Interfaces: []Interface{
			{Name: "eth0", Port: "eth1", Addresses: prefixes("192.0.2.8/24", "2001:db8::8/64"), Gateways: addrs("192.0.2.1", "2001:db8::1")},
			{Name: "lan", Port: "eth1", Addresses: prefixes("198.51.100.8/24"), Gateways: addrs("198.51.100.1")},
		},
		Routes: []Route{
			via("0.0.0.0/0", "192.0.2.2"),
			via("::/0", "2001:db8::2"),
			{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.2"), Metric: 100},
			to("192.0.2.0/24"),
			to("2001:db8::/64"), // beside the kernel's, which has metric 256
			{To: netip.MustParsePrefix("192.0.2.0/24"), Dev: "eth0", Metric: 5},
			{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.2"), Metric: 50},
		},
	}, problems: `
routes[0]: route default via 192.0.2.2: there is one with its destination and metric
routes[1]: route default via 2001:db8::2: there is one with its destination and metric
routes[2]: route default via 192.0.2.2 metric 100: there is one with its destination and metric
routes[3]: route 192.0.2.0/24 dev eth0: there is one with its destination and metric`},
	{name: "the same route by other words", network: one(func(i *Interface) { i.Addresses = prefixes("192.0.2.8/24", "2001:db8::8/64") },
		via("198.51.100.0/24", "192.0.2.1"),
		Route{To: netip.MustParsePrefix("198.51.100.0/24"), Dev: "eth0", Table: 254, Realm: 3},
		Route{To: netip.MustParsePrefix("198.51.100.0/24"), Dev: "eth0", Metric: 1024},
		via("2001:db8:7::/48", "2001:db8::1"),
		Route{To: netip.MustParsePrefix("2001:db8:7::/48"), Dev: "eth0", Metric: 1024},
		Route{To: netip.MustParsePrefix("::/0"), Dev: "eth0"},
		Route{To: netip.MustParsePrefix("::/0"), Dev: "eth0"},
	), problems: `
routes[1]: route 198.51.100.0/24 dev eth0 realm 3: there is one with its destination and metric
routes[4]: route 2001:db8:7::/48 dev eth0 metric 1024: there is one with its destination and metric
routes[6]: route default dev eth0: there is one with its destination and metric`},
}

func TestValidate(t *testing.T) {
	for _, tt := range validations {
		t.Run(tt.name, func(t *testing.T) {
			var got strings.Builder
			for _, p := range tt.network.Validate() {
				got.WriteString("\n" + p.Path + ": " + p.Err.Error())
			}
			if d := cmp.Diff(strings.Split(tt.problems, "\n"), strings.Split(got.String(), "\n")); d != "" {
				t.Errorf("the problems (-want +got):\n%s", d)
			}
		})
	}
}
