package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Frame is an Ethernet frame as it was on the wire. VLAN is its outermost
// tag's id, or −1, and TPID that tag's protocol: the kernel takes it out of the
// data.
type Frame struct {
	Time      time.Time
	Dst, Src  net.HardwareAddr
	VLAN      int
	TPID      uint16
	EtherType uint16
	Payload   []byte
}

// A Capture collects the frames that a device receives.
type Capture struct {
	f    *os.File
	done chan struct{}

	mu     sync.Mutex
	frames []Frame
}

// Capture collects what the client receives, from now until Stop or the end of
// the test.
func (c *Client) Capture(t testing.TB) *Capture {
	t.Helper()
	return capture(t, c.path, clientIf)
}

// Capture collects what a port of the host sends, from now until Stop or the
// end of the test.
func (s *Segment) Capture(t testing.TB, port string) *Capture {
	t.Helper()
	return capture(t, s.path, port)
}

func capture(t testing.TB, ns, device string) *Capture {
	t.Helper()
	f, err := packetSocket(ns, device)
	if err != nil {
		t.Fatalf("cannot capture on %s: %v", device, err)
	}
	c := &Capture{f: f, done: make(chan struct{})}
	go c.collect(t)
	t.Cleanup(func() { c.Stop() })
	return c
}

func packetSocket(path, device string) (*os.File, error) {
	fd := -1
	err := within(path, func() error {
		dev, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
		// Protocol 0 receives nothing until the socket is bound to its device.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index}))
	})
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "packets of "+device), nil
}

func (c *Capture) collect(t testing.TB) {
	defer close(c.done)
	conn, err := c.f.SyscallConn()
	if err != nil {
		return
	}
	buf, oob := make([]byte, 1<<16), make([]byte, 256)
	for {
		var n, oobn int
		var from unix.Sockaddr
		var got error
		err := conn.Read(func(fd uintptr) bool {
			n, oobn, _, from, got = unix.Recvmsg(int(fd), buf, oob, 0)
			return got != unix.EAGAIN
		})
		if err != nil { // closed
			return
		}
		if got != nil && got != unix.EINTR {
			t.Errorf("the capture of %s has ended: %v", c.f.Name(), got)
			return
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		if !ok || link.Pkttype == unix.PACKET_OUTGOING || n < 14 {
			continue
		}
		vlan, tpid := vlanOf(oob[:oobn])
		frame := parseFrame(slices.Clone(buf[:n]), vlan, tpid)
		c.mu.Lock()
		c.frames = append(c.frames, frame)
		c.mu.Unlock()
	}
}

func parseFrame(b []byte, vlan int, tpid uint16) Frame {
	return Frame{time.Now(), b[0:6], b[6:12], vlan, tpid, binary.BigEndian.Uint16(b[12:]), b[14:]}
}

// vlanOf finds the tag that the kernel has taken out of the frame (packet(7),
// PACKET_AUXDATA).
func vlanOf(oob []byte) (id int, tpid uint16) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1, 0
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA ||
			len(m.Data) < int(unsafe.Sizeof(unix.TpacketAuxdata{})) {
			continue
		}
		aux := (*unix.TpacketAuxdata)(unsafe.Pointer(&m.Data[0]))
		if aux.Status&unix.TP_STATUS_VLAN_VALID != 0 {
			return int(aux.Vlan_tci & 0x0fff), aux.Vlan_tpid
		}
	}
	return -1, 0
}

// Frames are those captured so far that all the conditions hold for.
func (c *Capture) Frames(where ...func(Frame) bool) []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.frames), func(f Frame) bool {
		return slices.ContainsFunc(where, func(holds func(Frame) bool) bool { return !holds(f) })
	})
}

// Await waits until n frames that all the conditions hold for are there, and
// returns those that are there then; on timeout these are fewer than n.
func (c *Capture) Await(n int, timeout time.Duration, where ...func(Frame) bool) []Frame {
	end := time.Now().Add(timeout)
	for {
		frames := c.Frames(where...)
		if len(frames) >= n || time.Now().After(end) {
			return frames
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Stop ends the capture and returns all its frames.
func (c *Capture) Stop() []Frame {
	c.f.Close()
	<-c.done
	return c.Frames()
}

// From holds for frames with the source MAC address.
func From(mac string) func(Frame) bool {
	return func(f Frame) bool { return f.Src.String() == mac }
}

// Announces holds for frames that tell everybody who has addr without being
// asked: a gratuitous ARP, request or reply (RFC 5227, 3), or an unsolicited
// neighbour advertisement to all nodes (RFC 4861, 7.2.6).
func Announces(addr string) func(Frame) bool {
	a := netip.MustParseAddr(addr)
	return func(f Frame) bool {
		arp, ok := f.arp()
		if ok {
			return arp.sender == a && arp.target == a
		}
		na, ok := f.advertisement()
		return ok && na.target == a && !na.solicited && na.to == allNodes
	}
}

// Probes holds for frames that ask whether anybody has addr on behalf of
// nobody: an ARP request from 0.0.0.0 (RFC 5227, 2.1.1), or a neighbour
// solicitation from :: (RFC 4862, 5.4.2).
func Probes(addr string) func(Frame) bool {
	a := netip.MustParseAddr(addr)
	return func(f Frame) bool {
		arp, ok := f.arp()
		if ok {
			return arp.request && arp.sender == netip.IPv4Unspecified() && arp.target == a
		}
		ns, ok := f.icmp6(icmpSolicitation)
		return ok && ns.from == netip.IPv6Unspecified() && ns.target == a
	}
}

// String shows what matters of the frame on a line.
func (f Frame) String() string {
	s := fmt.Sprintf("%s > %s", f.Src, f.Dst)
	if f.VLAN >= 0 {
		s += fmt.Sprintf(" vlan %d", f.VLAN)
	}
	if arp, ok := f.arp(); ok {
		what := map[bool]string{true: "request", false: "reply"}[arp.request]
		return fmt.Sprintf("%s arp %s sender %s target %s", s, what, arp.sender, arp.target)
	}
	if ns, ok := f.icmp6(icmpSolicitation); ok {
		return fmt.Sprintf("%s %s > %s neighbour solicitation target %s", s, ns.from, ns.to, ns.target)
	}
	if na, ok := f.advertisement(); ok {
		return fmt.Sprintf("%s %s > %s neighbour advertisement target %s", s, na.from, na.to, na.target)
	}
	return fmt.Sprintf("%s type %#04x, %d bytes", s, f.EtherType, len(f.Payload))
}
