package plumbing

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// checkPort refuses what a port, or a VLAN of it, cannot carry, as far as
// something must be made or changed on it.
func checkPort(place Place, i Interface, have State) error {
	link, there := have.Link(i.Name)
	base := have.Ports[i.base()]
	if there && link.fits(i, base) {
		if base.Name == "" || i.Kind == Device {
			return nil
		}
		return checkFit(i, base, have.operators(i), link)
	}
	port, ok := have.Ports[i.Port]
	switch {
	case !ok:
		return refuse(cureForPort(i.Port, have.HostLinks), "no port %s on this host", i.Port)
	case i.Kind == Device:
		return checkDevicePort(place, i, port, link)
	case port.Loopback:
		return refuse("use a device that leads to a network", "port %s is the loopback: nothing can sit on it", i.Port)
	case port.NoEthernet: // macvlan_port_create; a VLAN's tag has no place there
		return refuse("use kind device, or a port that has MACs: a NIC, a bond, a bridge", "port %s is not Ethernet: no %s can sit on it", i.Port, i.trait().kind)
	case port.Kind == string(Macvlan):
		return refuse("use the device below it: ip link show "+quote(i.Port), "port %s is a macvlan itself", i.Port)
	case port.Alias == vlanMark && port.Ours:
		return refuse("name the port and the VLAN: --port P --vlan V", "port %s is vsrun's own, and goes when nobody uses it", i.Port)
	}
	for _, p := range []Port{port, base} {
		if err := checkLower(p); err != nil {
			return err
		}
	}
	if v, there := have.Ports[i.Segment()]; there && i.Kind == Vlan {
		cure := "share it: leave --kind out"
		if v.Ours {
			cure += "; or disable the virtual servers that are on it first"
		}
		return refuse(cure, "vlan %s of port %s is in use on this host, as %s", i.VLAN, i.Port, v.Name)
	}
	if i.trait().receivesAll() {
		if err := checkWithoutHost(base); err != nil {
			return err
		}
	}
	return checkFit(i, base, have.operators(i), Link{})
}

func checkLower(p Port) error {
	switch {
	case p.Master != "":
		return refuse("use --port "+p.Master, "%s is a member of %s %s", p.Name, p.MasterKind, p.Master)
	case !p.Up:
		return refuse(fmt.Sprintf("bring it up: ip link set %s up", quote(p.Name)), "port %s is down", p.Name)
	}
	return nil
}

// checkFit refuses what an interface cannot have on base, which has its MTU from
// port.
func checkFit(i Interface, base, port Port, link Link) error {
	mtu := cmp.Or(i.MTU, base.MTU)
	raise := func(to int) string {
		return fmt.Sprintf("raise the port's: ip link set %s mtu %d", quote(port.Name), to)
	}
	switch {
	case mtu > base.MTU && mtu != link.MTU:
		return refuse(raise(i.MTU), "mtu %d of %s is above %d, the mtu of port %s", i.MTU, i.Name, base.MTU, port.Name)
	case mtu < minIPv6MTU && i.hasIPv6():
		return refuse(raise(minIPv6MTU), "mtu %d of port %s is too small for IPv6", mtu, port.Name)
	}
	return checkHostAddresses(i, base)
}

// cureForPort also knows what people call the VLANs of a port.
func cureForPort(port string, there []string) string {
	if len(there) == 0 {
		return "there is none but the loopback: ip -brief link"
	}
	on, ids, _ := strings.Cut(port, ".")
	if vlan, err := ParseVLAN(ids); err == nil && slices.Contains(there, on) {
		return fmt.Sprintf("for vlan %s of %s: --port %[2]s --vlan %[1]s", vlan, on)
	}
	return "ports here: " + strings.Join(there, ", ")
}

// checkHostAddresses refuses what no probe can find: a port's own addresses. A
// macvlan's frames do not reach its host.
func checkHostAddresses(i Interface, port Port) error {
	for _, p := range i.Addresses {
		if slices.Contains(port.Addresses, p.Addr()) {
			return refuse("choose another, or take it from the host first", "address %s is this host's own, on %s", p.Addr(), port.Name)
		}
	}
	return nil
}

// checkForeignLinks refuses a name that a device of somebody else's has inside.
// One that is as we make it, but has no mark yet, is ours after a crash.
func checkForeignLinks(place Place, want Network, have State) error {
	for _, i := range want.Interfaces {
		l, there := have.Link(i.Name)
		i.RA = l.RA // which is set a moment later
		if !there || place.has(l) || l.Alias == "" && l.fits(i, have.Ports[i.base()]) {
			continue
		}
		return refuse("give the interface another name", "%s already has a device %s of somebody else's", place.Name, i.Name)
	}
	return nil
}
