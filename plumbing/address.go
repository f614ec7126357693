package plumbing

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// observeAddresses reads the permanent addresses: what has a lifetime is from a router or
// a DHCP client, and the link-local IPv6 address is the kernel's own.
func (s *State) observeAddresses(inside *netlinkSocket, names map[int]string) error {
	marks := false
	err := inside.all(dump(unix.RTM_GETADDR, unix.AF_UNSPEC), func(b []byte) {
		a, scope, flags, marked := decodeAddress(b, names)
		marks = marks || marked
		switch permanent := flags&unix.IFA_F_PERMANENT != 0; {
		case !a.Prefix.IsValid():
		case permanent && scope != unix.RT_SCOPE_LINK && scope != unix.RT_SCOPE_HOST:
			s.Addresses = append(s.Addresses, a)
		case !permanent && a.Prefix.Addr().Is4():
			s.Passing = append(s.Passing, a)
		}
	})
	if !marks { // this kernel does not keep marks: it has one on a loopback's address
		for k := range s.Addresses {
			s.Addresses[k].Foreign = false
		}
	}
	return err
}

// decodeAddress reads struct ifaddrmsg. marked: somebody has said who has added it.
func decodeAddress(b []byte, names map[int]string) (a Address, scope byte, flags uint32, marked bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return a, 0, 0, false
	}
	flags, scope = uint32(b[2]), b[3]
	a = Address{Dev: names[int(binary.NativeEndian.Uint32(b[4:]))], Foreign: true}
	var own, far netip.Addr
	eachAttr(b[unix.SizeofIfAddrmsg:], func(typ uint16, value []byte) {
		switch {
		case typ == unix.IFA_LOCAL:
			own, _ = netip.AddrFromSlice(value)
		case typ == unix.IFA_ADDRESS: // its peer's, if it has one
			far, _ = netip.AddrFromSlice(value)
		case typ == unix.IFA_FLAGS && len(value) == 4:
			flags = binary.NativeEndian.Uint32(value)
		case typ == addressProtocol && len(value) == 1:
			marked, a.Foreign = true, value[0] != routeProtocol
		}
	})
	if !own.IsValid() {
		own = far
	}
	a.Prefix = netip.PrefixFrom(own, int(b[1]))
	a.Duplicate = flags&unix.IFA_F_DADFAILED != 0
	a.Secondary = own.Is4() && flags&unix.IFA_F_SECONDARY != 0 // of IPv6 the bit says something else
	return a, scope, flags, marked
}
