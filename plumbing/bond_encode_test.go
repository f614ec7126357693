package plumbing

import (
	"encoding/hex"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// encoded are options as the kernel gets them, where eth2 has index 7.
func encoded(settings ...setting) func(*message) {
	h := &Handle{indexes: map[string]int{"eth2": 7}}
	options, err := h.bondOptions(settings)
	if err != nil {
		panic(err)
	}
	return options
}

// bondInfo is IFLA_LINKINFO as the library makes it.
func bondInfo(data ...*nl.RtAttr) *nl.RtAttr {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bond"))
	options := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	for _, d := range data {
		options.AddChild(d)
	}
	return info
}

func attr8(typ int, v uint8) *nl.RtAttr { return attr(typ, []byte{v}) }

func arpTargets(addrs ...net.IP) *nl.RtAttr {
	list := attr(nl.IFLA_BOND_ARP_IP_TARGET, nil)
	for k, a := range addrs {
		list.AddRtAttr(k, a.To4())
	}
	return list
}

// every is a bond with every option that one can have at once, and the other half.
var (
	everyAB = abBond(func(b *Bond) {
		b.ARPInterval, b.ARPTargets, b.ARPValidate = 200, addrs("192.0.2.9", "192.0.2.10"), "filter_backup"
		b.Primary, b.PrimaryReselect, b.FailOverMAC = "eth2", "failure", "follow"
	})
	everyLACP = abBond(func(b *Bond) {
		b.Mode, b.Miimon, b.UpDelay, b.DownDelay, b.HashPolicy, b.MinLinks, b.LACPRate = LACP, 50, 100, 150, "encap3+4", 2, "fast"
	})
)

var bondRequests = []struct {
	name    string
	message message
	golden  string
	library []byte
}{{
	name:    "make a bond that asks",
	message: newBond("bond0", encoded(everyAB.settings()...)),
	golden: `
		98000000 1000 0106 01000000 00000000  # length 152, RTM_NEWLINK, REQUEST|CREATE|EXCL, seq 1
		00 00 0000 00000000 00000000 00000000 # ifinfomsg: no index, no flags
		0a00 0300 626f6e643000 0000           # IFLA_IFNAME "bond0"
		0800 1b00 76000000                    # IFLA_GROUP 118
		6400 1200                             # IFLA_LINKINFO
		  0800 0100 626f6e64                  #   IFLA_INFO_KIND "bond"
		  5800 0200                           #   IFLA_INFO_DATA
		    0500 0100 01 000000               #     IFLA_BOND_MODE active-backup
		    0800 0300 00000000                #     IFLA_BOND_MIIMON 0
		    0800 0700 c8000000                #     IFLA_BOND_ARP_INTERVAL 200
		    1400 0800                         #     IFLA_BOND_ARP_IP_TARGET
		      0800 0000 c000020a              #       192.0.2.10
		      0800 0100 c0000209              #       192.0.2.9
		    0800 0900 06000000                #     IFLA_BOND_ARP_VALIDATE filter_backup
		    0500 0c00 02 000000               #     IFLA_BOND_PRIMARY_RESELECT failure
		    0500 0d00 02 000000               #     IFLA_BOND_FAIL_OVER_MAC follow
		    0500 1000 03 000000               #     IFLA_BOND_NUM_PEER_NOTIF 3
		    0800 0b00 07000000                #     IFLA_BOND_PRIMARY 7`,
	library: libraryRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfo(0, 0, 0),
		attr(unix.IFLA_IFNAME, nl.ZeroTerminated("bond0")), attrUint32(unix.IFLA_GROUP, 118),
		bondInfo(attr8(nl.IFLA_BOND_MODE, 1), attrUint32(nl.IFLA_BOND_MIIMON, 0), attrUint32(nl.IFLA_BOND_ARP_INTERVAL, 200),
			arpTargets(net.IPv4(192, 0, 2, 10), net.IPv4(192, 0, 2, 9)), attrUint32(nl.IFLA_BOND_ARP_VALIDATE, 6),
			attr8(nl.IFLA_BOND_PRIMARY_RESELECT, 2), attr8(nl.IFLA_BOND_FAIL_OVER_MAC, 2),
			attr8(nl.IFLA_BOND_NUM_PEER_NOTIF, 3), attrUint32(nl.IFLA_BOND_PRIMARY, 7))),
}, {
	name:    "make a bond that shares",
	message: newBond("bond0", encoded(everyLACP.settings()...)),
	library: libraryRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfo(0, 0, 0),
		attr(unix.IFLA_IFNAME, nl.ZeroTerminated("bond0")), attrUint32(unix.IFLA_GROUP, 118),
		bondInfo(attr8(nl.IFLA_BOND_MODE, 4), attrUint32(nl.IFLA_BOND_MIIMON, 50), attrUint32(nl.IFLA_BOND_UPDELAY, 100),
			attrUint32(nl.IFLA_BOND_DOWNDELAY, 150), attr8(nl.IFLA_BOND_XMIT_HASH_POLICY, 4), attr8(nl.IFLA_BOND_NUM_PEER_NOTIF, 3),
			attrUint32(nl.IFLA_BOND_MIN_LINKS, 2), attr8(nl.IFLA_BOND_AD_LACP_RATE, 1))),
}, {
	name:    "change a bond",
	message: linkBond(2, encoded(setting{"miimon", "100"}, setting{"primary", ""})),
	golden: `
		40000000 1000 0100 01000000 00000000  # RTM_NEWLINK, REQUEST
		00 00 0000 02000000 00000000 00000000 # ifinfomsg: index 2
		2000 1200                             # IFLA_LINKINFO
		  0800 0100 626f6e64
		  1400 0200
		    0800 0300 64000000                #     IFLA_BOND_MIIMON 100
		    0800 0b00 00000000                #     IFLA_BOND_PRIMARY none`,
	library: libraryRequest(unix.RTM_NEWLINK, 0, ifinfo(2, 0, 0),
		bondInfo(attrUint32(nl.IFLA_BOND_MIIMON, 100), attrUint32(nl.IFLA_BOND_PRIMARY, 0))),
}, {
	name:    "add a member",
	message: linkMaster(2, 5),
	golden: `
		28000000 1000 0100 01000000 00000000
		00 00 0000 02000000 00000000 00000000
		0800 0a00 05000000                    # IFLA_MASTER 5`,
	library: libraryRequest(unix.RTM_NEWLINK, 0, ifinfo(2, 0, 0), attrUint32(unix.IFLA_MASTER, 5)),
}, {
	name:    "take a member out",
	message: linkMaster(2, 0),
	library: libraryRequest(unix.RTM_NEWLINK, 0, ifinfo(2, 0, 0), attrUint32(unix.IFLA_MASTER, 0)),
}, {
	name: "give an IPv4 address back",
	message: ownAddress(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, 2, OwnAddress{
		Prefix: prefixes("192.0.2.1/24")[0], Broadcast: addrs("192.0.2.255")[0], Label: "eth1:a", NoPrefixRoute: true,
	}),
	golden: `
		44000000 1400 0105 01000000 00000000  # RTM_NEWADDR, REQUEST|CREATE|REPLACE
		02 18 00 00 02000000                  # ifaddrmsg: AF_INET, /24, scope universe, index 2
		0800 0200 c0000201                    # IFA_LOCAL
		0800 0100 c0000201                    # IFA_ADDRESS
		0800 0400 c00002ff                    # IFA_BROADCAST
		0b00 0300 657468313a6100 00           # IFA_LABEL "eth1:a"
		0800 0800 00020000                    # IFA_FLAGS NOPREFIXROUTE`,
	library: libraryRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, ifaddr(unix.AF_INET, 24, 0, 2),
		attr(unix.IFA_LOCAL, ip4(192, 0, 2, 1)), attr(unix.IFA_ADDRESS, ip4(192, 0, 2, 1)), attr(unix.IFA_BROADCAST, ip4(192, 0, 2, 255)),
		attr(unix.IFA_LABEL, nl.ZeroTerminated("eth1:a")), attrUint32(unix.IFA_FLAGS, unix.IFA_F_NOPREFIXROUTE)),
}, {
	name: "give a point-to-point address back", // the prefix length is the peer's
	message: ownAddress(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, 2, OwnAddress{
		Prefix: prefixes("203.0.113.1/32")[0], Peer: prefixes("203.0.113.2/30")[0], Scope: unix.RT_SCOPE_LINK,
	}),
	library: libraryRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, ifaddr(unix.AF_INET, 30, unix.RT_SCOPE_LINK, 2),
		attr(unix.IFA_LOCAL, ip4(203, 0, 113, 1)), attr(unix.IFA_ADDRESS, ip4(203, 0, 113, 2)), attrUint32(unix.IFA_FLAGS, 0)),
}, {
	name:    "take an IPv6 address away",
	message: ownAddress(unix.RTM_DELADDR, 0, 2, OwnAddress{Prefix: prefixes("2001:db8::1/64")[0], NoDAD: true}),
	library: libraryRequest(unix.RTM_DELADDR, 0, ifaddr(unix.AF_INET6, 64, 0, 2),
		attr(unix.IFA_LOCAL, ip6("2001:db8::1")), attr(unix.IFA_ADDRESS, ip6("2001:db8::1")), attrUint32(unix.IFA_FLAGS, unix.IFA_F_NODAD)),
}}

func TestBondRequests(t *testing.T) {
	for _, tt := range bondRequests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.message.append(nil, 1, 0)
			if d := cmp.Diff(hex.Dump(golden(t, tt.golden)), hex.Dump(got)); littleEndian && tt.golden != "" && d != "" {
				t.Errorf("the bytes (-want +got):\n%s", d)
			}
			if d := cmp.Diff(hex.Dump(tt.library), hex.Dump(got)); d != "" {
				t.Errorf("the library's bytes (-library +got):\n%s", d)
			}
			if tt.message.size() != len(got) {
				t.Errorf("size says %d of %d bytes", tt.message.size(), len(got))
			}
		})
	}
}

// A number that this table has for a word is the kernel's, as the library knows it.
func TestBondWords(t *testing.T) {
	for k, mode := range bondModes {
		if got := optionNamed("mode").number(mode); got != k || optionNamed("mode").word(k) != mode {
			t.Errorf("%s is %d", mode, got)
		}
	}
	for name, attr := range map[string]uint16{
		"mode": nl.IFLA_BOND_MODE, "miimon": nl.IFLA_BOND_MIIMON, "updelay": nl.IFLA_BOND_UPDELAY, "downdelay": nl.IFLA_BOND_DOWNDELAY,
		"arp_interval": nl.IFLA_BOND_ARP_INTERVAL, "arp_ip_target": nl.IFLA_BOND_ARP_IP_TARGET, "arp_validate": nl.IFLA_BOND_ARP_VALIDATE,
		"primary": nl.IFLA_BOND_PRIMARY, "primary_reselect": nl.IFLA_BOND_PRIMARY_RESELECT, "fail_over_mac": nl.IFLA_BOND_FAIL_OVER_MAC,
		"xmit_hash_policy": nl.IFLA_BOND_XMIT_HASH_POLICY, "num_grat_arp": nl.IFLA_BOND_NUM_PEER_NOTIF, "min_links": nl.IFLA_BOND_MIN_LINKS,
		"lacp_rate": nl.IFLA_BOND_AD_LACP_RATE,
	} {
		if got := optionNamed(name).attr; got != attr {
			t.Errorf("%s is attribute %d, not %d", name, got, attr)
		}
	}
	// What a later kernel has is not read as something else.
	for _, o := range bondOptions {
		if o.words != nil && (o.word(len(o.words)) != "" || o.word(-1) != "") {
			t.Errorf("%s has a word for an unknown number", o.name)
		}
	}
}
