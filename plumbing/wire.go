package plumbing

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// An announcement is what a segment should hear: these addresses are at mac.
type announcement struct {
	dev   string
	mac   MAC
	addrs []netip.Addr
}

func (a announcement) String() string {
	words := make([]string, len(a.addrs))
	for k, addr := range a.addrs {
		words[k] = addr.String()
	}
	return strings.Join(words, ", ") + " on " + a.dev
}

func words(list []announcement) string {
	words := make([]string, len(list))
	for k, a := range list {
		words[k] = a.String()
	}
	return strings.Join(words, "; ")
}

// Probing follows RFC 5227 (and RFC 4862 for IPv6), with waits for a local
// network of today: three questions, and time for an answer to each.
const (
	probeCount = 3
	probeWait  = 100 * time.Millisecond
)

// probe asks the segment whether somebody holds the addresses.
type probe struct{ list []announcement }

func (s probe) String() string { return "use " + words(s.list) }
func (s probe) undo() Step     { return nil }

func (s probe) Command(Place) string {
	return "# asked of the segment first: is anybody at " + words(s.list) + "?"
}

func (s probe) apply(ctx context.Context, h *Handle) error {
	ctx, cancel := context.WithTimeout(ctx, probeCount*probeWait)
	defer cancel()
	var g errgroup.Group
	for _, a := range s.list {
		for _, p := range []protocol{arpProtocol, ndpProtocol} {
			addrs := p.of(a.addrs)
			if len(addrs) == 0 {
				continue
			}
			wire, err := h.openWire(a.dev, p.etherType)
			if err != nil {
				return err
			}
			g.Go(func() error { return p.probe(ctx, wire, a.mac, addrs) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return nil
}

// A protocol is how one address family finds and tells who holds an address.
type protocol struct {
	etherType uint16
	is4       bool
	ask, tell func(MAC, netip.Addr) []byte
	// holder is who a received frame says holds, or also wants, an address.
	holder func(frame []byte) (mac MAC, addrs [2]netip.Addr, ok bool)
}

var arpProtocol = protocol{
	etherType: unix.ETH_P_ARP,
	is4:       true,
	ask:       func(m MAC, a netip.Addr) []byte { return arp(m, netip.IPv4Unspecified(), a) },
	tell:      func(m MAC, a netip.Addr) []byte { return arp(m, a, a) },
	holder: func(frame []byte) (MAC, [2]netip.Addr, bool) {
		mac, sender, target, ok := parseARP(frame)
		if !sender.IsUnspecified() { // not a probe: the target is only asked for
			target = netip.Addr{}
		}
		return mac, [2]netip.Addr{sender, target}, ok
	},
}

var ndpProtocol = protocol{
	etherType: unix.ETH_P_IPV6,
	ask:       solicit,
	tell:      advertise,
	holder: func(frame []byte) (MAC, [2]netip.Addr, bool) {
		mac, target, ok := parseNeighbour(frame)
		return mac, [2]netip.Addr{target}, ok
	},
}

func (p protocol) of(addrs []netip.Addr) []netip.Addr {
	var list []netip.Addr
	for _, a := range addrs {
		if a.Is4() == p.is4 {
			list = append(list, a)
		}
	}
	return list
}

func (p protocol) probe(ctx context.Context, wire *os.File, mac MAC, addrs []netip.Addr) error {
	defer wire.Close()
	wanted := map[netip.Addr]bool{}
	for _, a := range addrs {
		wanted[a] = true
	}
	for range probeCount {
		for _, a := range addrs {
			if _, err := wire.Write(p.ask(mac, a)); err != nil {
				return fmt.Errorf("cannot ask the segment: %w", err)
			}
		}
		if err := p.listen(ctx, wire, mac, wanted); err != nil {
			return err
		}
	}
	return nil
}

// listen waits for one answer's time.
func (p protocol) listen(ctx context.Context, wire *os.File, mac MAC, wanted map[netip.Addr]bool) error {
	stop := context.AfterFunc(ctx, func() { wire.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	wire.SetReadDeadline(time.Now().Add(probeWait))
	frame := make([]byte, 2048)
	for {
		n, err := wire.Read(frame)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot hear the segment: %w", err)
		}
		from, addrs, ok := p.holder(frame[:n])
		if !ok || from == mac {
			continue
		}
		for _, a := range addrs {
			if wanted[a] {
				return refuse("choose another address, or skip the question with --no-probe",
					"%s is in use on the segment by %s", a, from)
			}
		}
	}
}

// announceCount is how often an address is announced: once in three may be
// lost. The kernel itself would announce once, and only an address that was
// there before the link came up.
const announceCount = 3

// announce tells the segment where the addresses are now. It never fails: the
// addresses work without, only later.
type announce struct{ list []announcement }

func (s announce) String() string { return "announce " + words(s.list) }
func (s announce) undo() Step     { return nil }

func (s announce) Command(Place) string { return "# then announced to the segment: " + words(s.list) }

func (s announce) apply(_ context.Context, h *Handle) error {
	for _, a := range s.list {
		wire, err := h.openWire(a.dev, 0)
		if err != nil {
			continue
		}
		for range announceCount {
			for _, addr := range a.addrs {
				tell := ndpProtocol.tell
				if addr.Is4() {
					tell = arpProtocol.tell
				}
				wire.Write(tell(a.mac, addr))
			}
		}
		wire.Close()
	}
	return nil
}

// openWire opens a packet socket on a link inside: it sends whole frames, and
// receives those of one Ethernet type, or none for 0.
func (h *Handle) openWire(dev string, etherType uint16) (*os.File, error) {
	index, err := h.index(dev)
	if err != nil {
		return nil, err
	}
	fd := -1
	err = h.ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot open a packet socket: %w", err)
	}
	protocol := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, etherType))
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: index}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot bind a packet socket to %s: %w", dev, err)
	}
	return os.NewFile(uintptr(fd), "packet:"+dev), nil
}
