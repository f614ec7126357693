package plumbing

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Numbers in netlink messages have the machine's byte order: the golden bytes
// are those of little-endian ones. The comparison with the library holds
// everywhere.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// golden reads bytes in hexadecimal; what follows # on a line is a comment.
func golden(t *testing.T, text string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatalf("bad golden bytes: %v", err)
	}
	return b
}

// A libraryRequest is a request as the library that everybody uses encodes it.
func libraryRequest(kind, flags int, data ...nl.NetlinkRequestData) []byte {
	req := nl.NewNetlinkRequest(kind, flags)
	req.Seq = 1
	for _, d := range data {
		req.AddData(d)
	}
	return req.Serialize()
}

func ifinfo(index int32, flags, change uint32) *nl.IfInfomsg {
	m := nl.NewIfInfomsg(unix.AF_UNSPEC)
	m.Index, m.Flags, m.Change = index, flags, change
	return m
}

func bridgeInfo(index int32) *nl.IfInfomsg {
	m := nl.NewIfInfomsg(unix.AF_BRIDGE)
	m.Index = index
	return m
}

func attr(typ int, value []byte) *nl.RtAttr { return nl.NewRtAttr(typ, value) }

func attrUint32(typ int, v uint32) *nl.RtAttr { return nl.NewRtAttr(typ, nl.Uint32Attr(v)) }

func macvlanInfo() *nl.RtAttr {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("macvlan"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_MACVLAN_MODE, nl.Uint32Attr(nl.MACVLAN_MODE_BRIDGE))
	return info
}

func ifaddr(family, bits, scope uint8, index uint32) *nl.IfAddrmsg {
	m := nl.NewIfAddrmsg(int(family))
	m.Prefixlen, m.Scope, m.Index = bits, scope, index
	return m
}

func rtmsg(family, bits, scope uint8) *nl.RtMsg {
	m := nl.NewRtMsg()
	m.Family, m.Dst_len, m.Scope = family, bits, scope
	m.Table, m.Protocol = unix.RT_TABLE_UNSPEC, routeProtocol
	return m
}

func ip4(a, b, c, d byte) []byte { return []byte{a, b, c, d} }

func ip6(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

var requests = []struct {
	name    string
	message message
	golden  string
	library []byte
}{{
	name:    "make a macvlan",
	message: newLink("eth0", 3, form{Macvlan, Bridge, tag{}}, nil, mac8, 1500, 7),
	golden: `
		6c000000 1000 0106 01000000 00000000  # length 108, RTM_NEWLINK, REQUEST|CREATE|EXCL, seq 1
		00 00 0000 00000000 00000000 00000000 # ifinfomsg: no index, no flags
		0900 0300 6574683000 000000           # IFLA_IFNAME "eth0"
		0800 0500 03000000                    # IFLA_LINK 3
		0a00 0100 020000000008 0000           # IFLA_ADDRESS
		0800 0400 dc050000                    # IFLA_MTU 1500
		0800 1c00 07000000                    # IFLA_NET_NS_FD 7
		1c00 1200                             # IFLA_LINKINFO
		  0b00 0100 6d6163766c616e 00         #   IFLA_INFO_KIND "macvlan"
		  0c00 0200                           #   IFLA_INFO_DATA
		    0800 0100 04000000                #     IFLA_MACVLAN_MODE bridge`,
	library: libraryRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfo(0, 0, 0),
		attr(unix.IFLA_IFNAME, nl.ZeroTerminated("eth0")), attrUint32(unix.IFLA_LINK, 3),
		attr(unix.IFLA_ADDRESS, mac8[:]), attrUint32(unix.IFLA_MTU, 1500),
		attrUint32(unix.IFLA_NET_NS_FD, 7), macvlanInfo()),
}, {
	name:    "link up",
	message: linkUp(2),
	golden: `
		20000000 1000 0100 01000000 00000000  # length 32, RTM_NEWLINK, REQUEST
		00 00 0000 02000000 01000000 01000000 # ifinfomsg: index 2, IFF_UP of IFF_UP`,
	library: libraryRequest(unix.RTM_NEWLINK, 0, ifinfo(2, unix.IFF_UP, unix.IFF_UP)),
}, {
	name:    "link down",
	message: linkDown(2),
	golden: `
		20000000 1000 0100 01000000 00000000
		00 00 0000 02000000 00000000 01000000 # ifinfomsg: index 2, nothing of IFF_UP`,
	library: libraryRequest(unix.RTM_NEWLINK, 0, ifinfo(2, 0, unix.IFF_UP)),
}, {
	name:    "mark a link",
	message: linkAlias(2, "vsrun:vs8/eth0"),
	golden: `
		34000000 1000 0100 01000000 00000000
		00 00 0000 02000000 00000000 00000000
		1200 1400 767372756e3a7673382f65746830 0000 # IFLA_IFALIAS, without a NUL`,
	library: libraryRequest(unix.RTM_NEWLINK, 0, ifinfo(2, 0, 0), attr(unix.IFLA_IFALIAS, nl.NonZeroTerminated("vsrun:vs8/eth0"))),
}, {
	name:    "take a link's mark away",
	message: linkAlias(2, ""),
	golden: `
		24000000 1000 0100 01000000 00000000
		00 00 0000 02000000 00000000 00000000
		0400 1400                             # IFLA_IFALIAS, empty`,
	library: libraryRequest(unix.RTM_NEWLINK, 0, ifinfo(2, 0, 0), attr(unix.IFLA_IFALIAS, nil)),
}, {
	name:    "link mtu",
	message: linkMTU(2, 9000),
	golden: `
		28000000 1000 0100 01000000 00000000
		00 00 0000 02000000 00000000 00000000
		0800 0400 28230000                    # IFLA_MTU 9000`,
	library: libraryRequest(unix.RTM_NEWLINK, 0, ifinfo(2, 0, 0), attrUint32(unix.IFLA_MTU, 9000)),
}, {
	name:    "link MAC",
	message: linkMAC(2, mac8),
	golden: `
		2c000000 1000 0100 01000000 00000000
		00 00 0000 02000000 00000000 00000000
		0a00 0100 020000000008 0000           # IFLA_ADDRESS`,
	library: libraryRequest(unix.RTM_NEWLINK, 0, ifinfo(2, 0, 0), attr(unix.IFLA_ADDRESS, mac8[:])),
}, {
	name:    "rename a link",
	message: linkRename(2, "lan"),
	golden: `
		28000000 1000 0100 01000000 00000000
		00 00 0000 02000000 00000000 00000000
		0800 0300 6c616e00                    # IFLA_IFNAME "lan"`,
	library: libraryRequest(unix.RTM_NEWLINK, 0, ifinfo(2, 0, 0), attr(unix.IFLA_IFNAME, nl.ZeroTerminated("lan"))),
}, {
	name:    "delete a link",
	message: linkDelete(2),
	golden: `
		20000000 1100 0100 01000000 00000000  # RTM_DELLINK
		00 00 0000 02000000 00000000 00000000`,
	library: libraryRequest(unix.RTM_DELLINK, 0, ifinfo(2, 0, 0)),
}, {
	name:    "find a link by its name",
	message: linkGet("eth0"),
	golden: `
		2c000000 1200 0100 01000000 00000000  # RTM_GETLINK, and no IFLA_EXT_MASK
		00 00 0000 00000000 00000000 00000000
		0900 0300 6574683000 000000           # IFLA_IFNAME "eth0"`,
	library: libraryRequest(unix.RTM_GETLINK, 0, ifinfo(0, 0, 0), attr(unix.IFLA_IFNAME, nl.ZeroTerminated("eth0"))),
}, {
	name:    "list the MACs of a port",
	message: portMACs(3),
	golden: `
		20000000 1e00 0103 01000000 00000000  # RTM_GETNEIGH, REQUEST|DUMP
		07 00 0000 03000000 00000000 00000000 # ifinfomsg: AF_BRIDGE, index 3`,
	library: libraryRequest(unix.RTM_GETNEIGH, unix.NLM_F_DUMP, bridgeInfo(3)),
}, {
	name:    "add an IPv4 address",
	message: address(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 2, netip.MustParsePrefix("192.0.2.8/23")),
	golden: `
		30000000 1400 0106 01000000 00000000  # RTM_NEWADDR, REQUEST|CREATE|EXCL
		02 17 00 00 02000000                  # ifaddrmsg: AF_INET, /23, universe, index 2
		0800 0200 c0000208                    # IFA_LOCAL
		0800 0100 c0000208                    # IFA_ADDRESS
		0800 0400 c00003ff                    # IFA_BROADCAST 192.0.3.255`,
	library: libraryRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifaddr(unix.AF_INET, 23, unix.RT_SCOPE_UNIVERSE, 2),
		attr(unix.IFA_LOCAL, ip4(192, 0, 2, 8)), attr(unix.IFA_ADDRESS, ip4(192, 0, 2, 8)), attr(unix.IFA_BROADCAST, ip4(192, 0, 3, 255))),
}, {
	name:    "add an IPv4 address of a point-to-point prefix",
	message: address(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 2, netip.MustParsePrefix("192.0.2.8/31")),
	golden: `
		28000000 1400 0106 01000000 00000000
		02 1f 00 00 02000000                  # ifaddrmsg: AF_INET, /31
		0800 0200 c0000208                    # IFA_LOCAL
		0800 0100 c0000208                    # IFA_ADDRESS, and no broadcast address`,
	library: libraryRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifaddr(unix.AF_INET, 31, unix.RT_SCOPE_UNIVERSE, 2),
		attr(unix.IFA_LOCAL, ip4(192, 0, 2, 8)), attr(unix.IFA_ADDRESS, ip4(192, 0, 2, 8))),
}, {
	name:    "delete an IPv6 address",
	message: address(unix.RTM_DELADDR, 0, 2, netip.MustParsePrefix("2001:db8::8/64")),
	golden: `
		48000000 1500 0100 01000000 00000000  # RTM_DELADDR
		0a 40 00 00 02000000                  # ifaddrmsg: AF_INET6, /64, universe, index 2
		1400 0200 20010db8000000000000000000000008 # IFA_LOCAL
		1400 0100 20010db8000000000000000000000008 # IFA_ADDRESS
		0800 0800 02000000                    # IFA_FLAGS: IFA_F_NODAD`,
	library: libraryRequest(unix.RTM_DELADDR, 0, ifaddr(unix.AF_INET6, 64, unix.RT_SCOPE_UNIVERSE, 2),
		attr(unix.IFA_LOCAL, ip6("2001:db8::8")), attr(unix.IFA_ADDRESS, ip6("2001:db8::8")), attrUint32(unix.IFA_FLAGS, unix.IFA_F_NODAD)),
}, {
	name:    "add a link-local IPv6 address",
	message: address(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 2, netip.MustParsePrefix("fe80::8/64")),
	golden: `
		48000000 1400 0106 01000000 00000000
		0a 40 00 fd 02000000                  # ifaddrmsg: AF_INET6, /64, link, index 2
		1400 0200 fe800000000000000000000000000008
		1400 0100 fe800000000000000000000000000008
		0800 0800 02000000`,
	library: libraryRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifaddr(unix.AF_INET6, 64, unix.RT_SCOPE_LINK, 2),
		attr(unix.IFA_LOCAL, ip6("fe80::8")), attr(unix.IFA_ADDRESS, ip6("fe80::8")), attrUint32(unix.IFA_FLAGS, unix.IFA_F_NODAD)),
}, {
	name:    "add an IPv6 address",
	message: address(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 2, netip.MustParsePrefix("2001:db8::8/128")),
	golden: `
		48000000 1400 0106 01000000 00000000
		0a 80 00 00 02000000                  # ifaddrmsg: AF_INET6, /128
		1400 0200 20010db8000000000000000000000008
		1400 0100 20010db8000000000000000000000008
		0800 0800 02000000                    # IFA_FLAGS: IFA_F_NODAD`,
	library: libraryRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifaddr(unix.AF_INET6, 128, unix.RT_SCOPE_UNIVERSE, 2),
		attr(unix.IFA_LOCAL, ip6("2001:db8::8")), attr(unix.IFA_ADDRESS, ip6("2001:db8::8")), attrUint32(unix.IFA_FLAGS, unix.IFA_F_NODAD)),
}, {
	name: "add an IPv4 route with everything",
	message: route(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 2, Route{
		To: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr("192.0.2.7"), Table: 1000, Metric: 50, Realm: 3,
	}),
	golden: `
		4c000000 1800 0106 01000000 00000000  # RTM_NEWROUTE, REQUEST|CREATE|EXCL
		02 18 00 00 00 76 00 01 00000000      # rtmsg: AF_INET, to /24, table in RTA_TABLE, protocol 118, universe, unicast
		0800 0100 c6336400                    # RTA_DST 198.51.100.0
		0800 0500 c0000207                    # RTA_GATEWAY 192.0.2.7
		0800 0400 02000000                    # RTA_OIF 2
		0800 0f00 e8030000                    # RTA_TABLE 1000
		0800 0600 32000000                    # RTA_PRIORITY 50
		0800 0b00 03000000                    # RTA_FLOW: realm 3`,
	library: libraryRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, rtmsg(unix.AF_INET, 24, unix.RT_SCOPE_UNIVERSE),
		attr(unix.RTA_DST, ip4(198, 51, 100, 0)), attr(unix.RTA_GATEWAY, ip4(192, 0, 2, 7)), attrUint32(unix.RTA_OIF, 2),
		attrUint32(unix.RTA_TABLE, 1000), attrUint32(unix.RTA_PRIORITY, 50), attrUint32(unix.RTA_FLOW, 3)),
}, {
	name:    "replace the IPv4 default route",
	message: route(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, 2, Route{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1")}),
	golden: `
		34000000 1800 0105 01000000 00000000  # REQUEST|CREATE|REPLACE
		02 00 00 00 00 76 00 01 00000000      # rtmsg: to /0, and no RTA_DST
		0800 0500 c0000201                    # RTA_GATEWAY 192.0.2.1
		0800 0400 02000000                    # RTA_OIF 2
		0800 0f00 fe000000                    # RTA_TABLE main`,
	library: libraryRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, rtmsg(unix.AF_INET, 0, unix.RT_SCOPE_UNIVERSE),
		attr(unix.RTA_GATEWAY, ip4(192, 0, 2, 1)), attrUint32(unix.RTA_OIF, 2), attrUint32(unix.RTA_TABLE, unix.RT_TABLE_MAIN)),
}, {
	name:    "add an IPv4 route to neighbours",
	message: route(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 2, Route{To: netip.MustParsePrefix("198.51.100.0/24")}),
	golden: `
		34000000 1800 0106 01000000 00000000
		02 18 00 00 00 76 fd 01 00000000      # rtmsg: scope link, as there is no gateway
		0800 0100 c6336400                    # RTA_DST
		0800 0400 02000000                    # RTA_OIF
		0800 0f00 fe000000                    # RTA_TABLE`,
	library: libraryRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, rtmsg(unix.AF_INET, 24, unix.RT_SCOPE_LINK),
		attr(unix.RTA_DST, ip4(198, 51, 100, 0)), attrUint32(unix.RTA_OIF, 2), attrUint32(unix.RTA_TABLE, unix.RT_TABLE_MAIN)),
}, {
	name: "add an IPv6 route with everything",
	message: route(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 2, Route{
		To: netip.MustParsePrefix("2001:db8:7::/48"), Via: netip.MustParseAddr("fe80::1"), Table: 4294967295, Metric: 4294967295,
	}),
	golden: `
		5c000000 1800 0106 01000000 00000000
		0a 30 00 00 00 76 00 01 00000000      # rtmsg: AF_INET6, to /48
		1400 0100 20010db8000700000000000000000000 # RTA_DST
		1400 0500 fe800000000000000000000000000001 # RTA_GATEWAY
		0800 0400 02000000                    # RTA_OIF
		0800 0f00 ffffffff                    # RTA_TABLE, the highest
		0800 0600 ffffffff                    # RTA_PRIORITY, the highest`,
	library: libraryRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, rtmsg(unix.AF_INET6, 48, unix.RT_SCOPE_UNIVERSE),
		attr(unix.RTA_DST, ip6("2001:db8:7::")), attr(unix.RTA_GATEWAY, ip6("fe80::1")), attrUint32(unix.RTA_OIF, 2),
		attrUint32(unix.RTA_TABLE, 4294967295), attrUint32(unix.RTA_PRIORITY, 4294967295)),
}, {
	name:    "delete an IPv6 route to neighbours",
	message: route(unix.RTM_DELROUTE, 0, 2, Route{To: netip.MustParsePrefix("2001:db8:7::/48")}),
	golden: `
		40000000 1900 0100 01000000 00000000  # RTM_DELROUTE
		0a 30 00 00 00 76 00 01 00000000      # rtmsg: scope universe, IPv6 has no other
		1400 0100 20010db8000700000000000000000000
		0800 0400 02000000
		0800 0f00 fe000000`,
	library: libraryRequest(unix.RTM_DELROUTE, 0, rtmsg(unix.AF_INET6, 48, unix.RT_SCOPE_UNIVERSE),
		attr(unix.RTA_DST, ip6("2001:db8:7::")), attrUint32(unix.RTA_OIF, 2), attrUint32(unix.RTA_TABLE, unix.RT_TABLE_MAIN)),
}, {
	name:    "close a socket", // the library sends it, but shows it to nobody; see TestRemovalClosesConnections
	message: destroySocket(unix.AF_INET, socketID()),
	golden: `
		48000000 1500 0100 01000000 00000000  # SOCK_DESTROY
		02 06 00 00 ffffffff                  # inet_diag_req_v2: AF_INET, TCP, every state
		0050 c350                             # ports 80 and 50000
		c0000208 000000000000000000000000     # 192.0.2.8
		c0000264 000000000000000000000000     # 192.0.2.100
		00000000 0102030405060708             # any interface, cookie`,
}, {
	name:    "list the sockets",
	message: listSockets(unix.AF_INET6),
	golden: `
		48000000 1400 0103 01000000 00000000  # SOCK_DIAG_BY_FAMILY, REQUEST|DUMP
		0a 06 00 00 ffffffff                  # inet_diag_req_v2: AF_INET6, TCP, every state
		0000 0000 00000000000000000000000000000000 00000000000000000000000000000000
		00000000 0000000000000000`,
}}

func socketID() []byte {
	id := binary.BigEndian.AppendUint16(nil, 80)
	id = binary.BigEndian.AppendUint16(id, 50000)
	id = append(append(id, ip4(192, 0, 2, 8)...), make([]byte, 12)...)
	id = append(append(id, ip4(192, 0, 2, 100)...), make([]byte, 12)...)
	return append(id, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8)
}

// stepMessage is what a step sends where eth0 has index 2.
func stepMessage(r request) message {
	m, err := r.message(&Handle{indexes: map[string]int{"eth0": 2}})
	if err != nil {
		panic(err)
	}
	return m
}

func TestRequests(t *testing.T) {
	for _, tt := range requests {
		t.Run(tt.name, func(t *testing.T) { checkRequest(t, tt.message, tt.golden, tt.library) })
	}
}

func checkRequest(t *testing.T, m message, want string, library []byte) {
	t.Helper()
	got := m.append(nil, 1, 0)
	if d := cmp.Diff(hex.Dump(golden(t, want)), hex.Dump(got)); littleEndian && d != "" {
		t.Errorf("the bytes (-want +got):\n%s", d)
	}
	if d := cmp.Diff(hex.Dump(library), hex.Dump(got)); library != nil && d != "" {
		t.Errorf("the library's bytes (-library +got):\n%s", d)
	}
	if m.size() != len(got) {
		t.Errorf("size says %d of %d bytes", m.size(), len(got))
	}
}

// Each step that is a request sends the one that its name says.
func TestSteps(t *testing.T) {
	a := Address{Dev: "eth0", Prefix: netip.MustParsePrefix("2001:db8::8/64")}
	r := Route{To: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr("192.0.2.7"), Dev: "eth0"}
	const add, replace = unix.NLM_F_CREATE | unix.NLM_F_EXCL, unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	marked := address(unix.RTM_NEWADDR, add, 2, a.Prefix)
	marked.put(addressProtocol, []byte{118})
	for _, tt := range []struct {
		step request
		want message
	}{
		{downLink{dev: "eth0"}, linkDown(2)},
		{setMTU{"eth0", 1400, 1500}, linkMTU(2, 1400)},
		{markLink{"eth0", "new", "old"}, linkAlias(2, "new")},
		{addAddress{a}, marked},
		{setRoute{Route: r}, route(unix.RTM_NEWROUTE, add, 2, r)},
		{setRoute{r, &Route{}}, route(unix.RTM_NEWROUTE, replace, 2, r)},
	} {
		if d := cmp.Diff(tt.want, stepMessage(tt.step), cmp.AllowUnexported(message{})); d != "" {
			t.Errorf("%s sends (-want +got):\n%s", tt.step, d)
		}
	}
}
