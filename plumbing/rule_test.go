package plumbing

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A ruleCase is a rule as it is written, and sent.
var ruleCases = []struct {
	name    string
	rule    Rule
	command string
	golden  string
	library []byte
}{{
	name:    "from an address, with a realm",
	rule:    Rule{From: netip.MustParsePrefix("192.0.2.8/32"), Table: 118001, Priority: 1180, Realm: 8},
	command: "ip -n vs8 rule add from 192.0.2.8/32 lookup 118001 priority 1180 realms 8 protocol 118",
	golden: `
		44000000 2000 0106 01000000 00000000  # length 68, RTM_NEWRULE, REQUEST|CREATE|EXCL, seq 1
		02 00 20 00 00 00 00 01 00000000      # fib_rule_hdr: AF_INET, from /32, FR_ACT_TO_TBL
		0800 0200 c0000208                    # FRA_SRC 192.0.2.8
		0800 0f00 f1cc0100                    # FRA_TABLE 118001
		0800 0600 9c040000                    # FRA_PRIORITY 1180
		0800 0b00 08000000                    # FRA_FLOW 8
		0500 1500 76000000                    # FRA_PROTOCOL 118`,
	library: libraryRequest(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ruleHeader(unix.AF_INET, 0, 32),
		attr(unix.FRA_SRC, ip4(192, 0, 2, 8)), attrUint32(unix.FRA_TABLE, 118001), attrUint32(unix.FRA_PRIORITY, 1180),
		attrUint32(unix.FRA_FLOW, 8), attr(unix.FRA_PROTOCOL, []byte{118})),
}, {
	name:    "to an IPv6 prefix",
	rule:    Rule{IPv6: true, To: netip.MustParsePrefix("2001:db8::/64"), Table: 101, Priority: 1181},
	command: "ip -n vs8 -6 rule add to 2001:db8::/64 lookup 101 priority 1181 protocol 118",
	golden: `
		48000000 2000 0106 01000000 00000000
		0a 40 00 00 00 00 00 01 00000000
		1400 0100 20010db8000000000000000000000000
		0800 0f00 65000000
		0800 0600 9d040000
		0500 1500 76000000`,
	library: libraryRequest(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ruleHeader(unix.AF_INET6, 64, 0),
		attr(unix.FRA_DST, ip6("2001:db8::")), attrUint32(unix.FRA_TABLE, 101), attrUint32(unix.FRA_PRIORITY, 1181),
		attr(unix.FRA_PROTOCOL, []byte{118})),
}, {
	name:    "for what comes in by an interface with an odd name",
	rule:    Rule{IIF: "$HOME", Table: 4294967295, Priority: 1182},
	command: "ip -n vs8 rule add iif '$HOME' lookup 4294967295 priority 1182 protocol 118",
	golden: `
		40000000 2000 0106 01000000 00000000
		02 00 00 00 00 00 00 01 00000000
		0a00 0300 24484f4d4500 0000           # FRA_IIFNAME
		0800 0f00 ffffffff
		0800 0600 9e040000
		0500 1500 76000000`,
	library: libraryRequest(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ruleHeader(unix.AF_INET, 0, 0),
		attr(unix.FRA_IIFNAME, nl.ZeroTerminated("$HOME")), attrUint32(unix.FRA_TABLE, 4294967295), attrUint32(unix.FRA_PRIORITY, 1182),
		attr(unix.FRA_PROTOCOL, []byte{118})),
}, {
	name:    "of somebody's who has made ours narrower",
	rule:    Rule{From: netip.MustParsePrefix("192.0.2.8/32"), Table: 101, Priority: 1180, TOS: 0x10, Not: true},
	command: "ip -n vs8 rule add not from 192.0.2.8/32 tos 0x10 lookup 101 priority 1180 protocol 118",
	golden: `
		3c000000 2000 0106 01000000 00000000
		02 00 20 10 00 00 00 01 02000000      # fib_rule_hdr: TOS 0x10, FIB_RULE_INVERT
		0800 0200 c0000208
		0800 0f00 65000000
		0800 0600 9c040000
		0500 1500 76000000`,
	library: libraryRequest(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, func() *nl.RtMsg {
		m := ruleHeader(unix.AF_INET, 0, 32)
		m.Tos, m.Flags = 0x10, unix.FIB_RULE_INVERT
		return m
	}(), attr(unix.FRA_SRC, ip4(192, 0, 2, 8)), attrUint32(unix.FRA_TABLE, 101), attrUint32(unix.FRA_PRIORITY, 1180),
		attr(unix.FRA_PROTOCOL, []byte{118})),
}}

// What the kernel's rules match only in part, or not at all, does not do as they do.
func TestKernelRules(t *testing.T) {
	for _, own := range kernelRules {
		for _, tt := range []struct {
			change func(*Rule)
			want   bool
		}{
			{func(*Rule) {}, true},
			{func(r *Rule) { r.Priority = 7 }, true},
			{func(r *Rule) { r.TOS = 0x10 }, false},
			{func(r *Rule) { r.Not = true }, false},
		} {
			r := own
			tt.change(&r)
			b := rule(unix.RTM_NEWRULE, 0, r, unix.RTPROT_KERNEL).body
			if got, _ := decodeRule(b); got.isKernelRule(own, b) != tt.want {
				t.Errorf("%s is the kernel's: %v", r, !tt.want)
			}
		}
	}
}

// A rule of ours that has become narrower is in the way of the one wanted.
func TestDiffOfNarrowRules(t *testing.T) {
	n := Network{Interfaces: []Interface{{Name: "eth0", MAC: mac8, Realm: 8, Addresses: prefixes("192.0.2.8/24")}}}
	narrow := n.allRules()[0]
	narrow.Not = true
	d := differ{place: vs8, want: n, have: State{Rules: []Rule{narrow}}}
	d.rules()
	const rule = "from 192.0.2.8/32 lookup 118001 priority 1180 realms 8 protocol 118\n"
	if d := cmp.Diff("ip -n vs8 rule delete not "+rule+"ip -n vs8 rule add "+rule, d.plan.Script(vs8)); d != "" {
		t.Errorf("the plan (-want +got):\n%s", d)
	}
}

func ruleHeader(family, to, from uint8) *nl.RtMsg {
	m := &nl.RtMsg{}
	m.Family, m.Dst_len, m.Src_len, m.Type = family, to, from, 1 // FR_ACT_TO_TBL
	return m
}

func TestRules(t *testing.T) {
	for _, tt := range ruleCases {
		t.Run(tt.name, func(t *testing.T) {
			checkRequest(t, stepMessage(addRule{tt.rule}), tt.golden, tt.library)
			if got := (addRule{tt.rule}).Command(vs8); got != tt.command {
				t.Errorf("the line is\n%s, want\n%s", got, tt.command)
			}
			got, ours := decodeRule(rule(unix.RTM_NEWRULE, 0, tt.rule, routeProtocol).body)
			if !ours || got != tt.rule {
				t.Errorf("ours %v, read as %s", ours, got)
			}
		})
	}
	if _, ours := decodeRule(make([]byte, unix.SizeofRtMsg)); ours {
		t.Error("a rule of nobody's is ours")
	}
}

func FuzzRule(f *testing.F) {
	for _, tt := range ruleCases {
		f.Add(rule(unix.RTM_NEWRULE, 0, tt.rule, routeProtocol).body)
	}
	f.Add([]byte{2, 33, 129})
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeRule(b)
		foreignRule(b)
	})
}

var twoGateways = Network{Interfaces: []Interface{
	{Name: "eth0", Port: "eth1", MAC: mac8, Addresses: prefixes("192.0.2.8/24", "2001:db8::8/64", "203.0.113.8/32"), Gateways: addrs("192.0.2.1", "2001:db8::1")},
	{Name: "lan", Port: "eth2", MAC: mac9, Addresses: prefixes("198.51.100.8/24"), Gateways: addrs("198.51.100.1")},
	{Name: "x", Port: "eth2", MAC: MAC{2, 7}, Addresses: prefixes("198.51.100.9/24")},
}}

// Which interfaces have tables and rules, and what their gateways' metrics are.
func TestMultihomes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Network)
		want   string
	}{
		{"each of several gateways of one family", func(*Network) {}, `
192.0.2.0/24 dev eth0 src 192.0.2.8 table 118001
default via 192.0.2.1 dev eth0 table 118001
198.51.100.0/24 dev lan src 198.51.100.8 table 118002
default via 198.51.100.1 dev lan table 118002
from 192.0.2.8/32 lookup 118001 priority 1180
from 203.0.113.8/32 lookup 118001 priority 1180
from 198.51.100.8/32 lookup 118002 priority 1180
`},
		{"one gateway", func(n *Network) { n.Interfaces[1].Gateways = nil }, "\n"},
		{"a table that is asked for", func(n *Network) { n.Interfaces[0].Table, n.Interfaces[1].Gateways = 101, nil }, `
192.0.2.0/24 dev eth0 src 192.0.2.8 table 101
default via 192.0.2.1 dev eth0 table 101
2001:db8::/64 dev eth0 table 101
default via 2001:db8::1 dev eth0 table 101
from 192.0.2.8/32 lookup 101 priority 1180
to 192.0.2.0/24 lookup 101 priority 1181
from 203.0.113.8/32 lookup 101 priority 1180
iif eth0 lookup 101 priority 1182
from 2001:db8::8/128 lookup 101 priority 1180
to 2001:db8::/64 lookup 101 priority 1181
iif eth0 lookup 101 priority 1182
`},
		{"a realm is IPv4's", func(n *Network) { n.Interfaces = n.Interfaces[:1]; n.Interfaces[0].Realm = 8 }, `
192.0.2.0/24 dev eth0 src 192.0.2.8 table 118001
default via 192.0.2.1 dev eth0 table 118001
from 192.0.2.8/32 lookup 118001 priority 1180 realms 8
from 203.0.113.8/32 lookup 118001 priority 1180 realms 8
`},
		{"what the document says of the table comes first", func(n *Network) {
			n.Interfaces[1].Gateways, n.Interfaces[2].Table = nil, 7
			n.Routes = []Route{
				{To: netip.MustParsePrefix("198.51.100.0/24"), Dev: "lan", Table: 7},
				{To: netip.MustParsePrefix("203.0.113.0/24"), Via: netip.MustParseAddr("198.51.100.7"), Dev: "x", Metric: 5, Realm: 3},
				{To: netip.MustParsePrefix("203.0.113.0/24"), Via: netip.MustParseAddr("192.0.2.7")},
			}
		}, `
203.0.113.0/24 via 198.51.100.7 dev x table 7 metric 5 realm 3
from 198.51.100.9/32 lookup 7 priority 1180
to 198.51.100.0/24 lookup 7 priority 1181
iif x lookup 7 priority 1182
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := Network{Interfaces: append([]Interface(nil), twoGateways.Interfaces...)}
			tt.change(&n)
			if problems := n.Validate(); len(problems) > 0 {
				t.Fatal(problems)
			}
			got := "\n"
			for _, r := range n.tableRoutes() {
				got += r.String() + "\n"
			}
			for _, r := range n.allRules() {
				got += r.String() + "\n"
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("the tables and rules (-want +got):\n%s", d)
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	n := Network{Interfaces: []Interface{
		{Name: "a", Gateways: addrs("192.0.2.1", "2001:db8::1")},
		{Name: "b", Gateways: addrs("192.0.2.2", "2001:db8::2")},
		{Name: "c", Gateways: addrs("192.0.2.3", "2001:db8::3")},
	}}
	for _, tt := range []struct{ given, want []int }{
		{[]int{0, 0, 0}, []int{0, 0, 100, 1124, 200, 1224}},
		{[]int{0, 7, 0}, []int{1024, 0, 7, 7, 1124, 1124}},
		{[]int{0, 1024, 1224}, []int{1124, 1124, 1024, 0, 1224, 1224}},
	} {
		var got []int
		for k := range n.Interfaces {
			n.Interfaces[k].Metric = tt.given[k]
		}
		for _, r := range n.gatewayRoutes() {
			got = append(got, r.Metric)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("given %v (-want +got):\n%s", tt.given, d)
		}
	}
}

// A rule moves to another table: the new one is there before the old one goes, and before
// the routes that it led to.
func TestDiffOfRules(t *testing.T) {
	want := eth0(func(i *Interface) { i.Table = 101; i.Gateways = addrs("192.0.2.1") })
	have := present(func(s *State) {
		s.Routes = []Route{
			{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1"), Dev: "eth0"},
			{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1"), Dev: "eth0", Table: 100},
		}
		s.Rules = []Rule{
			{From: netip.MustParsePrefix("192.0.2.8/32"), Table: 100, Priority: 1180},
			{To: netip.MustParsePrefix("192.0.2.0/24"), Table: 101, Priority: 1181},
		}
	})
	plan, err := Diff(vs8, want, have)
	if err != nil {
		t.Fatal(err)
	}
	const line = `ip -n vs8 route add 192.0.2.0/24 dev eth0 src 192.0.2.8 table 101 proto 118
ip -n vs8 route add default via 192.0.2.1 dev eth0 table 101 proto 118
ip -n vs8 rule add from 192.0.2.8/32 lookup 101 priority 1180 protocol 118
ip -n vs8 rule add iif eth0 lookup 101 priority 1182 protocol 118
ip -n vs8 rule delete from 192.0.2.8/32 lookup 100 priority 1180 protocol 118
ip -n vs8 route delete default via 192.0.2.1 dev eth0 table 100 proto 118
`
	if d := cmp.Diff(line, plan.Script(vs8)); d != "" {
		t.Errorf("the plan (-want +got):\n%s", d)
	}
	for _, s := range plan {
		if topic := About(s); topic != OfRoute && topic != OfRule {
			t.Errorf("%s is about %s", s, topic)
		}
	}
}
