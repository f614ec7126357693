package plumbing

import (
	"bytes"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// observeRoutes reads the routes of ours, the default ones that routers have given, and those
// that somebody has added by hand.
func (s *State) observeRoutes(inside *netlinkSocket, names map[int]string) error {
	heeds := slices.ContainsFunc(s.Links, func(l Link) bool { return l.RA && l.Name != "lo" })
	return inside.all(dump(unix.RTM_GETROUTE, unix.AF_UNSPEC), func(b []byte) {
		r, ok := decodeRoute(b, names)
		switch {
		case !ok:
		case b[5] == routeProtocol && b[7] == unix.RTN_UNICAST && r.Dev != "": // else none that we make
			s.Routes = append(s.Routes, r)
		case b[5] == unix.RTPROT_RA && r.To.Bits() == 0 && r.Via.IsValid() && r.Dev != "" && heeds:
			s.Routers = append(s.Routers, r)
		case byHand(b[5]) && b[7] != unix.RTN_LOCAL:
			s.foreign = append(s.foreign, Foreigner{"route " + routeTypes[b[7]] + r.String(), message{kind: unix.RTM_DELROUTE, body: bytes.Clone(b)}}) // as `ip route flush` does
		}
	})
}

// routeTypes are iproute2's words for those that lead nowhere.
var routeTypes = map[byte]string{
	unix.RTN_BLACKHOLE: "blackhole ", unix.RTN_UNREACHABLE: "unreachable ", unix.RTN_PROHIBIT: "prohibit ", unix.RTN_THROW: "throw ",
}

// decodeRoute reads struct rtmsg; false for what is not IP's, or a cached one.
func decodeRoute(b []byte, names map[int]string) (Route, bool) {
	if len(b) < unix.SizeofRtMsg || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 || number(b[8:12])&unix.RTM_F_CLONED != 0 {
		return Route{}, false
	}
	r := Route{Table: int(b[4]), To: netip.PrefixFrom(unspecified(b[0]), 0)}
	eachAttr(b[unix.SizeofRtMsg:], func(typ uint16, value []byte) {
		addr, _ := netip.AddrFromSlice(value)
		switch typ {
		case unix.RTA_DST:
			r.To = netip.PrefixFrom(addr, int(b[1]))
		case unix.RTA_GATEWAY:
			r.Via = addr
		case unix.RTA_PREFSRC:
			r.Src = addr
		case unix.RTA_OIF:
			r.Dev = names[number(value)]
		case unix.RTA_TABLE:
			r.Table = number(value)
		case unix.RTA_PRIORITY:
			r.Metric = number(value)
		case unix.RTA_FLOW:
			r.Realm = number(value)
		}
	})
	return r.canonical(), true
}

func unspecified(family byte) netip.Addr {
	if family == unix.AF_INET6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}
