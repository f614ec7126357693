package plumbing

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// A HostView is what those who see to many virtual servers know of the host's devices. It is
// read once, and again when the kernel has told of a change. The nil HostView remembers
// nothing.
type HostView struct {
	mu    sync.Mutex
	news  *netlinkSocket
	asks  *netlinkSocket
	seen  *hostDevices
	spare []*netlinkSocket // for handles
}

// ViewHost begins a view of the calling thread's namespace, which is the host's.
func ViewHost() (*HostView, error) {
	news, err := dialNetlink(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	v := &HostView{news: news}
	// Who has no address is told nothing (do_one_broadcast).
	err = unix.Bind(news.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, group := range []int{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR} {
		err = errors.Join(err, unix.SetsockoptInt(news.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group))
	}
	if err == nil {
		v.asks, err = dialNetlink(unix.NETLINK_ROUTE)
	}
	if err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// Close ends it. Handles that were opened by it are closed before.
func (v *HostView) Close() {
	v.news.close()
	v.asks.close()
	for _, s := range v.spare {
		s.close()
	}
}

// take gives a handle a socket on the host.
func (v *HostView) take() (*netlinkSocket, error) {
	if v != nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		if last := len(v.spare) - 1; last >= 0 {
			s := v.spare[last]
			v.spare = v.spare[:last]
			return s, nil
		}
	}
	return dialNetlink(unix.NETLINK_ROUTE)
}

func (v *HostView) giveBack(s *netlinkSocket) {
	if v == nil {
		s.close()
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.spare = append(v.spare, s)
}

// look calls do with what is so now. asks is for who has no view.
func (v *HostView) look(asks *netlinkSocket, do func(*hostDevices) error) error {
	if v == nil {
		return do(&hostDevices{asks: asks})
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.seen == nil || v.news.heard() {
		v.seen = &hostDevices{asks: v.asks}
	}
	return do(v.seen)
}

// heard takes what multicasts there are, and reports whether there were any.
func (s *netlinkSocket) heard() (any bool) {
	for {
		_, _, err := unix.Recvfrom(s.fd, s.buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return any
		case !errors.Is(err, unix.EINTR): // ENOBUFS: there were too many
			any = true
		}
	}
}

// hostDevices are read as they are asked for.
type hostDevices struct {
	asks  *netlinkSocket
	found map[string]device // by the name that was asked for
	list  []device
	addrs map[int][]netip.Addr
}

// named finds a device by its name, or an alternative one; ENODEV when there is none.
func (h *hostDevices) named(name string) (device, error) {
	if d, ok := h.found[name]; ok {
		return d, nil
	}
	d, err := h.asks.device(linkGet(name))
	if err == nil {
		if h.found == nil {
			h.found = map[string]device{}
		}
		h.found[name] = d
	}
	return d, err
}

// all lists them.
func (h *hostDevices) all() (list []device, err error) {
	if h.list == nil {
		h.list, err = h.asks.devices()
	}
	return h.list, err
}

// addresses are those on the device with that index.
func (h *hostDevices) addresses(index int) ([]netip.Addr, error) {
	if h.addrs == nil {
		addrs := map[int][]netip.Addr{}
		err := h.asks.all(dump(unix.RTM_GETADDR, unix.AF_UNSPEC), func(b []byte) {
			if a, _, _, _ := decodeAddress(b, nil); a.Prefix.IsValid() {
				on := int(binary.NativeEndian.Uint32(b[4:]))
				addrs[on] = append(addrs[on], a.Prefix.Addr())
			}
		})
		if err != nil {
			return nil, err
		}
		h.addrs = addrs
	}
	return slices.Clone(h.addrs[index]), nil
}
