package plumbing

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
)

// A Handle holds open what is needed to observe and change one namespace from
// the host. It is for one goroutine.
type Handle struct {
	place   Place
	view    *HostView // nil: nothing of the host is remembered
	host    *netlinkSocket
	inside  *netlinkSocket // nil while the namespace is absent, as ns
	ns      *nsutil.Namespace
	holder  int            // see Adopt
	proc    *procfs        // for all visits of its life
	indexes map[string]int // of links inside, as far as asked for

	// Had are interfaces that records have told of beside those of [Handle.Observe]. A link
	// inside is a device of the host's if a record says so: see portOf.
	Had []Interface

	// Settled, where there is one, is called when all links are in place, before
	// the segment is asked about addresses, which takes long.
	Settled func()

	// Deleting, where there is one, is called when a link inside is down, so that it
	// counts no more, and is about to be deleted.
	Deleting func(dev ...string)

	// Deleted, where there is one, is called when a link inside is gone, before another
	// takes its name.
	Deleted func()
}

// Open opens the namespace at a place, whether it is there or not. It must be
// called in the host's namespace, where the ports are.
func Open(place Place) (*Handle, error) { return (*HostView)(nil).Open(place) }

// Open is [Open] for one of many.
func (v *HostView) Open(place Place) (*Handle, error) {
	host, err := v.take()
	if err != nil {
		return nil, err
	}
	h := &Handle{place: place, view: v, host: host, proc: holdProcfs()}
	ns, err := nsutil.Open(place.Path())
	if err == nil {
		err = h.enter(ns)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// Adopt has the handle work in the namespace of its place though somebody has taken the
// name away: holder is a process in it. The namespace becomes the handle's.
func (h *Handle) Adopt(ns *nsutil.Namespace, holder int) error {
	h.holder = holder
	return h.enter(ns)
}

// OpenHost opens the host itself, for its ports.
func OpenHost() (*Handle, error) {
	host, err := dialNetlink(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	h := (&Handle{host: host}).onHost()
	h.proc = holdProcfs()
	return h, nil
}

// Close lets go of everything. A namespace that was made and not published
// ends here.
func (h *Handle) Close() {
	h.leave()
	h.view.giveBack(h.host)
	h.proc.giveBack()
}

// onHost is a handle whose inside is the host: for steps that work there.
func (h *Handle) onHost() *Handle {
	return &Handle{host: h.host, inside: h.host, indexes: map[string]int{}}
}

// do calls fn inside.
func (h *Handle) do(fn func() error) error {
	if h.inside == h.host {
		return fn()
	}
	return h.ns.Do(fn)
}

// Namespace is the namespace, or nil while there is none. It is the handle's:
// it is closed with it.
func (h *Handle) Namespace() *nsutil.Namespace { return h.ns }

// Whose says whose the namespace is, and looks at nothing but its mark.
func (h *Handle) Whose() (Presence, error) {
	if h.ns == nil {
		return Absent, nil
	}
	whose := Foreign
	err := h.inside.get(linkGet("lo"), func(b []byte) {
		eachAttr(b[min(unix.SizeofIfInfomsg, len(b)):], func(typ uint16, value []byte) {
			if typ == unix.IFLA_IFALIAS && text(value) == h.place.mark("") {
				whose = Ours
			}
		})
	})
	if err != nil {
		return Foreign, fmt.Errorf("cannot look into %s: %w", h.place.Name, err)
	}
	return whose, nil
}

func (h *Handle) enter(ns *nsutil.Namespace) error {
	h.hold(ns)
	return ns.Do(h.dial)
}

func (h *Handle) make() error {
	ns, err := nsutil.NewWith(h.dial)
	if err == nil {
		h.hold(ns)
	}
	return err
}

func (h *Handle) hold(ns *nsutil.Namespace) {
	h.ns, h.indexes = ns, map[string]int{"lo": 1} // LOOPBACK_IFINDEX
}

// dial opens the socket inside, in there.
func (h *Handle) dial() (err error) {
	h.inside, err = dialNetlink(unix.NETLINK_ROUTE)
	return err
}

// leave closes what would keep the namespace alive.
func (h *Handle) leave() error {
	if h.ns == nil { // absent, or the host
		return nil
	}
	h.inside.close()
	err := h.ns.Close()
	h.inside, h.ns = nil, nil
	return err
}

func (h *Handle) unpublish() error {
	if err := nsutil.Unpublish(h.place.Path()); err != nil {
		return err
	}
	return h.leave()
}

// index finds a link inside. A link that is not there is ENODEV.
func (h *Handle) index(dev string) (int, error) {
	if index, ok := h.indexes[dev]; ok {
		return index, nil
	}
	index := 0
	err := h.inside.get(linkGet(dev), func(b []byte) {
		if len(b) >= unix.SizeofIfInfomsg {
			index = int(binary.NativeEndian.Uint32(b[4:]))
		}
	})
	if err != nil {
		return 0, fmt.Errorf("no interface %s: %w", dev, err)
	}
	h.indexes[dev] = index
	return index, nil
}

// AwaitRelease waits until the network's MACs are off their ports, or a while:
// the kernel may still be destroying a namespace that held them. Whoever holds one without
// a name loses its links.
func (h *Handle) AwaitRelease(ctx context.Context, n Network) error {
	have := State{Ports: map[string]Port{}}
	if err := h.observeHost(&have, n); err != nil {
		return err
	}
	var spots []spot
	for _, i := range n.Interfaces {
		if port, there := have.Ports[i.base()]; there && i.HasOwnMAC() { // else it is gone, with all on it, or the port's for good
			spots = append(spots, spot{port.Index, i.MAC})
		}
	}
	left := false
	err := patiently(ctx, func() (bool, error) {
		busy, err := h.taken(spots)
		left = slices.Contains(slices.Collect(maps.Values(busy)), true)
		return left, err
	})
	if left {
		return h.deleteNameless(n)
	}
	return err
}

// decodePortMAC reads an entry of a port's list (struct ndmsg and attributes).
func decodePortMAC(entry []byte) (port int, mac MAC) {
	if len(entry) < unix.SizeofNdMsg {
		return 0, MAC{}
	}
	eachAttr(entry[unix.SizeofNdMsg:], func(typ uint16, value []byte) {
		if typ == unix.NDA_LLADDR && len(value) == len(mac) {
			mac = MAC(value)
		}
	})
	return int(binary.NativeEndian.Uint32(entry[4:])), mac
}

// destroySockets resets every TCP connection in the namespace.
func (h *Handle) destroySockets() error {
	var s *netlinkSocket
	err := h.ns.Do(func() (err error) {
		s, err = dialNetlink(unix.NETLINK_INET_DIAG)
		return err
	})
	if err != nil {
		return err
	}
	defer s.close()
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		var kill []message
		err := s.get(listSockets(family), func(b []byte) {
			if len(b) >= sockidAt+sockidLen {
				kill = append(kill, destroySocket(family, b[sockidAt:sockidAt+sockidLen]))
			}
		})
		if errors.Is(err, unix.ENOENT) { // this kernel lists no sockets (CONFIG_INET_DIAG)
			return nil
		}
		if err != nil {
			return err
		}
		for _, err := range s.do(kill...) {
			// Gone by itself, a kernel that cannot (CONFIG_INET_DIAG_DESTROY), or a
			// listener of MPTCP, which has no peer to tell.
			if unlessGone(err) != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
				return err
			}
		}
	}
	return nil
}
