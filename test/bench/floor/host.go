package floor

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A Server is a namespace with a macvlan on a port, an address and a default route.
type Server struct {
	Name    string // of the namespace; its interface is eth0
	MAC     [6]byte
	Address netip.Prefix // IPv4
	Gateway netip.Addr
}

// Number is one of up to 65,534 servers on a segment that has the addresses for
// benchmarks (RFC 2544, 198.18.0.0/15).
func Number(n int) Server {
	return Server{
		Name:    "vs" + strconv.Itoa(n),
		MAC:     [6]byte{2, 0x76, 0x73, 0, byte(n >> 8), byte(n)},
		Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}), 15),
		Gateway: netip.AddrFrom4([4]byte{198, 19, 255, 254}),
	}
}

// A Host makes servers on one port and takes them away. It is the goroutine's that has
// opened it, and keeps that on its thread.
type Host struct {
	dir  string // where namespaces are published, mounted already
	port int
	home int // the host's own namespace
	host socket
	in   socket // used again for each server
}

// Open is for servers on that port; their namespaces are published in dir.
func Open(dir, port string) (*Host, error) {
	runtime.LockOSThread()
	device, err := net.InterfaceByName(port)
	if err != nil {
		return nil, err
	}
	h := &Host{dir: dir, port: device.Index}
	if h.home, err = unix.Open(self, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil, err
	}
	return h, h.host.open()
}

const self = "/proc/thread-self/ns/net"

// Close lets go of the host, and of the thread.
func (h *Host) Close() {
	h.host.close()
	unix.Close(h.home)
	runtime.UnlockOSThread()
}

func (h *Host) path(s Server) string { return filepath.Join(h.dir, s.Name) }

// Create makes a server and publishes it.
func (h *Host) Create(s Server) error { return h.create(s, func() error { return nil }) }

// CreateTold is Create, and tells the segment of the address, as vsrun does.
func (h *Host) CreateTold(s Server) error {
	return h.create(s, func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/arp_notify", []byte("1"), 0); err != nil {
			return err
		}
		if err := h.in.open(); err != nil {
			return err
		}
		defer h.in.close()
		h.in.link(unix.RTM_NEWLINK, 0, link, 0)
		h.in.put(unix.IFLA_ADDRESS, s.MAC[:]...)
		return h.in.send()
	})
}

func (h *Host) create(s Server, last func() error) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	defer unix.Setns(h.home, unix.CLONE_NEWNET)
	ns, err := unix.Open(self, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	if err := h.makeLink(s, ns); err != nil {
		return err
	}
	if err := h.configure(s); err != nil {
		return err
	}
	if err := h.publish(s); err != nil {
		return err
	}
	return last()
}

func (h *Host) publish(s Server) error {
	fd, err := unix.Open(h.path(s), unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	unix.Close(fd)
	return unix.Mount(self, h.path(s), "", unix.MS_BIND, "")
}

// link is the index of the one interface of a server, after loopback's.
const link = 2

// makeLink makes the macvlan where it is to be, with the name and MAC that it is to
// have, and up: nothing is moved, and nothing looked up.
func (h *Host) makeLink(s Server, ns int) error {
	const macvlanMode, bridge = 1, 4 // include/uapi/linux/if_link.h
	h.host.link(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, link, unix.IFF_UP)
	h.host.put(unix.IFLA_IFNAME, []byte("eth0\x00")...)
	h.host.putInt(unix.IFLA_LINK, h.port)
	h.host.put(unix.IFLA_ADDRESS, s.MAC[:]...)
	h.host.putInt(unix.IFLA_NET_NS_FD, ns)
	endInfo := h.host.nest(unix.IFLA_LINKINFO)
	h.host.put(unix.IFLA_INFO_KIND, []byte("macvlan")...)
	endData := h.host.nest(unix.IFLA_INFO_DATA)
	h.host.putInt(macvlanMode, bridge)
	endData()
	endInfo()
	return h.host.send()
}

// configure works in the namespace that the thread is in.
func (h *Host) configure(s Server) error {
	if err := h.in.open(); err != nil {
		return err
	}
	defer h.in.close()
	h.in.link(unix.RTM_NEWLINK, 0, 1, unix.IFF_UP)
	address := s.Address.Addr().As4()
	h.in.request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		unix.AF_INET, byte(s.Address.Bits()), 0, unix.RT_SCOPE_UNIVERSE, link, 0, 0, 0)
	h.in.put(unix.IFA_LOCAL, address[:]...)
	h.in.put(unix.IFA_ADDRESS, address[:]...)
	gateway := s.Gateway.As4()
	h.in.request(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		unix.AF_INET, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0)
	h.in.put(unix.RTA_GATEWAY, gateway[:]...)
	return h.in.send()
}

// visit calls do with a socket in the server's namespace.
func (h *Host) visit(s Server, do func(*socket) error) error {
	ns, err := unix.Open(h.path(s), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return err
	}
	defer unix.Setns(h.home, unix.CLONE_NEWNET)
	if err := h.in.open(); err != nil {
		return err
	}
	defer h.in.close()
	return do(&h.in)
}

// Look reads all links, addresses and routes of a server, and counts them.
func (h *Host) Look(s Server) (entries int, err error) {
	count := func([]byte) { entries++ }
	err = h.visit(s, func(in *socket) error {
		for _, list := range []struct {
			kind   uint16
			header []byte
		}{
			{unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg)},
			{unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg)},
			{unix.RTM_GETROUTE, make([]byte, unix.SizeofRtMsg)},
		} {
			if err := in.dump(list.kind, count, list.header...); err != nil {
				return err
			}
		}
		return nil
	})
	return entries, err
}

// Destroy takes one server away; its MAC is free when it returns.
func (h *Host) Destroy(s Server) error {
	err := h.visit(s, func(in *socket) error {
		in.link(unix.RTM_DELLINK, 0, link, 0)
		return in.send()
	})
	if err != nil {
		return err
	}
	return h.drop(s)
}

func (h *Host) drop(s Server) error {
	if err := unix.Unmount(h.path(s), unix.MNT_DETACH); err != nil {
		return err
	}
	return os.Remove(h.path(s))
}

// Drop takes servers away together; their MACs are free when it returns.
func (h *Host) Drop(servers []Server) error {
	for _, s := range servers {
		if err := h.drop(s); err != nil {
			return err
		}
	}
	macs := make(map[[6]byte]bool, len(servers))
	for _, s := range servers {
		macs[s.MAC] = true
	}
	for {
		busy, err := h.busy(macs)
		if err != nil || !busy {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// busy tells whether the port still receives for one of the addresses (dev_uc_list, as
// `bridge fdb show` has it).
func (h *Host) busy(macs map[[6]byte]bool) (busy bool, err error) {
	var header [unix.SizeofIfInfomsg]byte
	header[0] = unix.AF_BRIDGE
	native.PutUint32(header[4:], uint32(h.port))
	err = h.host.dump(unix.RTM_GETNEIGH, func(entry []byte) {
		if mac := attribute(entry[unix.SizeofNdMsg:], unix.NDA_LLADDR); len(mac) == 6 {
			busy = busy || macs[[6]byte(mac)]
		}
	}, header[:]...)
	return busy, err
}
