package plumbing

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// vlanInfo is what kind of device a VLAN is, as the library encodes it: its own
// flags are known to iproute2 and not to it.
func vlanInfo(id uint16, protocol netlink.VlanProtocol) *nl.RtAttr {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vlan"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_VLAN_ID, nl.Uint16Attr(id))
	data.AddRtAttr(nl.IFLA_VLAN_FLAGS, append(nl.Uint32Attr(4), nl.Uint32Attr(4)...))
	data.AddRtAttr(nl.IFLA_VLAN_PROTOCOL, binary.BigEndian.AppendUint16(nil, uint16(protocol)))
	return info
}

func TestVLANRequests(t *testing.T) {
	inner, outer := tag{10, unix.ETH_P_8021Q}, tag{4094, unix.ETH_P_8021AD}
	altname := nl.NewRtAttr(unix.IFLA_PROP_LIST|unix.NLA_F_NESTED, nil)
	altname.AddRtAttr(unix.IFLA_ALT_IFNAME, nl.ZeroTerminated("vsrun-eth1.10"))
	for _, tt := range []struct {
		name    string
		message message
		golden  string
		library []byte
	}{{
		name:    "make a VLAN inside",
		message: newLink("eth0", 3, form{Vlan, "", inner}, nil, mac8, 1500, 7),
		golden: `
			7c000000 1000 0106 01000000 00000000  # length 124, RTM_NEWLINK, REQUEST|CREATE|EXCL, seq 1
			00 00 0000 00000000 00000000 80000000 # ifinfomsg: nothing of IFF_NOARP
			0900 0300 6574683000 000000           # IFLA_IFNAME "eth0"
			0800 0500 03000000                    # IFLA_LINK 3
			0a00 0100 020000000008 0000           # IFLA_ADDRESS
			0800 0400 dc050000                    # IFLA_MTU 1500
			0800 1c00 07000000                    # IFLA_NET_NS_FD 7
			2c00 1200                             # IFLA_LINKINFO
			  0800 0100 766c616e                  #   IFLA_INFO_KIND "vlan"
			  2000 0200                           #   IFLA_INFO_DATA
			    0600 0100 0a00 0000               #     IFLA_VLAN_ID 10
			    0c00 0200 04000000 04000000       #     IFLA_VLAN_FLAGS: LOOSE_BINDING of LOOSE_BINDING
			    0600 0500 8100 0000               #     IFLA_VLAN_PROTOCOL 802.1Q, in network byte order`,
		library: libraryRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfo(0, 0, unix.IFF_NOARP),
			attr(unix.IFLA_IFNAME, nl.ZeroTerminated("eth0")), attrUint32(unix.IFLA_LINK, 3),
			attr(unix.IFLA_ADDRESS, mac8[:]), attrUint32(unix.IFLA_MTU, 1500),
			attrUint32(unix.IFLA_NET_NS_FD, 7), vlanInfo(10, netlink.VLAN_PROTOCOL_8021Q)),
	}, {
		name:    "make a VLAN on the host",
		message: newVLAN("vsvlan4094", 3, outer),
		golden: `
			6c000000 1000 0106 01000000 00000000  # length 108, RTM_NEWLINK, REQUEST|CREATE|EXCL
			00 00 0000 00000000 00000000 00000000 # ifinfomsg: down
			0f00 0300 7673766c616e3430393400 00   # IFLA_IFNAME "vsvlan4094"
			0800 0500 03000000                    # IFLA_LINK 3
			0800 1b00 76000000                    # IFLA_GROUP 118
			2c00 1200                             # IFLA_LINKINFO
			  0800 0100 766c616e                  #   IFLA_INFO_KIND "vlan"
			  2000 0200                           #   IFLA_INFO_DATA
			    0600 0100 fe0f 0000               #     IFLA_VLAN_ID 4094
			    0c00 0200 04000000 04000000       #     IFLA_VLAN_FLAGS
			    0600 0500 88a8 0000               #     IFLA_VLAN_PROTOCOL 802.1ad`,
		library: libraryRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfo(0, 0, 0),
			attr(unix.IFLA_IFNAME, nl.ZeroTerminated("vsvlan4094")), attrUint32(unix.IFLA_LINK, 3),
			attrUint32(unix.IFLA_GROUP, 118), vlanInfo(4094, netlink.VLAN_PROTOCOL_8021AD)),
	}, {
		name:    "a second name",
		message: linkAltname(2, "vsrun-eth1.10"),
		golden: `
			38000000 6c00 010e 01000000 00000000  # RTM_NEWLINKPROP, REQUEST|CREATE|EXCL|APPEND
			00 00 0000 02000000 00000000 00000000 # ifinfomsg: index 2
			1800 3480                             # IFLA_PROP_LIST, NLA_F_NESTED
			  1200 3500 767372756e2d657468312e313000 0000 # IFLA_ALT_IFNAME "vsrun-eth1.10"`,
		library: libraryRequest(unix.RTM_NEWLINKPROP, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_APPEND, ifinfo(2, 0, 0), altname),
	}, {
		name:    "up, and without ARP",
		message: linkUpQuietly(2),
		golden: `
			20000000 1000 0100 01000000 00000000
			00 00 0000 02000000 81000000 81000000 # ifinfomsg: index 2, IFF_UP|IFF_NOARP of both`,
		library: libraryRequest(unix.RTM_NEWLINK, 0, ifinfo(2, unix.IFF_UP|unix.IFF_NOARP, unix.IFF_UP|unix.IFF_NOARP)),
	}} {
		t.Run(tt.name, func(t *testing.T) { checkRequest(t, tt.message, tt.golden, tt.library) })
	}
}

// What is asked for is what is read back.
func TestDecodeDevice(t *testing.T) {
	for _, want := range []tag{{10, unix.ETH_P_8021Q}, {4094, unix.ETH_P_8021AD}} {
		d, ok := decodeDevice(newVLAN("vsvlan", 3, want).body)
		if !ok || d.form() != (form{Vlan, "", want}) || d.Parent != 3 || !d.isOurVLAN() || d.sitsOn() != 3 {
			t.Errorf("vlan %s: %+v", want, d)
		}
	}
	sources := []MAC{{2, 7}, {2, 8}}
	for _, tr := range traits[:slices.IndexFunc(traits, func(t trait) bool { return t.kind != Macvlan })] {
		want := form{Macvlan, tr.mode, tag{}}
		d, ok := decodeDevice(newLink("eth0", 3, want, sources, MAC{2, 1}, 1500, 4).body)
		if l := d.link(); !ok || l.form != want || l.MTU != 1500 || l.RA || !slices.Equal(l.Sources, sources) {
			t.Errorf("%s: %+v", tr, l)
		}
	}
	if _, ok := decodeDevice(make([]byte, unix.SizeofIfInfomsg-1)); ok {
		t.Error("half a link is one")
	}
}
