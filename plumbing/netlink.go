package plumbing

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
)

// This file is the reading side: the library decodes, dumps that the kernel
// had to interrupt are read again (netlinksafe).

// Observe reads what the kernel holds, of what matters to want.
func (h *Handle) Observe(want Network) (State, error) {
	s := State{Ports: map[string]Port{}, Features: features()}
	if err := s.observeHost(want); err != nil {
		return State{}, fmt.Errorf("cannot look at the host's devices: %w", err)
	}
	if h.ns == nil {
		return s, nil
	}
	if err := h.ns.Do(s.observeInside); err != nil {
		return State{}, fmt.Errorf("cannot look into %s: %w", h.place.Name, err)
	}
	if err := s.observeAddresses(h.inside); err != nil {
		return State{}, fmt.Errorf("cannot look into %s: %w", h.place.Name, err)
	}
	s.Namespace = Foreign
	if lo, ok := s.Link("lo"); ok && lo.Alias == h.place.mark("") {
		s.Namespace = Ours
	}
	clear(h.indexes)
	for _, l := range s.Links {
		h.indexes[l.Name] = l.Index
	}
	return s, nil
}

func features() Features {
	there := func(path string) bool { _, err := os.Stat(path); return err == nil }
	return Features{
		IPv6:          there("/proc/sys/net/ipv6/conf"),
		OptimisticDAD: there("/proc/sys/net/ipv6/conf/all/optimistic_dad"),
	}
}

func (s *State) observeHost(want Network) error {
	if len(want.Interfaces) == 0 {
		return nil
	}
	host, err := netlinksafe.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer host.Close()
	for _, i := range want.Interfaces {
		link, err := host.LinkByName(i.Port)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			links, err := host.LinkList()
			if err != nil {
				return err
			}
			s.nameLinks(links)
			continue
		}
		if err == nil {
			err = s.observePort(host, i.Port, link)
		}
		if err != nil {
			return err
		}
	}
	return s.observeVLANs(host, want)
}

// observePort reads a device of the host; the kernel may have found it by an
// alternative name.
func (s *State) observePort(host netlinksafe.Handle, path string, link netlink.Link) error {
	port := decodePort(link)
	if !strings.Contains(path, "/") {
		port.Name = path
	}
	addrs, err := host.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		addr, _ := netip.AddrFromSlice(a.IP)
		port.Addresses = append(port.Addresses, addr.Unmap())
	}
	if master := link.Attrs().MasterIndex; master != 0 {
		m, err := host.LinkByIndex(master)
		if err != nil {
			return err
		}
		port.Master, port.MasterKind = m.Attrs().Name, m.Type()
	}
	s.Ports[path] = port
	return nil
}

// observeVLANs finds the VLAN devices by what they are: the kernel has one at
// most of each on a device.
func (s *State) observeVLANs(host netlinksafe.Handle, want Network) error {
	var links []netlink.Link
	for _, i := range want.Interfaces {
		for _, l := range lowers(i.Port, i.VLAN) {
			on, ok := s.Ports[l.on]
			if !ok {
				break
			}
			if links == nil {
				var err error
				if links, err = host.LinkList(); err != nil {
					return err
				}
			}
			k := slices.IndexFunc(links, func(link netlink.Link) bool { return l.is(link, on.Index) })
			if k < 0 {
				s.nameLinks(links)
				break
			}
			if err := s.observePort(host, l.path, links[k]); err != nil {
				return err
			}
			if v := s.Ports[l.path]; v.Ours {
				v.Loud = links[k].Attrs().RawFlags&unix.IFF_NOARP == 0 || isLoud(v.Name, s.Features)
				s.Ports[l.path] = v
			}
		}
	}
	return nil
}

// isLoud tells whether the host takes in what comes for it there, or has IPv6. Either
// kind of reverse path filter drops it all, for want of an address on the device.
func isLoud(dev string, f Features) bool {
	return slices.ContainsFunc(quietSysctls(dev, f), func(c sysctl) bool {
		value, err := c.read()
		return err == nil && value == "0"
	})
}

// is reports whether link is this VLAN of the device with that index.
func (l lower) is(link netlink.Link, on int) bool {
	v, ok := link.(*netlink.Vlan)
	return ok && v.ParentIndex == on && v.NetNsID < 0 && decodeTag(v) == l.tag
}

func decodeTag(v *netlink.Vlan) tag { return tag{v.VlanId, uint16(v.VlanProtocol)} }

func decodePort(l netlink.Link) Port {
	a := l.Attrs()
	return Port{
		Name:     a.Name,
		Kind:     l.Type(),
		Index:    a.Index,
		MTU:      a.MTU,
		Up:       a.RawFlags&unix.IFF_UP != 0,
		Loopback: a.RawFlags&unix.IFF_LOOPBACK != 0,
		Ours:     a.Group == deviceGroup,
		Alias:    a.Alias,
	}
}

// nameLinks reads what the host's devices are called, and which of them lead
// somewhere and are not our own.
func (s *State) nameLinks(links []netlink.Link) {
	s.HostLinks, s.HostNames, s.HostIndex = nil, nil, map[int]HostLink{}
	for _, l := range links {
		a := l.Attrs()
		s.HostIndex[a.Index] = HostLink{a.Name, a.ParentIndex}
		s.HostNames = append(append(s.HostNames, a.Name), a.AltNames...)
		_, vlan := l.(*netlink.Vlan)
		if a.RawFlags&unix.IFF_LOOPBACK == 0 && !(vlan && a.Group == deviceGroup) {
			s.HostLinks = append(s.HostLinks, a.Name)
		}
	}
	slices.Sort(s.HostLinks)
}

// observeInside runs in the namespace.
func (s *State) observeInside() error {
	inside, err := netlinksafe.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer inside.Close()
	links, err := inside.LinkList()
	if err != nil {
		return err
	}
	names := map[int]string{}
	for _, l := range links {
		s.Links = append(s.Links, decodeLink(l))
		names[l.Attrs().Index] = l.Attrs().Name
	}
	if err := s.observeRoutes(inside, names); err != nil {
		return err
	}
	s.Sysctls = map[string]string{}
	for _, c := range serverSysctls {
		if s.Sysctls[c.key], err = c.read(); err != nil {
			return err
		}
	}
	return nil
}

func decodeLink(l netlink.Link) Link {
	a := l.Attrs()
	link := Link{
		Name:   a.Name,
		Index:  a.Index,
		Kind:   Kind(l.Type()),
		Parent: a.ParentIndex,
		MTU:    a.MTU,
		Up:     a.RawFlags&unix.IFF_UP != 0,
		Alias:  a.Alias,
	}
	copy(link.MAC[:], a.HardwareAddr)
	if m, ok := l.(*netlink.Macvlan); ok && m.Mode == netlink.MACVLAN_MODE_BRIDGE {
		link.Mode = "bridge"
	}
	if v, ok := l.(*netlink.Vlan); ok {
		link.tag = decodeTag(v)
	}
	return link
}

func (s *State) observeRoutes(inside netlinksafe.Handle, names map[int]string) error {
	ours := &netlink.Route{Protocol: routeProtocol, Table: unix.RT_TABLE_UNSPEC}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := inside.RouteListFiltered(family, ours, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		for _, r := range routes {
			if r.Type != unix.RTN_UNICAST || names[r.LinkIndex] == "" { // none that we make
				continue
			}
			s.Routes = append(s.Routes, decodeRoute(r, family, names))
		}
	}
	return nil
}

func decodeRoute(r netlink.Route, family int, names map[int]string) Route {
	to := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	if family == netlink.FAMILY_V4 {
		to = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	if r.Dst != nil {
		addr, _ := netip.AddrFromSlice(r.Dst.IP)
		ones, _ := r.Dst.Mask.Size()
		to = netip.PrefixFrom(addr.Unmap(), ones)
		if family == netlink.FAMILY_V6 {
			to = netip.PrefixFrom(addr, ones)
		}
	}
	via, _ := netip.AddrFromSlice(r.Gw)
	return Route{
		To:     to,
		Via:    via.Unmap(),
		Dev:    names[r.LinkIndex],
		Table:  r.Table,
		Metric: r.Priority,
		Realm:  r.Realm,
	}.canonical()
}

// Leftover is the plan that deletes the host's VLAN devices of ours that nobody
// uses: nothing sits on one, no bridge has it, no address is on it. Links that
// are leaving the namespace do not count, and what coming needs stays. While it is
// made and applied, nobody may put anything on them.
func (h *Handle) Leftover(leaving []Link, coming Network) (Plan, error) {
	host, err := netlinksafe.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer host.Close()
	links, err := host.LinkList()
	if err != nil {
		return nil, err
	}
	ours := ourVLANs(links)
	if len(ours) == 0 {
		return nil, nil
	}
	used, err := h.usedOnHost(host, links, leaving)
	if err == nil {
		err = usedBy(used, coming)
	}
	if err == nil && slices.ContainsFunc(ours, func(v *netlink.Vlan) bool { return !used[v.Index] }) {
		err = h.usedElsewhere(used, leaving)
	}
	var plan Plan
	for _, v := range ours {
		if used[v.Index] {
			used[v.ParentIndex] = true
			continue
		}
		plan = append(plan, onHost{delDevice{"vlan", v.Name}})
	}
	return plan, err
}

// ourVLANs are the host's VLAN devices of ours, one inside another first: it is
// the younger.
func ourVLANs(links []netlink.Link) []*netlink.Vlan {
	var ours []*netlink.Vlan
	for _, l := range links {
		if v, ok := l.(*netlink.Vlan); ok && v.Group == deviceGroup {
			ours = append(ours, v)
		}
	}
	slices.SortFunc(ours, func(a, b *netlink.Vlan) int { return b.Index - a.Index })
	return ours
}

// OurBonds are the names of the host's bonds that we made.
func (h *Handle) OurBonds() ([]string, error) {
	host, err := netlinksafe.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer host.Close()
	links, err := host.LinkList()
	var names []string
	for _, l := range links {
		if decodePort(l).isOurBond() {
			names = append(names, l.Attrs().Name)
		}
	}
	return names, err
}

// usedOnHost are the indexes of devices that something on the host needs, VLANs of
// ours aside, or that take in frames for somebody's MAC, wherever that one is.
func (h *Handle) usedOnHost(host netlinksafe.Handle, links []netlink.Link, leaving []Link) (map[int]bool, error) {
	used, err := h.satOn(leaving)
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		a := l.Attrs()
		if v, ok := l.(*netlink.Vlan); !ok || v.Group != deviceGroup {
			used[sitsOn(l)] = true
		}
		if a.MasterIndex != 0 {
			used[a.Index] = true
		}
	}
	addrs, err := host.AddrList(nil, netlink.FAMILY_ALL)
	for _, a := range addrs {
		if !isLinkLocal(a) { // nobody has put that there
			used[a.LinkIndex] = true
		}
	}
	return used, err
}

// isLinkLocal tells IPv6 addresses that the kernel gives each device by itself.
func isLinkLocal(a netlink.Addr) bool {
	return len(a.IP) == net.IPv6len && a.Scope == unix.RT_SCOPE_LINK
}

// sitsOn is the index of the device below a link in its own namespace, 0 for none. A
// veth's is its peer's.
func sitsOn(l netlink.Link) int {
	if a := l.Attrs(); a.NetNsID < 0 && l.Type() != "veth" {
		return a.ParentIndex
	}
	return 0
}

// satOn are the indexes of devices that take in frames for others than themselves:
// macvlans sit on them, wherever those are.
func (h *Handle) satOn(leaving []Link) (map[int]bool, error) {
	used := map[int]bool{}
	err := h.host.get(portMACs(0), func(entry []byte) {
		index, mac := decodePortMAC(entry)
		if mac[0]&1 == 0 && !slices.ContainsFunc(leaving, func(l Link) bool { return l.MAC == mac }) {
			used[index] = true
		}
	})
	return used, err
}

// usedBy adds what a network's interfaces sit on.
func usedBy(used map[int]bool, n Network) error {
	have := State{Ports: map[string]Port{}}
	err := have.observeHost(n)
	for _, i := range n.Interfaces {
		if below, ok := have.Below(i); ok {
			used[below.Index] = true
		}
	}
	return err
}

// usedElsewhere adds what links in published namespaces sit on: one that is down
// takes in nothing, and the host does not show it.
func (h *Handle) usedElsewhere(used map[int]bool, leaving []Link) error {
	here, err := nsutil.Current()
	if err != nil {
		return err
	}
	defer here.Close()
	places, err := published(h.place.Dir, ipDir)
	if err != nil {
		return err
	}
	for _, place := range places {
		ns, err := nsutil.Open(place.Path())
		if err != nil { // gone since, or no namespace
			continue
		}
		var links []netlink.Link
		err = ns.Do(func() (err error) { links, err = linksOn(here); return err })
		if err = errors.Join(err, ns.Close()); err != nil {
			return err
		}
		for _, l := range links {
			a := l.Attrs()
			leaves := place == h.place && slices.ContainsFunc(leaving, func(l Link) bool { return l.Index == a.Index })
			if !leaves {
				used[a.ParentIndex] = true
			}
		}
	}
	return nil
}

// published are the places in these directories.
func published(dirs ...string) ([]Place, error) {
	var places []Place
	for _, dir := range slices.Compact(dirs) {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			places = append(places, Place{dir, e.Name()})
		}
	}
	return places, nil
}

// linksOn are the links of the calling thread's namespace that sit on a device of
// another one: indexes below are that one's then.
func linksOn(other *nsutil.Namespace) ([]netlink.Link, error) {
	inside, err := netlinksafe.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	links, err := inside.LinkList()
	if err != nil {
		return nil, err
	}
	id, err := inside.GetNetNsIdByFd(other.Fd()) // the list has given it one, where one is needed
	return slices.DeleteFunc(links, func(l netlink.Link) bool {
		return l.Type() == "veth" || l.Attrs().NetNsID < 0 || l.Attrs().NetNsID != id
	}), err
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
	used, err := h.satOn(nil)
	if err != nil {
		return s, err
	}
	names := map[int]string{}
	for _, l := range links {
		a := l.Attrs()
		names[a.Index] = a.Name
		used[sitsOn(l)] = true
	}
	master := 0
	for _, l := range links {
		if l.Attrs().Name == want.Name {
			port := decodePort(l)
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
		if !enslaved && !slices.Contains(want.Members, a.Name) && !slices.Contains(others, a.Name) {
			continue
		}
		m, err := observeMember(host, l, names)
		if err != nil {
			return s, err
		}
		m.Enslaved, m.InUse = enslaved, used[a.Index]
		s.Members = append(s.Members, m)
	}
	s.Idle = s.untouched()
	return s, nil
}

func observeMember(host netlinksafe.Handle, l netlink.Link, names map[int]string) (Member, error) {
	a := l.Attrs()
	m := Member{Port: decodePort(l)}
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
	by := &netlink.Route{LinkIndex: a.Index, Table: unix.RT_TABLE_UNSPEC}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := host.RouteListFiltered(family, by, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
		if err != nil {
			return m, err
		}
		for _, r := range routes {
			if r.Protocol != unix.RTPROT_KERNEL && r.Protocol != unix.RTPROT_RA && r.Type == unix.RTN_UNICAST {
				route := decodeRoute(r, family, names)
				m.Routed = &route
			}
		}
	}
	return m, nil
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

func decodePrefix(n *net.IPNet) netip.Prefix {
	addr, _ := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), ones)
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
