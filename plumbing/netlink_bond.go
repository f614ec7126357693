package plumbing

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// This file alone has the library decode: what bonds, and their members, tell of themselves
// is much. Dumps that the kernel had to interrupt are read again (netlinksafe).

// OurBonds are the names of the host's bonds that we made.
func (h *Handle) OurBonds() ([]string, error) {
	links, err := h.host.devices()
	var names []string
	for _, d := range links {
		if d.port().isOurBond() {
			names = append(names, d.Name)
		}
	}
	return names, err
}

// ObserveBond reads what the host holds of a bond, of its members, of those that it
// should have, and of others, which may have been.
func (h *Handle) ObserveBond(want Bond, others ...string) (BondState, error) {
	s := BondState{Options: map[string]string{}}
	host, err := netlinksafe.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return s, err
	}
	defer host.Close()
	links, err := host.LinkList()
	if err != nil {
		return s, err
	}
	devices, err := h.host.devices()
	if err != nil {
		return s, err
	}
	used, err := h.satOn(nil)
	if err != nil {
		return s, err
	}
	names, ports := map[int]string{}, map[int]Port{}
	for _, d := range devices {
		names[d.index], ports[d.index] = d.Name, d.port()
		used[d.sitsOn()] = true
	}
	master := 0
	for _, l := range links {
		if port, there := ports[l.Attrs().Index]; there && port.Name == want.Name {
			s.Device, s.InUse, master = &port, used[port.Index], port.Index
			s.Carrier = l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
			copy(s.MAC[:], l.Attrs().HardwareAddr)
			if b, ok := l.(*netlink.Bond); ok {
				s.Options, s.Active = decodeBond(b, names), names[b.ActiveSlave]
			}
			addrs, err := host.AddrList(l, netlink.FAMILY_ALL)
			if err != nil {
				return s, err
			}
			for _, a := range addrs {
				addr, _ := netip.AddrFromSlice(a.IP)
				port.Addresses = append(port.Addresses, addr.Unmap())
			}
		}
	}
	for _, l := range links {
		a := l.Attrs()
		enslaved := master != 0 && a.MasterIndex == master
		port, there := ports[a.Index]
		if !there || !enslaved && !slices.Contains(want.Members, a.Name) && !slices.Contains(others, a.Name) {
			continue
		}
		m, err := h.observeMember(host, l, port, names)
		if err != nil {
			return s, err
		}
		m.Enslaved, m.InUse = enslaved, used[a.Index]
		s.Members = append(s.Members, m)
	}
	s.Idle = s.untouched()
	return s, nil
}

func (h *Handle) observeMember(host netlinksafe.Handle, l netlink.Link, port Port, names map[int]string) (Member, error) {
	a := l.Attrs()
	m := Member{Port: port}
	m.Master = names[a.MasterIndex]
	copy(m.MAC[:], a.HardwareAddr)
	if b, ok := a.Slave.(*netlink.BondSlave); ok {
		copy(m.MAC[:], b.PermHardwareAddr)
		m.MII = strings.ToLower(b.MiiStatus.String())
		m.Backup = b.State == netlink.BondStateBackup
		m.Failures = int(b.LinkFailureCount)
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		addrs, err := host.AddrList(l, family)
		if err != nil {
			return m, err
		}
		if family == netlink.FAMILY_V6 { // of one scope the latest is the first (ipv6_link_dev_addr)
			slices.Reverse(addrs)
		}
		for _, a := range addrs {
			if a.Flags&unix.IFA_F_PERMANENT != 0 && !kernelMade(a, m.MAC) {
				m.Own = append(m.Own, decodeOwnAddress(a))
			}
		}
	}
	err := h.host.all(dump(unix.RTM_GETROUTE, unix.AF_UNSPEC), func(b []byte) {
		r, ok := decodeRoute(b, names)
		if ok && r.Dev == a.Name && b[5] != unix.RTPROT_KERNEL && b[5] != unix.RTPROT_RA && b[7] == unix.RTN_UNICAST {
			m.Routed = &r
		}
	})
	return m, err
}

// kernelMade tells whether the kernel gave a device the address by itself, as it
// will again: the link-local one (addrconf_add_linklocal).
func kernelMade(a netlink.Addr, mac MAC) bool {
	if len(a.IP) != 16 || a.Scope != unix.RT_SCOPE_LINK {
		return false
	}
	eui64 := []byte{0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}
	return a.Flags&unix.IFA_F_STABLE_PRIVACY != 0 || a.IP.Equal(eui64)
}

func decodeOwnAddress(a netlink.Addr) OwnAddress {
	own := OwnAddress{
		Prefix:        decodePrefix(a.IPNet),
		Label:         a.Label,
		Scope:         a.Scope,
		NoPrefixRoute: a.Flags&unix.IFA_F_NOPREFIXROUTE != 0,
		NoDAD:         a.Flags&unix.IFA_F_NODAD != 0,
	}
	if a.Peer != nil && !a.Peer.IP.Equal(a.IP) {
		own.Peer = decodePrefix(a.Peer)
	}
	if b, ok := netip.AddrFromSlice(a.Broadcast); ok {
		own.Broadcast = b.Unmap()
	}
	return own
}

// decodeBond reads the options that we set.
func decodeBond(b *netlink.Bond, names map[int]string) map[string]string {
	options := map[string]string{"primary": names[b.Primary]}
	for name, n := range map[string]int{
		"mode": int(b.Mode), "miimon": b.Miimon, "updelay": b.UpDelay, "downdelay": b.DownDelay,
		"arp_interval": b.ArpInterval, "arp_validate": int(b.ArpValidate),
		"primary_reselect": int(b.PrimaryReselect), "fail_over_mac": int(b.FailOverMac),
		"xmit_hash_policy": int(b.XmitHashPolicy), "num_grat_arp": b.NumPeerNotif,
		"min_links": b.MinLinks, "lacp_rate": int(b.LacpRate),
	} {
		options[name] = optionNamed(name).word(n)
	}
	var targets []netip.Addr
	for _, t := range b.ArpIpTargets {
		if a, ok := netip.AddrFromSlice(t); ok {
			targets = append(targets, a.Unmap())
		}
	}
	options["arp_ip_target"] = join(targets)
	return options
}

func decodePrefix(n *net.IPNet) netip.Prefix {
	addr, _ := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), ones)
}
