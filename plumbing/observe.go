package plumbing

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Observe reads what the kernel holds, of what matters to want.
func (h *Handle) Observe(want Network) (State, error) {
	s := State{Ports: map[string]Port{}}
	var err error
	if h.ns == nil {
		s.Features, err = features()
	} else {
		h.Had = slices.Concat(h.Had, want.Interfaces)
		err = h.observeInside(&s)
	}
	if err != nil {
		return State{}, fmt.Errorf("cannot look into %s: %w", h.place.Name, err)
	}
	if err := h.observeHost(&s, want); err != nil {
		return State{}, fmt.Errorf("cannot look at the host's devices: %w", err)
	}
	return s, nil
}

func features() (f Features, err error) {
	var dir sysctlDir
	defer dir.close()
	for key, there := range map[string]*bool{
		"net.ipv6.conf.all.disable_ipv6":   &f.IPv6,
		"net.ipv6.conf.all.optimistic_dad": &f.OptimisticDAD,
	} {
		value, failed := dir.read(sysctl{key: key})
		*there, err = value != "", cmp.Or(err, failed)
	}
	f.LiveRename = renamesLive()
	return f, err
}

// ObserveLinks reads whose the namespace is, and its links: all that its removal needs.
func (h *Handle) ObserveLinks() (s State, err error) {
	if h.ns != nil {
		err = h.observeLinks(&s)
	}
	if err != nil {
		err = fmt.Errorf("cannot look into %s: %w", h.place.Name, err)
	}
	return s, err
}

func (h *Handle) observeLinks(s *State) error {
	devices, err := h.inside.devices()
	if err != nil {
		return err
	}
	clear(h.indexes)
	for _, d := range devices {
		s.Links = append(s.Links, h.link(d))
		h.indexes[d.Name] = d.index
	}
	s.Namespace, s.Holder = Foreign, h.holder
	if lo, ok := s.Link("lo"); ok && lo.Alias == h.place.mark("") {
		s.Namespace = Ours
	}
	return nil
}

func (h *Handle) observeInside(s *State) error {
	if err := h.ns.Do(s.observeSysctls); err != nil {
		return err
	}
	if err := h.observeLinks(s); err != nil {
		return err
	}
	names := make(map[int]string, len(s.Links))
	for _, l := range s.Links {
		names[l.Index] = l.Name
	}
	return errors.Join(s.observeAddresses(h.inside, names), s.observeRoutes(h.inside, names), s.observeRules(h.inside))
}

// observeSysctls runs in the namespace.
func (s *State) observeSysctls() (err error) {
	s.Sysctls = make(map[string]string, len(serverSysctls))
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
		LiveRename:    renamesLive(),
	}
	return nil
}

func (h *Handle) observeHost(s *State, want Network) error {
	if len(want.Interfaces) == 0 {
		return nil
	}
	return h.view.look(h.host, func(host *hostDevices) error {
		for _, i := range want.Interfaces {
			d, err := host.named(i.Port)
			if errors.Is(err, unix.ENODEV) {
				links, err := host.all()
				if err != nil {
					return err
				}
				s.nameLinks(links)
				continue
			}
			if err == nil {
				err = s.observePort(host, i.Port, d)
			}
			if err != nil {
				return err
			}
		}
		return errors.Join(s.observeVLANs(host, want), s.observeDevices(host, want))
	})
}

// observePort reads a device of the host; the kernel may have found it by an
// alternative name.
func (s *State) observePort(host *hostDevices, path string, d device) (err error) {
	port := d.port()
	if !strings.Contains(path, "/") {
		port.Name = path
	}
	if port.Addresses, err = host.addresses(d.index); err != nil {
		return err
	}
	if d.Master != 0 {
		m, err := host.asks.device(ifinfomsg(unix.RTM_GETLINK, 0, d.Master, 0, 0))
		if err != nil {
			return err
		}
		port.Master, port.MasterKind = m.Name, m.port().Kind
	}
	s.Ports[path] = port
	return nil
}

// observeVLANs finds the VLAN devices by what they are: the kernel has one at
// most of each on a device.
func (s *State) observeVLANs(host *hostDevices, want Network) error {
	for _, i := range want.Interfaces {
		for _, l := range lowers(i.Port, i.VLAN) {
			on, ok := s.Ports[l.on]
			if !ok {
				break
			}
			links, err := host.all()
			if err != nil {
				return err
			}
			k := slices.IndexFunc(links, func(d device) bool { return l.is(d, on.Index) })
			if k < 0 {
				s.nameLinks(links)
				break
			}
			if err := s.observePort(host, l.path, links[k]); err != nil {
				return err
			}
			if v := s.Ports[l.path]; v.Ours {
				v.Loud = !links[k].is(unix.IFF_NOARP) || isLoud(v.Name, s.Features)
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

// is reports whether a device is this VLAN of the one with that index.
func (l lower) is(d device, on int) bool {
	return d.Kind == string(Vlan) && d.Parent == on && d.elsewhere == noID && d.form().tag == l.tag
}

// nameLinks reads what the host's devices are called, and which of them lead
// somewhere and are not our own.
func (s *State) nameLinks(links []device) {
	s.HostLinks, s.HostNames, s.HostIndex = nil, nil, map[int]HostLink{}
	for _, d := range links {
		s.HostIndex[d.index] = HostLink{d.Name, d.Parent}
		s.HostNames = append(append(s.HostNames, d.Name), strings.Fields(d.Altnames)...)
		if !d.is(unix.IFF_LOOPBACK) && !d.isOurVLAN() {
			s.HostLinks = append(s.HostLinks, d.Name)
		}
	}
	slices.Sort(s.HostLinks)
}
