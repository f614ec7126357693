package plumbing

import (
	"cmp"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// A device is a link as the kernel describes it (RTM_NEWLINK).
type device struct {
	Heard
	index     int
	hardware  uint16 // ARPHRD_…
	elsewhere int    // the id of the namespace that Parent is of, or noID: it is this one
	conf6     []byte // its IPv6 parameters (IFLA_INET6_CONF)
}

const noID = -1

// devices lists the links in the socket's namespace.
func (s *netlinkSocket) devices() (list []device, err error) {
	err = s.all(linkList(), func(b []byte) {
		if d, ok := decodeDevice(b); ok {
			list = append(list, d)
		}
	})
	return list, err
}

// device asks for one of them; ENODEV when it is not there.
func (s *netlinkSocket) device(m message) (d device, err error) {
	err = s.get(m, func(b []byte) { d, _ = decodeDevice(b) })
	return d, err
}

func decodeDevice(b []byte) (d device, ok bool) {
	if len(b) < unix.SizeofIfInfomsg {
		return d, false
	}
	d = device{Heard: *decodeHeard(b), index: int(binary.NativeEndian.Uint32(b[4:])), hardware: binary.NativeEndian.Uint16(b[2:]), elsewhere: noID}
	eachAttr(b[unix.SizeofIfInfomsg:], func(typ uint16, value []byte) {
		switch typ {
		case unix.IFLA_LINK_NETNSID:
			d.elsewhere = int(int32(number(value)))
		case unix.IFLA_AF_SPEC:
			d.conf6 = attribute(attribute(value, unix.AF_INET6), inet6Conf)
		}
	})
	return d, true
}

// attribute finds an attribute in a list of them.
func attribute(list []byte, wanted uint16) (found []byte) {
	eachAttr(list, func(typ uint16, value []byte) {
		if typ == wanted {
			found = value
		}
	})
	return found
}

// include/uapi/linux/if_link.h and ipv6.h.
const (
	inet6Conf            = 2 // IFLA_INET6_CONF, an array of 32 bit each
	devconfAcceptRA      = 3
	devconfAcceptRAGates = 17 // DEVCONF_ACCEPT_RA_DEFRTR
)

// parameter is one of the device's IPv6 parameters, as its file below /proc/sys/net/ipv6/conf
// has it; 0 where it has no IPv6.
func (d device) parameter(n int) uint32 {
	if len(d.conf6) < 4*(n+1) {
		return 0
	}
	return binary.NativeEndian.Uint32(d.conf6[4*n:])
}

func (d device) is(flag uint32) bool { return d.Flags&flag != 0 }

func (d device) mac() (mac MAC) {
	copy(mac[:], d.MAC)
	return mac
}

// noKind is what a NIC has: device is a port that was moved in.
const noKind = "nic"

func (d device) option(wanted uint16) []byte { return attribute([]byte(d.Options), wanted) }

func (d device) form() form {
	f := form{Kind: Kind(cmp.Or(d.Kind, noKind))}
	switch f.Kind {
	case Macvlan:
		code := uint32(number(d.option(macvlanMode)))
		at := slices.IndexFunc(traits, func(t trait) bool { return t.kind == Macvlan && t.code == code })
		if at >= 0 {
			f.Mode = traits[at].mode
		}
	case Vlan:
		if id, protocol := d.option(vlanID), d.option(vlanProtocol); len(id) == 2 && len(protocol) == 2 {
			f.tag = tag{int(binary.NativeEndian.Uint16(id)), binary.BigEndian.Uint16(protocol)}
		}
	}
	return f
}

// sources are whom a macvlan receives from, sorted.
func (d device) sources() (list []MAC) {
	if d.Kind != string(Macvlan) {
		return nil
	}
	eachAttr(d.option(macvlanMACData), func(typ uint16, value []byte) {
		if typ == macvlanMAC && len(value) == len(MAC{}) {
			list = append(list, MAC(value))
		}
	})
	sortMACs(list)
	return list
}

// link is the device as one inside.
func (d device) link() Link {
	ra := d.parameter(devconfAcceptRA) != 0
	l := Link{
		Name: d.Name, Index: d.index, form: d.form(), Sources: d.sources(), Parent: d.Parent,
		MAC: d.mac(), MTU: int(d.MTU), Up: d.is(unix.IFF_UP),
		RA: ra, Defrtr: ra && d.parameter(devconfAcceptRAGates) != 0,
	}
	if d.elsewhere == noID {
		l.Parent = 0 // that is another one inside
	}
	l.Alias = d.Alias
	return l
}

// link is the device as one inside, and as one of the host's if it is that.
func (h *Handle) link(d device) Link {
	l := d.link()
	mark, o := cutOrigin(d.Alias)
	if o.name == "" {
		return l
	}
	if o.name = h.portOf(d, o.name); o.name == "" || mark != h.place.mark(d.Name) {
		l.pretends = true
		return l
	}
	l.Alias, l.origin, l.form, l.Sources = mark, o, form{Kind: Device}, nil
	return l
}

// portOf is what a device inside was called on the host that says it was called so: "" if it
// is none of the host's. Who has CAP_NET_ADMIN in there can have any link say anything, so a
// record must name it, and its port. Nobody can make a NIC: that is given back in any case, as
// the kernel would (default_device_exit_net), and where a record names it by that.
func (h *Handle) portOf(d device, said string) string {
	var named []string
	for _, i := range h.Had {
		if i.Kind == Device && i.Name == d.Name {
			named = append(named, i.Port)
		}
	}
	switch nic := d.Kind == "" && !d.is(unix.IFF_LOOPBACK); {
	case slices.Contains(named, said), nic && len(named) == 0:
		return said
	case nic:
		return named[0]
	}
	return ""
}

// port is the device as one of the host's.
func (d device) port() Port {
	alias, o := cutOrigin(d.Alias)
	return Port{
		origin: o, Name: d.Name, MAC: d.mac(), Kind: cmp.Or(d.Kind, "device"), Index: d.index, MTU: int(d.MTU), Up: d.is(unix.IFF_UP),
		Loopback: d.is(unix.IFF_LOOPBACK), NoEthernet: d.hardware != unix.ARPHRD_ETHER, Ours: d.isOurs(), Alias: alias,
	}
}

// isOurs is for the host's devices.
func (d device) isOurs() bool { return d.Group == deviceGroup }

func (d device) isOurVLAN() bool { return d.isOurs() && d.Kind == string(Vlan) }

// sitsOn is the index of the device below, in the same namespace, 0 for none. A veth's is
// its peer's.
func (d device) sitsOn() int {
	if d.elsewhere == noID && d.Kind != "veth" {
		return d.Parent
	}
	return 0
}
