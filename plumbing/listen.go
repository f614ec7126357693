package plumbing

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
)

// A Listener hears from the kernel when somebody changes a link, an address, a route, a
// rule, or one of a few kernel parameters, on the host and in the namespaces that it
// follows. Next is for one goroutine.
//
// Of the kernel parameters that a server has, the kernel tells of ip_forward and
// rp_filter alone (RTM_NEWNETCONF): see SysctlListener for the others.
type Listener struct {
	f    *os.File
	raw  rawConn
	asks *netlinkSocket
	self int // the host's own id, where somebody has given it one
	buf  []byte
	oob  []byte
}

type rawConn interface {
	Read(func(fd uintptr) bool) error
	Control(func(fd uintptr)) error
}

// A Notice is one thing that has been changed.
type Notice struct {
	Namespace int      // its id as Follow gives it, or Host
	Topic     Topic    // OfLink, OfAddress, OfRoute, OfRule, OfSysctl, or OfNamespace: one is gone, and its id free
	Gone      bool     // it has been deleted
	Index     int      // of the link that it is about, 0 where it is about none
	Link      *Heard   // for a link
	Counted   *Counted // by a link that is gone, at its end
}

// Counted is what a link has counted, as /proc/net/dev would tell it.
type Counted struct {
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Host is the Namespace of what happens on the host.
const Host = -1

// Heard is what a notice says of a link. Those of two notices are equal unless
// something has been changed, the carrier aside.
type Heard struct {
	Name     string
	Altnames string // separated by spaces
	Alias    string
	Kind     string // "" for a NIC
	Options  string // of a bond and the like, as the kernel encodes them
	Flags    uint32 // IFF_…, less those that come and go with the carrier
	MTU      uint32
	MAC      string
	Parent   int // the index of what it sits on, in whatever namespace
	Master   int
	Group    uint32
	Carrier  bool
}

// ErrMissed says that more has happened than the listener had room for: everything
// may have been changed.
var ErrMissed = errors.New("notices were lost")

// noticeRoom is how much the kernel keeps for the listener, in bytes: five hundred
// virtual servers that lose their links at once take 10 MiB of it.
const noticeRoom = 32 << 20

// Listen begins to hear what happens on the calling thread's namespace, which is the
// host's.
func Listen() (*Listener, error) {
	l, err := listen()
	if err != nil {
		return nil, fmt.Errorf("cannot hear what is changed: %w", err)
	}
	return l, nil
}

func listen() (*Listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	l := &Listener{f: os.NewFile(uintptr(fd), "netlink"), self: Host, buf: make([]byte, 64<<10), oob: make([]byte, 64)}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, noticeRoom) != nil { // within a user namespace
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, noticeRoom) // as much as may be
	}
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1),
	)
	for _, group := range []int{
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF, unix.RTNLGRP_NSID,
	} {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group))
	}
	if err == nil {
		l.raw, err = l.f.SyscallConn()
	}
	if err == nil {
		l.asks, err = dialNetlink(unix.NETLINK_ROUTE)
	}
	if err != nil {
		l.f.Close()
		return nil, err
	}
	here, err := nsutil.Current()
	if err == nil {
		l.self, err = l.id(here)
		here.Close()
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Close ends it, and a Next that waits.
func (l *Listener) Close() error {
	l.asks.close()
	return l.f.Close()
}

// Follow has the listener hear what happens in a namespace, too, and returns the id
// that its notices carry. The id is the host's word for the namespace; it goes with it,
// and keeps it from nothing. It may be called beside Next, by one goroutine.
func (l *Listener) Follow(ns *nsutil.Namespace) (id int, err error) {
	err = l.asks.one(nameNamespace(ns.Fd()))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return 0, fmt.Errorf("cannot give the namespace an id: %w", err)
	}
	return l.id(ns)
}

// Links are the host's, by their indexes. As Follow, it is for one goroutine.
func (l *Listener) Links() (map[int]Heard, error) {
	links := map[int]Heard{}
	err := l.asks.all(linkList(), func(b []byte) {
		if n, ok := decodeNotice(unix.RTM_NEWLINK, b); ok {
			links[n.Index] = *n.Link
		}
	})
	return links, err
}

// id is a namespace's, or -1 while it has none.
func (l *Listener) id(ns *nsutil.Namespace) (int, error) {
	id := -1
	err := l.asks.get(namespaceID(ns.Fd()), func(b []byte) {
		eachAttr(b[min(rtgenmsgLen, len(b)):], func(typ uint16, value []byte) {
			if typ == unix.NETNSA_NSID && len(value) == 4 {
				id = int(int32(binary.NativeEndian.Uint32(value)))
			}
		})
	})
	return id, err
}

// Next waits for what happens next. After ErrMissed it goes on.
func (l *Listener) Next() ([]Notice, error) {
	var n, oobn, flags int
	var err error
	waited := l.raw.Read(func(fd uintptr) bool {
		n, oobn, flags, _, err = unix.Recvmsg(int(fd), l.buf, l.oob, 0)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	switch {
	case waited != nil:
		return nil, waited
	case errors.Is(err, unix.ENOBUFS):
		return nil, cmp.Or(l.drain(), ErrMissed)
	case err != nil:
		return nil, fmt.Errorf("cannot hear the kernel: %w", err)
	case flags&unix.MSG_TRUNC != 0: // somebody inside has a link say more than there is room for
		return nil, ErrMissed
	}
	replies, err := parseReplies(l.buf[:n])
	if err != nil {
		return nil, err
	}
	from := Host
	if id, ok := namespaceOf(l.oob[:oobn]); ok && id != l.self {
		from = id
	}
	var list []Notice
	for _, r := range replies {
		if notice, ok := decodeNotice(r.kind, r.payload); ok {
			if notice.Topic != OfNamespace { // else it names another one
				notice.Namespace = from
			} else if from != Host {
				continue // an id that is another namespace's word
			}
			list = append(list, notice)
		}
	}
	return list, nil
}

// drain throws away what is there: the kernel tells once that it has lost some, and then
// loses all that comes until nothing is left (netlink_overrun, netlink_rcv_wake).
func (l *Listener) drain() error {
	return l.raw.Read(func(fd uintptr) bool {
		for {
			_, _, err := unix.Recvfrom(int(fd), l.buf, 0)
			if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) { // EAGAIN
				return true
			}
		}
	})
}

// SetDeadline ends a Next that waits longer.
func (l *Listener) SetDeadline(t time.Time) { l.f.SetReadDeadline(t) }

// namespaceOf is the id of where a notice comes from; none for the host.
func namespaceOf(oob []byte) (id int, ok bool) {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, false
	}
	for _, m := range list {
		if m.Header.Level == unix.SOL_NETLINK && m.Header.Type == unix.NETLINK_LISTEN_ALL_NSID && len(m.Data) >= 4 {
			return int(int32(binary.NativeEndian.Uint32(m.Data))), true
		}
	}
	return 0, false
}

// decodeNotice reads what a multicast says, of what matters here.
func decodeNotice(kind uint16, body []byte) (n Notice, ok bool) {
	switch kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(body) < unix.SizeofIfInfomsg || body[0] == unix.AF_BRIDGE { // a bridge's ports
			return n, false
		}
		n = Notice{Topic: OfLink, Gone: kind == unix.RTM_DELLINK, Index: int(binary.NativeEndian.Uint32(body[4:]))}
		n.Link = decodeHeard(body)
		if n.Gone {
			n.Counted = decodeCounted(body)
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		n = Notice{Topic: OfAddress, Gone: kind == unix.RTM_DELADDR}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		n = Notice{Topic: OfRoute, Gone: kind == unix.RTM_DELROUTE}
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		n = Notice{Topic: OfRule, Gone: kind == unix.RTM_DELRULE}
	case unix.RTM_NEWNETCONF:
		n = Notice{Topic: OfSysctl}
		eachAttr(body[min(rtgenmsgLen, len(body)):], func(typ uint16, value []byte) {
			if typ == netconfIfindex && len(value) == 4 {
				n.Index = int(int32(binary.NativeEndian.Uint32(value))) // negative: all, default
			}
		})
	case unix.RTM_DELNSID:
		n = Notice{Topic: OfNamespace, Gone: true, Namespace: decodeID(body)}
	default:
		return n, false
	}
	return n, true
}

// NETCONFA_IFINDEX, include/uapi/linux/netconf.h.
const netconfIfindex = 1

func decodeHeard(body []byte) *Heard {
	flags := binary.NativeEndian.Uint32(body[8:])
	h := &Heard{
		Flags:   flags &^ (unix.IFF_RUNNING | unix.IFF_LOWER_UP | unix.IFF_DORMANT),
		Carrier: flags&unix.IFF_LOWER_UP != 0,
	}
	eachAttr(body[unix.SizeofIfInfomsg:], func(typ uint16, value []byte) {
		switch typ {
		case unix.IFLA_IFNAME:
			h.Name = text(value)
		case unix.IFLA_IFALIAS:
			h.Alias = text(value)
		case unix.IFLA_ADDRESS:
			h.MAC = string(value)
		case unix.IFLA_MTU:
			h.MTU = uint32(number(value))
		case unix.IFLA_LINK:
			h.Parent = number(value)
		case unix.IFLA_MASTER:
			h.Master = number(value)
		case unix.IFLA_GROUP:
			h.Group = uint32(number(value))
		case unix.IFLA_PROP_LIST:
			eachAttr(value, func(_ uint16, name []byte) { h.Altnames += text(name) + " " })
		case unix.IFLA_LINKINFO:
			eachAttr(value, func(typ uint16, value []byte) {
				switch typ {
				case unix.IFLA_INFO_KIND:
					h.Kind = text(value)
				case unix.IFLA_INFO_DATA:
					h.Options = string(value)
				}
			})
		}
	})
	return h
}

// decodeCounted reads struct rtnl_link_stats64; nil where there is none.
func decodeCounted(body []byte) (c *Counted) {
	eachAttr(body[unix.SizeofIfInfomsg:], func(typ uint16, value []byte) {
		if typ != unix.IFLA_STATS64 || len(value) < 16*8 {
			return
		}
		at := func(k int) uint64 { return binary.NativeEndian.Uint64(value[8*k:]) }
		const missed = 15 // for want of a buffer
		c = &Counted{
			RxPackets: at(0), TxPackets: at(1), RxBytes: at(2), TxBytes: at(3),
			RxErrors: at(4), TxErrors: at(5), RxDropped: at(6) + at(missed), TxDropped: at(7),
		}
	})
	return c
}

// text is a string of the kernel's, without its final zero.
func text(value []byte) string {
	if n := len(value); n > 0 && value[n-1] == 0 {
		value = value[:n-1]
	}
	return string(value)
}
