package plumbing

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
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
			if s.HostLinks, err = linkNames(host); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		port := decodePort(link)
		addrs, err := host.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			addr, _ := netip.AddrFromSlice(a.IP)
			port.Addresses = append(port.Addresses, addr.Unmap())
		}
		if port.Name != i.Port { // the kernel found it by an alternative name
			port.Name = i.Port
		}
		if master := link.Attrs().MasterIndex; master != 0 {
			m, err := host.LinkByIndex(master)
			if err != nil {
				return err
			}
			port.Master, port.MasterKind = m.Attrs().Name, m.Type()
		}
		s.Ports[i.Port] = port
	}
	return nil
}

func decodePort(l netlink.Link) Port {
	a := l.Attrs()
	return Port{
		Name:     a.Name,
		Kind:     l.Type(),
		Index:    a.Index,
		MTU:      a.MTU,
		Up:       a.RawFlags&unix.IFF_UP != 0,
		Loopback: a.RawFlags&unix.IFF_LOOPBACK != 0,
	}
}

func linkNames(host netlinksafe.Handle) ([]string, error) {
	links, err := host.LinkList()
	var names []string
	for _, l := range links {
		if l.Attrs().RawFlags&unix.IFF_LOOPBACK == 0 {
			names = append(names, l.Attrs().Name)
		}
	}
	slices.Sort(names)
	return names, err
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
	if err := s.observeAddresses(inside, names); err != nil {
		return err
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
	return link
}

func (s *State) observeAddresses(inside netlinksafe.Handle, names map[int]string) error {
	addrs, err := inside.AddrList(nil, netlink.FAMILY_ALL)
	for _, a := range addrs {
		addr, ok := netip.AddrFromSlice(a.IP)
		ones, _ := a.Mask.Size()
		// What has a lifetime is from a router or a DHCP client, and the
		// link-local IPv6 address is the kernel's own.
		if !ok || a.Flags&unix.IFA_F_PERMANENT == 0 || a.Scope == unix.RT_SCOPE_LINK || a.Scope == unix.RT_SCOPE_HOST {
			continue
		}
		s.Addresses = append(s.Addresses, Address{
			Dev:       names[a.LinkIndex],
			Prefix:    netip.PrefixFrom(addr.Unmap(), ones),
			Duplicate: a.Flags&unix.IFA_F_DADFAILED != 0,
		})
	}
	return err
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
