package plumbing

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

var broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func ethernet(to, from MAC, etherType uint16) []byte {
	b := append(append(make([]byte, 0, 86), to[:]...), from[:]...)
	return binary.BigEndian.AppendUint16(b, etherType)
}

// arpProbe is an ARP request (RFC 826) whose sender is 0.0.0.0: it asks for the
// holder of target and puts nothing in anybody's cache (RFC 5227, 1.1).
func arpProbe(mac MAC, target netip.Addr) []byte {
	return arpRequest(mac, netip.IPv4Unspecified(), target)
}

// arpAnnouncement says that addr is at mac (RFC 5227, 2.3).
func arpAnnouncement(mac MAC, addr netip.Addr) []byte { return arpRequest(mac, addr, addr) }

func arpRequest(mac MAC, sender, target netip.Addr) []byte {
	b := ethernet(broadcast, mac, unix.ETH_P_ARP)
	b = append(b, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, request
	b = append(append(b, mac[:]...), sender.AsSlice()...)
	b = append(append(b, make([]byte, 6)...), target.AsSlice()...)
	return b
}

// parseARP returns the sender of a frame, and whom a probe is for.
func parseARP(b []byte) (from MAC, sender, target netip.Addr, ok bool) {
	if len(b) < 42 || string(b[12:20]) != "\x08\x06\x00\x01\x08\x00\x06\x04" {
		return
	}
	sender, _ = netip.AddrFromSlice(b[28:32])
	target, _ = netip.AddrFromSlice(b[38:42])
	return MAC(b[22:28]), sender, target, true
}

// Neighbour discovery (RFC 4861) message types.
const (
	neighbourSolicit   = 135
	neighbourAdvertise = 136
)

// solicit asks for the holder of target without saying who asks: duplicate
// address detection (RFC 4862, 5.4.2).
func solicit(mac MAC, target netip.Addr) []byte {
	body := append([]byte{neighbourSolicit, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
	return icmp6(mac, netip.IPv6Unspecified(), solicitedNode(target), body)
}

// advertise says that addr is at mac (RFC 4861, 7.2.6), to all nodes, with the override flag
// and the option that has the MAC.
func advertise(mac MAC, addr netip.Addr) []byte {
	body := append([]byte{neighbourAdvertise, 0, 0, 0, 0x20, 0, 0, 0}, addr.AsSlice()...)
	return icmp6(mac, addr, netip.IPv6LinkLocalAllNodes(), append(append(body, 2, 1), mac[:]...))
}

// solicitedNode is the group of all who may hold addr (RFC 4291, 2.7.1).
func solicitedNode(addr netip.Addr) netip.Addr {
	a, group := addr.As16(), netip.MustParseAddr("ff02::1:ff00:0").As16()
	copy(group[13:], a[13:])
	return netip.AddrFrom16(group)
}

// groupMAC is where a multicast group's frames go (RFC 2464, 7).
func groupMAC(group netip.Addr) MAC {
	g := group.As16()
	return MAC{0x33, 0x33, g[12], g[13], g[14], g[15]}
}

// icmp6 wraps an ICMPv6 message for a multicast group of the link.
func icmp6(mac MAC, from, to netip.Addr, body []byte) []byte {
	b := ethernet(groupMAC(to), mac, unix.ETH_P_IPV6)
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	b = append(b, unix.IPPROTO_ICMPV6, 255) // a hop limit of 255 proves it is from this link
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(body[2:], icmp6Checksum(from, to, body))
	return append(b, body...)
}

// icmp6Checksum is RFC 1071's over the pseudo-header of RFC 8200, 8.1. The
// checksum field of body must be zero.
func icmp6Checksum(from, to netip.Addr, body []byte) uint16 {
	sum := uint32(len(body)) + unix.IPPROTO_ICMPV6
	for _, part := range [][]byte{from.AsSlice(), to.AsSlice(), body} {
		for k := 0; k+1 < len(part); k += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[k:]))
		}
		if len(part)%2 == 1 {
			sum += uint32(part[len(part)-1]) << 8
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// parseNeighbour returns what a neighbour discovery frame says: who sent it,
// about which target, and whether it comes from a node that only asks.
func parseNeighbour(b []byte) (from MAC, target netip.Addr, ok bool) {
	const ip6, icmp = 14, 14 + 40
	if len(b) < icmp+24 || string(b[12:14]) != "\x86\xdd" || b[ip6+6] != unix.IPPROTO_ICMPV6 || b[ip6+7] != 255 {
		return
	}
	source, _ := netip.AddrFromSlice(b[ip6+8 : ip6+24])
	switch {
	case b[icmp] == neighbourAdvertise:
	case b[icmp] == neighbourSolicit && source.IsUnspecified(): // another one's probe
	default:
		return
	}
	target, _ = netip.AddrFromSlice(b[icmp+8 : icmp+24])
	return MAC(b[6:12]), target, true
}
