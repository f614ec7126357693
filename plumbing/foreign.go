package plumbing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// A Foreigner is something inside that somebody else has added on purpose, and that does
// not keep what is wanted from being there.
type Foreigner struct {
	What string // address 192.0.2.66/24 on eth0
	del  message
}

// Foreigners are the links, the addresses on ours, the routes and the rules that an operator
// has added: routes and rules that a daemon inside has, by their protocol, or a router, are
// not among them.
func (h *Handle) Foreigners(want Network, have State) ([]Foreigner, error) {
	if have.Namespace != Ours {
		return nil, nil
	}
	var list []Foreigner
	names := map[int]string{}
	for _, l := range have.Links {
		names[l.Index] = l.Name
	}
	for _, l := range have.Links {
		if _, ours := want.Interface(l.Name); !ours && !h.place.has(l) && l.Name != "lo" && !slices.Contains(fallbacks, l.Name) {
			list = append(list, Foreigner{"link " + l.Name, linkDelete(l.Index)})
		}
	}
	for _, a := range have.Addresses {
		l, _ := have.Link(a.Dev)
		i, ours := want.Interface(a.Dev)
		if a.Foreign && (ours || a.Dev == "lo") && !slices.Contains(i.Addresses, a.Prefix) {
			list = append(list, Foreigner{fmt.Sprintf("address %s on %s", a.Prefix, a.Dev), address(unix.RTM_DELADDR, 0, l.Index, a.Prefix)})
		}
	}
	for _, of := range []struct {
		dump, del uint16
		read      func(b []byte, names map[int]string) string
	}{
		{unix.RTM_GETROUTE, unix.RTM_DELROUTE, foreignRoute},
		{unix.RTM_GETRULE, unix.RTM_DELRULE, foreignRule},
	} {
		for _, family := range have.Features.families() {
			err := h.inside.all(dump(of.dump, family), func(b []byte) {
				if what := of.read(b, names); what != "" {
					list = append(list, Foreigner{what, message{kind: of.del, body: b}}) // as `ip route flush` does
				}
			})
			if err != nil {
				return nil, fmt.Errorf("cannot look into %s: %w", h.place.Name, err)
			}
		}
	}
	return list, nil
}

// fallbacks are devices that the kernel's tunnels have in each namespace, and nobody can
// delete (net.core.fb_tunnels_only_for_init_net).
var fallbacks = []string{"tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip6gre0", "ip_vti0", "ip6_vti0"}

func (f Features) families() []byte {
	if f.IPv6 {
		return []byte{unix.AF_INET, unix.AF_INET6}
	}
	return []byte{unix.AF_INET}
}

// Prune deletes foreigners. One that is gone by itself is success.
func (h *Handle) Prune(list []Foreigner) error {
	var errs []error
	for _, f := range list {
		err := unlessGone(h.inside.one(f.del))
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = refuse("give it back to the host: ip -n "+h.place.Name+" link set dev IFNAME netns 1", "it is no device that can be deleted")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot delete %s in %s: %w", f.What, h.place.Name, err))
		}
	}
	return errors.Join(errs...)
}

// byHand are the protocols of what people add: iproute2 says boot, scripts say static.
func byHand(protocol byte) bool {
	return protocol == unix.RTPROT_BOOT || protocol == unix.RTPROT_STATIC
}

// foreignRoute says what a route is (struct rtmsg), "" unless somebody has added it by hand.
func foreignRoute(b []byte, names map[int]string) string {
	if len(b) < unix.SizeofRtMsg || !byHand(b[5]) || b[7] == unix.RTN_LOCAL {
		return ""
	}
	r := Route{Table: int(b[4]), To: netip.PrefixFrom(unspecified(b[0]), 0)}
	eachAttr(b[unix.SizeofRtMsg:], func(typ uint16, value []byte) {
		addr, _ := netip.AddrFromSlice(value)
		switch typ {
		case unix.RTA_DST:
			r.To = netip.PrefixFrom(addr, int(b[1]))
		case unix.RTA_GATEWAY:
			r.Via = addr
		case unix.RTA_OIF:
			r.Dev = names[number(value)]
		case unix.RTA_TABLE:
			r.Table = number(value)
		case unix.RTA_PRIORITY:
			r.Metric = number(value)
		}
	})
	kinds := map[byte]string{unix.RTN_BLACKHOLE: "blackhole ", unix.RTN_UNREACHABLE: "unreachable ", unix.RTN_PROHIBIT: "prohibit ", unix.RTN_THROW: "throw "}
	return "route " + kinds[b[7]] + r.canonical().String()
}

// foreignRule says which rule it is (struct fib_rule_hdr), "" unless somebody has added it
// by hand.
func foreignRule(b []byte, _ map[int]string) string {
	if len(b) < unix.SizeofRtMsg {
		return ""
	}
	protocol, priority := byte(unix.RTPROT_UNSPEC), 0
	eachAttr(b[unix.SizeofRtMsg:], func(typ uint16, value []byte) {
		switch {
		case typ == unix.FRA_PROTOCOL && len(value) == 1:
			protocol = value[0]
		case typ == unix.FRA_PRIORITY:
			priority = number(value)
		}
	})
	if protocol != unix.RTPROT_UNSPEC && !byHand(protocol) { // iproute2 6.1 does not say
		return ""
	}
	families := map[byte]string{unix.AF_INET: "IPv4", unix.AF_INET6: "IPv6"}
	return fmt.Sprintf("%s rule %d", families[b[0]], priority)
}

func unspecified(family byte) netip.Addr {
	if family == unix.AF_INET6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// number is an attribute of four bytes.
func number(value []byte) int {
	if len(value) != 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(value))
}
