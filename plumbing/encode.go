package plumbing

import (
	"encoding/binary"
	"errors"
	"math"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A message is one netlink request without its header.
type message struct {
	kind  uint16 // RTM_…
	flags uint16 // NLM_F_… beside NLM_F_REQUEST
	body  []byte
	err   error // it cannot be said
}

func (m message) size() int { return unix.NLMSG_HDRLEN + align(len(m.body)) }

// append adds struct nlmsghdr and the body.
func (m message) append(b []byte, seq uint32, flags uint16) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.NLMSG_HDRLEN+len(m.body)))
	b = binary.NativeEndian.AppendUint16(b, m.kind)
	b = binary.NativeEndian.AppendUint16(b, m.flags|flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0) // from: the kernel knows
	return pad(append(b, m.body...))
}

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// put appends struct nlattr.
func (m *message) put(typ uint16, value []byte) {
	m.body = binary.NativeEndian.AppendUint16(m.body, uint16(4+len(value)))
	m.body = binary.NativeEndian.AppendUint16(m.body, typ)
	m.body = pad(append(m.body, value...))
}

func (m *message) putUint32(typ uint16, v uint32) {
	m.put(typ, binary.NativeEndian.AppendUint32(nil, v))
}

func (m *message) putString(typ uint16, s string) {
	m.put(typ, append([]byte(s), 0))
}

// nest appends an attribute whose value is the attributes that fill puts.
func (m *message) nest(typ uint16, fill func(*message)) {
	start := len(m.body)
	m.put(typ, nil)
	fill(m)
	size := len(m.body) - start
	if size > math.MaxUint16 { // the kernel would take the rest for other attributes
		m.err = errTooLong
	}
	binary.NativeEndian.PutUint16(m.body[start:], uint16(size))
}

var errTooLong = errors.New("the list is too long for the kernel")

// ifinfomsg starts a request about a link (struct ifinfomsg).
func ifinfomsg(kind, flags uint16, index int, up, change uint32) message {
	b := make([]byte, 4, 128)
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, up)
	b = binary.NativeEndian.AppendUint32(b, change)
	return message{kind: kind, flags: flags, body: b}
}

// newLink makes a link on a device of the host's and directly in another namespace, where it
// has its name and its MAC from the first moment on.
func newLink(name string, on int, f form, sources []MAC, mac MAC, mtu, nsFd int) message {
	m := ifinfomsg(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 0, 0, 0)
	if f.Kind == Vlan { // it would inherit NOARP
		m = ifinfomsg(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 0, 0, unix.IFF_NOARP)
	}
	m.putString(unix.IFLA_IFNAME, name)
	m.putUint32(unix.IFLA_LINK, uint32(on))
	if t, _ := traitOf(f.Kind, f.Mode); !t.portMAC {
		m.put(unix.IFLA_ADDRESS, mac[:])
	}
	m.putUint32(unix.IFLA_MTU, uint32(mtu))
	m.putUint32(unix.IFLA_NET_NS_FD, uint32(nsFd))
	f.put(&m, sources)
	return m
}

// newVLAN makes a VLAN device on a device of the host's, marked as ours.
func newVLAN(name string, on int, t tag) message {
	m := ifinfomsg(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 0, 0, 0)
	m.putString(unix.IFLA_IFNAME, name)
	m.putUint32(unix.IFLA_LINK, uint32(on))
	m.putUint32(unix.IFLA_GROUP, deviceGroup)
	m.putInfo("vlan", t.put)
	return m
}

// newBond makes a bond, marked as ours.
func newBond(name string, options func(*message)) message {
	m := ifinfomsg(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 0, 0, 0)
	m.putString(unix.IFLA_IFNAME, name)
	m.putUint32(unix.IFLA_GROUP, deviceGroup)
	m.putInfo("bond", options)
	return m
}

// linkBond changes a bond's options.
func linkBond(index int, options func(*message)) message {
	m := ifinfomsg(unix.RTM_NEWLINK, 0, index, 0, 0)
	m.putInfo("bond", options)
	return m
}

// linkMaster makes a link a member of another; 0 for of none.
func linkMaster(index, master int) message {
	m := ifinfomsg(unix.RTM_NEWLINK, 0, index, 0, 0)
	m.putUint32(unix.IFLA_MASTER, uint32(master))
	return m
}

// putInfo appends what kind of device it is (IFLA_LINKINFO).
func (m *message) putInfo(kind string, data func(*message)) {
	m.nest(unix.IFLA_LINKINFO, func(m *message) {
		m.put(unix.IFLA_INFO_KIND, []byte(kind))
		m.nest(unix.IFLA_INFO_DATA, data)
	})
}

// put appends a VLAN's attributes. It does not follow the device below it down and
// up (LOOSE_BINDING), only its carrier: going down would take the routes along.
func (t tag) put(m *message) {
	m.put(vlanID, binary.NativeEndian.AppendUint16(nil, uint16(t.id)))
	m.put(vlanFlags, binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, looseBinding), looseBinding))
	m.put(vlanProtocol, binary.BigEndian.AppendUint16(nil, t.protocol))
}

// include/uapi/linux/if_link.h and if_vlan.h.
const (
	vlanID       = 1 // IFLA_VLAN_ID
	vlanFlags    = 2 // IFLA_VLAN_FLAGS, struct ifla_vlan_flags
	vlanProtocol = 5 // IFLA_VLAN_PROTOCOL, in network byte order
	looseBinding = 4 // VLAN_FLAG_LOOSE_BINDING
)

func linkUp(index int) message {
	return ifinfomsg(unix.RTM_NEWLINK, 0, index, unix.IFF_UP, unix.IFF_UP)
}

// linkUpQuietly also switches ARP off.
func linkUpQuietly(index int) message {
	const flags = unix.IFF_UP | unix.IFF_NOARP
	return ifinfomsg(unix.RTM_NEWLINK, 0, index, flags, flags)
}

func linkDown(index int) message {
	return ifinfomsg(unix.RTM_NEWLINK, 0, index, 0, unix.IFF_UP)
}

func linkAlias(index int, alias string) message {
	m := ifinfomsg(unix.RTM_NEWLINK, 0, index, 0, 0)
	m.put(unix.IFLA_IFALIAS, []byte(alias))
	return m
}

// linkAltname adds a name. The kernel parses this request strictly: the list has
// to be marked as nested.
func linkAltname(index int, name string) message {
	m := ifinfomsg(unix.RTM_NEWLINKPROP, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_APPEND, index, 0, 0)
	m.nest(unix.IFLA_PROP_LIST|unix.NLA_F_NESTED, func(m *message) { m.putString(unix.IFLA_ALT_IFNAME, name) })
	return m
}

func linkMTU(index, mtu int) message {
	m := ifinfomsg(unix.RTM_NEWLINK, 0, index, 0, 0)
	m.putUint32(unix.IFLA_MTU, uint32(mtu))
	return m
}

func linkMAC(index int, mac MAC) message {
	m := ifinfomsg(unix.RTM_NEWLINK, 0, index, 0, 0)
	m.put(unix.IFLA_ADDRESS, mac[:])
	return m
}

func linkRename(index int, name string) message {
	m := ifinfomsg(unix.RTM_NEWLINK, 0, index, 0, 0)
	m.putString(unix.IFLA_IFNAME, name)
	return m
}

func linkDelete(index int) message {
	return ifinfomsg(unix.RTM_DELLINK, 0, index, 0, 0)
}

// linkDeleteIn deletes a link of a namespace that the host has an id for.
func linkDeleteIn(id, index int) message {
	m := linkDelete(index)
	m.putUint32(unix.IFLA_TARGET_NETNSID, uint32(id))
	return m
}

// linkGetIn asks for a link of a namespace that the host has an id for.
func linkGetIn(id, index int) message {
	m := ifinfomsg(unix.RTM_GETLINK, 0, index, 0, 0)
	m.putUint32(unix.IFLA_TARGET_NETNSID, uint32(id))
	return m
}

// linksIn lists those of such a namespace.
func linksIn(id int) message {
	m := ifinfomsg(unix.RTM_GETLINK, unix.NLM_F_DUMP, 0, 0, 0)
	m.putUint32(unix.IFLA_TARGET_NETNSID, uint32(id))
	return m
}

// linkList asks for all links, without what they have counted.
func linkList() message {
	m := ifinfomsg(unix.RTM_GETLINK, unix.NLM_F_DUMP, 0, 0, 0)
	m.putUint32(unix.IFLA_EXT_MASK, filterSkipStats)
	return m
}

func linkGet(name string) message {
	m := ifinfomsg(unix.RTM_GETLINK, 0, 0, 0, 0)
	m.putString(unix.IFLA_IFNAME, name)
	return m
}

const filterSkipStats = 8 // RTEXT_FILTER_SKIP_STATS, include/uapi/linux/rtnetlink.h

// nameNamespace has the host give a namespace an id, which is the host's word for it
// (rtnl_net_newid).
func nameNamespace(fd int) message {
	m := message{kind: unix.RTM_NEWNSID, body: make([]byte, rtgenmsgLen)}
	m.putUint32(unix.NETNSA_NSID, 1<<32-1) // -1: one that is free
	m.putUint32(unix.NETNSA_FD, uint32(fd))
	return m
}

// namespaceID asks for it.
func namespaceID(fd int) message {
	m := message{kind: unix.RTM_GETNSID, body: make([]byte, rtgenmsgLen)}
	m.putUint32(unix.NETNSA_FD, uint32(fd))
	return m
}

const rtgenmsgLen = 4 // struct rtgenmsg, and struct netconfmsg, to the first attribute

// portMACs asks for the unicast addresses that a port receives beside its own:
// those of its macvlans (dev_uc_list, as `bridge fdb show` has them).
func portMACs(port int) message {
	m := ifinfomsg(unix.RTM_GETNEIGH, unix.NLM_F_DUMP, port, 0, 0)
	m.body[0] = unix.AF_BRIDGE
	return m
}

// address is a request about an address (struct ifaddrmsg). IPv4 addresses get
// their prefix's broadcast address; see addAddress for IPv6's flag.
func address(kind, flags uint16, index int, p netip.Prefix) message {
	m := message{kind: kind, flags: flags, body: []byte{family(p.Addr()), byte(p.Bits()), 0, scope(p.Addr())}}
	m.body = binary.NativeEndian.AppendUint32(m.body, uint32(index))
	m.put(unix.IFA_LOCAL, p.Addr().AsSlice())
	m.put(unix.IFA_ADDRESS, p.Addr().AsSlice())
	switch {
	case p.Addr().Is6():
		m.putUint32(unix.IFA_FLAGS, unix.IFA_F_NODAD)
	case p.Bits() < 31:
		m.put(unix.IFA_BROADCAST, lastAddr(p).AsSlice())
	}
	return m
}

// ownAddress is a request about an address of the host's.
func ownAddress(kind, flags uint16, index int, a OwnAddress) message {
	m := message{kind: kind, flags: flags, body: []byte{family(a.Prefix.Addr()), byte(a.Prefix.Bits()), 0, byte(a.Scope)}}
	m.body = binary.NativeEndian.AppendUint32(m.body, uint32(index))
	m.put(unix.IFA_LOCAL, a.Prefix.Addr().AsSlice())
	far := a.Prefix.Addr()
	if a.Peer.IsValid() {
		far = a.Peer.Addr()
		m.body[1] = byte(a.Peer.Bits())
	}
	m.put(unix.IFA_ADDRESS, far.AsSlice())
	if a.Broadcast.IsValid() {
		m.put(unix.IFA_BROADCAST, a.Broadcast.AsSlice())
	}
	if a.Label != "" {
		m.putString(unix.IFA_LABEL, a.Label)
	}
	var more uint32
	if a.NoDAD {
		more |= unix.IFA_F_NODAD
	}
	if a.NoPrefixRoute {
		more |= unix.IFA_F_NOPREFIXROUTE
	}
	m.putUint32(unix.IFA_FLAGS, more)
	return m
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// scope is link for IPv6's fe80::/10, which says where an address is good.
func scope(a netip.Addr) byte {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return unix.RT_SCOPE_LINK
	}
	return unix.RT_SCOPE_UNIVERSE
}

// routeProtocol marks our routes (rtm_protocol): a number that is in no list of
// known ones (include/uapi/linux/rtnetlink.h, iproute2's rt_protos).
const routeProtocol = 118

// addressProtocol says who has added an address (IFA_PROTO, Linux 5.18).
const addressProtocol = 11

// dump asks for all addresses (struct ifaddrmsg), routes (rtmsg) or rules (fib_rule_hdr)
// of a family, 0 for all of them.
func dump(kind uint16, family byte) message {
	body := make([]byte, 12)
	body[0] = family
	return message{kind: kind, flags: unix.NLM_F_DUMP, body: body}
}

// route is a request about a route (struct rtmsg).
func route(kind, flags uint16, index int, r Route) message {
	scope := byte(unix.RT_SCOPE_UNIVERSE)
	if !r.Via.IsValid() && r.To.Addr().Is4() {
		scope = unix.RT_SCOPE_LINK
	}
	table := r.Table
	if table == 0 {
		table = mainTable
	}
	m := message{kind: kind, flags: flags, body: []byte{
		family(r.To.Addr()), byte(r.To.Bits()), 0, 0,
		unix.RT_TABLE_UNSPEC, routeProtocol, scope, unix.RTN_UNICAST,
		0, 0, 0, 0,
	}}
	if r.To.Bits() > 0 {
		m.put(unix.RTA_DST, r.To.Addr().AsSlice())
	}
	if r.Via.IsValid() {
		m.put(unix.RTA_GATEWAY, r.Via.AsSlice())
	}
	if r.Src.IsValid() {
		m.put(unix.RTA_PREFSRC, r.Src.AsSlice())
	}
	m.putUint32(unix.RTA_OIF, uint32(index))
	m.putUint32(unix.RTA_TABLE, uint32(table))
	if r.Metric != 0 {
		m.putUint32(unix.RTA_PRIORITY, uint32(r.Metric))
	}
	if r.Realm != 0 {
		m.putUint32(unix.RTA_FLOW, uint32(r.Realm))
	}
	return m
}

// destroySocket closes a TCP socket from outside (SOCK_DESTROY, struct
// inet_diag_req_v2): its peer gets a reset. id is the struct inet_diag_sockid
// that a dump gave.
func destroySocket(family byte, id []byte) message {
	body := []byte{family, unix.IPPROTO_TCP, 0, 0, 0xff, 0xff, 0xff, 0xff}
	return message{kind: sockDestroy, body: append(body, id...)}
}

// listSockets asks for every TCP socket of a family, in every state.
func listSockets(family byte) message {
	m := destroySocket(family, make([]byte, sockidLen))
	m.kind, m.flags = unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP
	return m
}

const (
	sockDestroy = 21 // SOCK_DESTROY, include/uapi/linux/sock_diag.h
	sockidLen   = 48 // struct inet_diag_sockid
	sockidAt    = 4  // its place in struct inet_diag_msg
)
