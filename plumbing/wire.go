package plumbing

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
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
type probe struct {
	list []announcement
	own  []MAC // whose answers do not count
}

func (s probe) String() string { return "use " + words(s.list) }
func (s probe) undo() Step     { return nil }

func (s probe) Command(Place) string {
	return "# asked of the segment first: is anybody at " + words(s.list) + "?"
}

func (s probe) apply(ctx context.Context, h *Handle) error {
	if h.Settled != nil {
		h.Settled()
	}
	var questions []question
	for _, a := range s.list {
		for _, p := range []protocol{arpProtocol, ndpProtocol} {
			addrs := p.of(a.addrs)
			if len(addrs) == 0 {
				continue
			}
			wire, err := h.openWire(a.dev, p, addrs)
			if err != nil {
				return err
			}
			defer wire.Close()
			questions = append(questions, question{p, wire, a.mac, addrs, s.own})
		}
	}
	g, asking := errgroup.WithContext(ctx)
	for _, q := range questions {
		g.Go(func() error { return q.ask(asking) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// A protocol is how one address family finds who holds an address.
type protocol struct {
	etherType uint16
	is4       bool
	request   func(MAC, netip.Addr) []byte
	announce  func(MAC, netip.Addr) []byte
	// group is whom another one's question about an address is sent to, which a
	// link passes on to members only; nil for broadcasts.
	group func(netip.Addr) MAC
	// holder is who a received frame says holds, or also wants, an address.
	holder func(frame []byte) (mac MAC, addrs [2]netip.Addr, ok bool)
}

var arpProtocol = protocol{
	etherType: unix.ETH_P_ARP,
	is4:       true,
	request:   arpProbe,
	announce:  arpAnnouncement,
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
	request:   solicit,
	announce:  advertise,
	group:     func(a netip.Addr) MAC { return groupMAC(solicitedNode(a)) },
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

// A question is asked of one link, in one protocol.
type question struct {
	protocol
	wire  *os.File
	mac   MAC
	addrs []netip.Addr
	own   []MAC
}

func (q question) ask(ctx context.Context) error {
	for range probeCount {
		for _, a := range q.addrs {
			// One that finds no room on its way is lost, as others are on the wire (packet(7)).
			if _, err := q.wire.Write(q.request(q.mac, a)); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return fmt.Errorf("cannot ask the segment: %w", err)
			}
		}
		if err := q.listen(ctx); err != nil || ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// listen waits for one answer's time.
func (q question) listen(ctx context.Context) error {
	q.wire.SetReadDeadline(time.Now().Add(probeWait))
	stop := context.AfterFunc(ctx, func() { q.wire.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	frame := make([]byte, 2048)
	for {
		n, err := q.wire.Read(frame)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot hear the segment: %w", err)
		}
		from, addrs, ok := q.holder(frame[:n])
		if !ok || slices.Contains(q.own, from) {
			continue
		}
		for _, a := range addrs {
			if slices.Contains(q.addrs, a) {
				return refuse("choose another address, or skip the question with --no-probe",
					"%s is in use on the segment by %s", a, from)
			}
		}
	}
}

// announce tells the segment where the addresses of a link are now. Giving a link
// the MAC that it has makes the kernel say so (NETDEV_CHANGEADDR, with arp_notify
// and ndisc_notify set); closing a packet socket of our own would wait 10 ms for
// the kernel's readers. It never fails: without, the addresses work later.
//
// Once: each neighbour on the port gets a copy before the request returns (macvlan_broadcast),
// which is most of the time that a thousandth virtual server takes to make. A second
// one in the same instant would be lost with the first.
type announce struct{ announcement }

func (s announce) String() string { return "announce " + s.announcement.String() }
func (s announce) undo() Step     { return nil }

func (s announce) Command(p Place) string {
	line := fmt.Sprintf("%s link set dev %s address %s", p.in("ip"), quote(s.dev), s.mac)
	return "# tells the segment: " + s.announcement.String() + "\n" + line
}

func (s announce) apply(_ context.Context, h *Handle) error {
	if index, err := h.index(s.dev); err == nil {
		h.inside.one(linkMAC(index, s.mac))
	}
	return nil
}

// announceInUse is announce for a link that is in use: the kernel would forget its neighbours
// each time, with what waits for one of them.
type announceInUse struct{ announce }

func (s announceInUse) apply(_ context.Context, h *Handle) error {
	for _, p := range []protocol{arpProtocol, ndpProtocol} {
		addrs := p.of(s.addrs)
		if len(addrs) == 0 {
			continue
		}
		wire, err := h.openWire(s.dev, p, nil)
		if err != nil {
			continue
		}
		for _, a := range addrs {
			wire.Write(p.announce(s.mac, a))
		}
		wire.Close()
	}
	return nil
}

// Announcements is the plan that tells the segments of what a network should hold, and
// holds. The kernel tells of IPv6 addresses only where it should have some (ndisc_notify).
func Announcements(want Network, have State) Plan {
	var plan Plan
	ip6 := slices.ContainsFunc(want.Interfaces, Interface.hasIPv6)
	for _, i := range want.inheriting(have).Interfaces {
		a := announcement{dev: i.Name, mac: i.MAC}
		for _, p := range have.Addresses {
			if p.Dev == i.Name && (ip6 || p.Prefix.Addr().Is4()) {
				a.addrs = append(a.addrs, p.Prefix.Addr())
			}
		}
		if l, there := have.Link(i.Name); there && l.MAC == i.MAC && len(a.addrs) > 0 {
			plan = append(plan, announce{a})
		}
	}
	return plan
}

// openWire opens a packet socket on a link inside: it sends whole frames, and
// receives those of a protocol that concern addrs.
func (h *Handle) openWire(dev string, p protocol, addrs []netip.Addr) (*os.File, error) {
	index, err := h.index(dev)
	if err != nil {
		return nil, err
	}
	fd := -1
	err = h.do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot open a packet socket: %w", err)
	}
	if err := p.listenOn(fd, index, addrs); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot listen on %s: %w", dev, err)
	}
	return os.NewFile(uintptr(fd), "packet:"+dev), nil
}

func (p protocol) listenOn(fd, index int, addrs []netip.Addr) error {
	etherType := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, p.etherType))
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: etherType, Ifindex: index}); err != nil {
		return err
	}
	if p.group == nil {
		return nil
	}
	for _, a := range addrs {
		group := p.group(a)
		member := unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_MULTICAST, Alen: uint16(len(group))}
		copy(member.Address[:], group[:])
		if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &member); err != nil {
			return err
		}
	}
	return nil
}
