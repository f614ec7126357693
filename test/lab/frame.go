package lab

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	icmpSolicitation  = 135 // RFC 4861, 4.3
	icmpAdvertisement = 136 // RFC 4861, 4.4
)

var allNodes = netip.MustParseAddr("ff02::1")

// Tags are the frame's VLANs, the outermost first and 802.1ad marked: "" for none,
// 10, ad100.10.
func (f Frame) Tags() string {
	var tags []string
	add := func(tpid uint16, id int) {
		prefix := ""
		if tpid == unix.ETH_P_8021AD {
			prefix = "ad"
		}
		tags = append(tags, prefix+strconv.Itoa(id))
	}
	if f.VLAN >= 0 {
		add(f.TPID, f.VLAN)
	}
	tpid, rest := f.EtherType, f.Payload
	for (tpid == unix.ETH_P_8021Q || tpid == unix.ETH_P_8021AD) && len(rest) >= 4 {
		add(tpid, int(binary.BigEndian.Uint16(rest)&0x0fff))
		tpid, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
	}
	return strings.Join(tags, ".")
}

type arpPacket struct {
	request        bool
	sender, target netip.Addr
}

// arp reads the frame as ARP for IPv4 on Ethernet (RFC 826).
func (f Frame) arp() (arpPacket, bool) {
	p := f.Payload
	if f.EtherType != unix.ETH_P_ARP || len(p) < 28 {
		return arpPacket{}, false
	}
	return arpPacket{
		request: binary.BigEndian.Uint16(p[6:]) == 1,
		sender:  netip.AddrFrom4([4]byte(p[14:18])),
		target:  netip.AddrFrom4([4]byte(p[24:28])),
	}, true
}

type neighbourPacket struct {
	from, to, target netip.Addr
	solicited        bool
}

// icmp6 reads the frame as a neighbour message of the type given, without
// extension headers before it: nobody sends these with any.
func (f Frame) icmp6(kind byte) (neighbourPacket, bool) {
	p := f.Payload
	if f.EtherType != unix.ETH_P_IPV6 || len(p) < 64 || p[6] != unix.IPPROTO_ICMPV6 || p[40] != kind {
		return neighbourPacket{}, false
	}
	return neighbourPacket{
		from:      netip.AddrFrom16([16]byte(p[8:24])),
		to:        netip.AddrFrom16([16]byte(p[24:40])),
		target:    netip.AddrFrom16([16]byte(p[48:64])),
		solicited: kind == icmpAdvertisement && p[44]&0x40 != 0,
	}, true
}

func (f Frame) advertisement() (neighbourPacket, bool) { return f.icmp6(icmpAdvertisement) }
