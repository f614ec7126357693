package plumbing

import (
	"encoding/binary"
	"errors"
	"fmt"
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
func (p Place) Foreigners(want Network, have State) []Foreigner {
	if have.Namespace != Ours {
		return nil
	}
	var list []Foreigner
	for _, l := range have.Links {
		if _, ours := want.Interface(l.Name); !ours && !p.has(l) && l.Name != "lo" && !slices.Contains(fallbacks, l.Name) {
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
	return append(list, have.foreign...)
}

// fallbacks are devices that the kernel's tunnels have in each namespace, and nobody can
// delete (net.core.fb_tunnels_only_for_init_net).
var fallbacks = []string{"tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip6gre0", "ip_vti0", "ip6_vti0"}

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

// foreignRule says which rule it is (struct fib_rule_hdr), "" unless somebody has added it
// by hand.
func foreignRule(b []byte) string {
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

// number is an attribute of four bytes.
func number(value []byte) int {
	if len(value) != 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(value))
}
