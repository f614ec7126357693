package plumbing

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// This file is the reading side: the library decodes, dumps that the kernel
// had to interrupt are read again (netlinksafe).

// Observe reads what the kernel holds, of what matters to want.
func (h *Handle) Observe(want Network) (State, error) {
	s := State{Ports: map[string]Port{}}
	if h.ns == nil {
		s.Features = features()
	} else if err := h.ns.Do(s.observeInside); err != nil {
		return State{}, fmt.Errorf("cannot look into %s: %w", h.place.Name, err)
	}
	if err := s.observeHost(want); err != nil {
		return State{}, fmt.Errorf("cannot look at the host's devices: %w", err)
	}
	if h.ns == nil {
		return s, nil
	}
	if err := errors.Join(s.observeAddresses(h.inside), s.observeRules(h.inside)); err != nil {
		return State{}, fmt.Errorf("cannot look into %s: %w", h.place.Name, err)
	}
	s.Namespace, s.Holder = Foreign, h.holder
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
	var dir sysctlDir
	defer dir.close()
	there := func(key string) bool { value, _ := dir.read(sysctl{key: key}); return value != "" }
	return Features{
		IPv6:          there("net.ipv6.conf.all.disable_ipv6"),
		OptimisticDAD: there("net.ipv6.conf.all.optimistic_dad"),
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
	return errors.Join(s.observeVLANs(host, want), s.observeDevices(host, want))
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
	var mac MAC
	copy(mac[:], a.HardwareAddr)
	alias, o := cutOrigin(a.Alias)
	return Port{
		origin:   o,
		Name:     a.Name,
		MAC:      mac,
		Kind:     l.Type(),
		Index:    a.Index,
		MTU:      a.MTU,
		Up:       a.RawFlags&unix.IFF_UP != 0,
		Loopback: a.RawFlags&unix.IFF_LOOPBACK != 0,
		Ours:     a.Group == deviceGroup,
		Alias:    alias,
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
		link := decodeLink(l)
		if link.RA, link.Defrtr, err = acceptsRA(link.Name); err != nil {
			return err
		}
		s.Links = append(s.Links, link)
		names[l.Attrs().Index] = l.Attrs().Name
	}
	if err := s.observeRoutes(inside, names); err != nil {
		return err
	}
	s.Sysctls = map[string]string{}
	var dir sysctlDir
	defer dir.close()
	for _, c := range serverSysctls {
		if s.Sysctls[c.key], err = dir.read(c); err != nil {
			return err
		}
	}
	s.Features = Features{
		IPv6:          s.Sysctls["net.ipv6.conf.all.disable_ipv6"] != "",
		OptimisticDAD: s.Sysctls["net.ipv6.conf.all.optimistic_dad"] != "",
	}
	return nil
}

func decodeLink(l netlink.Link) Link {
	a := l.Attrs()
	link := Link{
		Name:   a.Name,
		Index:  a.Index,
		form:   form{Kind: Kind(strings.Replace(l.Type(), "device", "nic", 1))}, // ours have an origin
		Parent: a.ParentIndex,
		MTU:    a.MTU,
		Up:     a.RawFlags&unix.IFF_UP != 0,
		Alias:  a.Alias,
	}
	if a.NetNsID < 0 {
		link.Parent = 0 // that is another one inside
	}
	copy(link.MAC[:], a.HardwareAddr)
	if link.Alias, link.origin = cutOrigin(a.Alias); link.origin.name != "" {
		link.form = form{Kind: Device}
		return link
	}
	switch l := l.(type) {
	case *netlink.Macvlan:
		link.Mode = macvlanModes[l.Mode]
		for _, hw := range l.MACAddrs {
			link.Sources = append(link.Sources, MAC(hw))
		}
		sortMACs(link.Sources)
	case *netlink.Vlan:
		link.tag = decodeTag(l)
	}
	return link
}

var macvlanModes = map[netlink.MacvlanMode]Mode{
	netlink.MACVLAN_MODE_BRIDGE: Bridge, netlink.MACVLAN_MODE_PRIVATE: Private, netlink.MACVLAN_MODE_VEPA: VEPA,
	netlink.MACVLAN_MODE_SOURCE: Source, netlink.MACVLAN_MODE_PASSTHRU: Passthru,
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
	if !slices.ContainsFunc(s.Links, func(l Link) bool { return l.RA && l.Name != "lo" }) {
		return nil
	}
	theirs := &netlink.Route{Protocol: unix.RTPROT_RA, Table: unix.RT_TABLE_UNSPEC}
	routes, err := inside.RouteListFiltered(netlink.FAMILY_V6, theirs, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	for _, r := range routes {
		if route := decodeRoute(r, netlink.FAMILY_V6, names); route.To.Bits() == 0 && route.Via.IsValid() && route.Dev != "" {
			s.Routers = append(s.Routers, route)
		}
	}
	return err
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
	src, _ := netip.AddrFromSlice(r.Src)
	return Route{
		To:     to,
		Via:    via.Unmap(),
		Dev:    names[r.LinkIndex],
		Src:    src.Unmap(),
		Table:  r.Table,
		Metric: r.Priority,
		Realm:  r.Realm,
	}.canonical()
}

func decodePrefix(n *net.IPNet) netip.Prefix {
	addr, _ := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), ones)
}
