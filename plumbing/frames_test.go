package plumbing

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var (
	mac9  = MAC{2, 0, 0, 0, 0, 9}
	addr4 = netip.MustParseAddr("192.0.2.8")
	addr6 = netip.MustParseAddr("2001:db8::1:2:8")
	other = netip.MustParseAddr("192.0.2.100")
	asker = netip.MustParseAddr("fe80::100")
)

func TestFrames(t *testing.T) {
	for _, tt := range []struct {
		name, golden string
		got          []byte
	}{
		{"ARP probe", `
			ffffffffffff 020000000008 0806           # to all, from us, ARP
			0001 0800 06 04 0001                     # Ethernet, IPv4, a request
			020000000008 00000000                    # sender: us, at no address yet
			000000000000 c0000208                    # target: 192.0.2.8
			`, arpProtocol.request(mac8, addr4)},
		{"neighbour solicitation", `
			3333ff020008 020000000008 86dd           # to the solicited node's group
			60000000 0018 3a ff                      # IPv6: 24 bytes of ICMPv6, hop limit 255
			00000000000000000000000000000000         # from nobody yet
			ff0200000000000000000001ff020008         # to ff02::1:ff02:8
			87 00 4cda 00000000                      # neighbour solicitation
			20010db8000000000000000100020008         # target
			`, ndpProtocol.request(mac8, addr6)},
		{"ARP announcement", `
			ffffffffffff 020000000008 0806
			0001 0800 06 04 0001                     # a request
			020000000008 c0000208                    # sender: us, at our address
			000000000000 c0000208                    # target: the same
			`, arpProtocol.announce(mac8, addr4)},
		{"neighbour advertisement", `
			333300000001 020000000008 86dd           # to all nodes
			60000000 0020 3a ff                      # IPv6: 32 bytes of ICMPv6, hop limit 255
			20010db8000000000000000100020008         # from the address
			ff020000000000000000000000000001         # to ff02::1
			88 00 f90f 20000000                      # neighbour advertisement, override
			20010db8000000000000000100020008         # target
			02 01 020000000008                       # its MAC
			`, ndpProtocol.announce(mac8, addr6)},
	} {
		if d := cmp.Diff(hex.Dump(golden(t, tt.golden)), hex.Dump(tt.got)); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
}

// The receiver's check (RFC 1071): all words together, the checksum's too, come
// to ones. It is done here in words of 32 bits, another way than the sender's.
func TestChecksum(t *testing.T) {
	for low := range 1000 {
		a := addr6.As16()
		binary.BigEndian.PutUint16(a[14:], uint16(low*65))
		frame := solicit(mac8, netip.AddrFrom16(a))
		packet := frame[14:]
		pseudo := slices.Concat(packet[8:40], []byte{0, 0, packet[4], packet[5], 0, 0, 0, packet[6]})
		var sum uint64
		for word := range slices.Chunk(append(pseudo, packet[40:]...), 4) {
			sum += uint64(binary.BigEndian.Uint32(word))
		}
		if sum%0xffff != 0 {
			t.Fatalf("the checksum of %x is wrong", frame)
		}
	}
}

// An odd byte at the end counts as the high half of a word.
func TestChecksumOfOddLength(t *testing.T) {
	odd, even := []byte{1, 2, 3}, []byte{1, 2, 3, 0}
	// The pseudo-header's length differs by one, and nothing else.
	if a, b := icmp6Checksum(addr6, asker, odd), icmp6Checksum(addr6, asker, even); a != b+1 {
		t.Errorf("%04x and %04x", a, b)
	}
}

// arp is an ARP request of any kind.
func arp(mac MAC, sender, target netip.Addr) []byte {
	return changed(arpProbe(mac, target), 28, sender.AsSlice()...)
}

// advertisement is a neighbour advertisement to all nodes (RFC 4861, 4.4); nobody
// checks its checksum.
func advertisement(mac MAC, target netip.Addr) []byte {
	frame := changed(solicit(mac, target), 0, 0x33, 0x33, 0, 0, 0, 1)
	frame = changed(frame, 14+5, 32)
	frame = changed(frame, 14+8, target.AsSlice()...)
	frame = changed(frame, 14+24, netip.MustParseAddr("ff02::1").AsSlice()...)
	frame = changed(frame, 14+40, neighbourAdvertise, 0, 0, 0, 0x20)
	return append(append(frame, 2, 1), mac[:]...)
}

// changed is a frame with other bytes at one place.
func changed(frame []byte, at int, to ...byte) []byte {
	b := bytes.Clone(frame)
	copy(b[at:], to)
	return b
}

// resolution is a solicitation by a node that wants to send something.
func resolution(mac MAC, from, target netip.Addr) []byte {
	return changed(solicit(mac, target), 14+8, from.AsSlice()...)
}

var arpFrames = []struct {
	name    string
	in      []byte
	from    MAC
	holds   netip.Addr // sender
	asks    netip.Addr // target
	ok      bool
	claimed bool // what matters: does somebody else claim addr4?
}{
	{"another one's probe", arp(mac9, netip.IPv4Unspecified(), addr4), mac9, netip.IPv4Unspecified(), addr4, true, true},
	{"another one's announcement", arp(mac9, addr4, addr4), mac9, addr4, addr4, true, true},
	{"an answer", changed(arp(mac9, addr4, other), 21, 2), mac9, addr4, other, true, true},
	{"a holder that asks for somebody", arp(mac9, addr4, other), mac9, addr4, other, true, true},
	{"somebody asks for the address", arp(mac9, other, addr4), mac9, other, addr4, true, false},
	{"a probe for another address", arp(mac9, netip.IPv4Unspecified(), other), mac9, netip.IPv4Unspecified(), other, true, false},
	{"our own probe", arp(mac8, netip.IPv4Unspecified(), addr4), mac8, netip.IPv4Unspecified(), addr4, true, false},
	{"our own announcement", arp(mac8, addr4, addr4), mac8, addr4, addr4, true, false},
	{"padded, as switches do", append(arp(mac9, addr4, addr4), make([]byte, 18)...), mac9, addr4, addr4, true, true},
	{name: "a byte is missing", in: arp(mac9, addr4, addr4)[:41]},
	{name: "nothing"},
	{name: "another protocol", in: changed(arp(mac9, addr4, addr4), 12, 0x08, 0x00)},
	{name: "not Ethernet", in: changed(arp(mac9, addr4, addr4), 15, 6)},
	{name: "not IPv4", in: changed(arp(mac9, addr4, addr4), 16, 0x86, 0xdd)},
	{name: "long hardware addresses", in: changed(arp(mac9, addr4, addr4), 18, 8)},
	{name: "long addresses", in: changed(arp(mac9, addr4, addr4), 19, 16)},
}

func TestParseARP(t *testing.T) {
	for _, tt := range arpFrames {
		from, sender, target, ok := parseARP(tt.in)
		if from != tt.from || sender != tt.holds || target != tt.asks || ok != tt.ok {
			t.Errorf("%s: got %s, %s, %s, %t", tt.name, from, sender, target, ok)
		}
	}
}

var neighbourFrames = []struct {
	name    string
	in      []byte
	from    MAC
	target  netip.Addr
	ok      bool
	claimed bool
}{
	{"another one's detection", solicit(mac9, addr6), mac9, addr6, true, true},
	{"another one's advertisement", advertisement(mac9, addr6), mac9, addr6, true, true},
	{"our own detection", solicit(mac8, addr6), mac8, addr6, true, false},
	{"our own advertisement", advertisement(mac8, addr6), mac8, addr6, true, false},
	{"an advertisement of another address", advertisement(mac9, asker), mac9, asker, true, false},
	{name: "somebody asks for the address", in: resolution(mac9, asker, addr6)},
	{name: "from beyond a router", in: changed(advertisement(mac9, addr6), 21, 254)},
	{name: "another ICMPv6 type", in: changed(advertisement(mac9, addr6), 54, 134)},
	{name: "another protocol in IPv6", in: changed(advertisement(mac9, addr6), 20, unix.IPPROTO_UDP)},
	{name: "another protocol", in: changed(advertisement(mac9, addr6), 12, 0x08, 0x06)},
	{name: "a byte is missing", in: solicit(mac9, addr6)[:77]},
	{name: "nothing"},
}

func TestParseNeighbour(t *testing.T) {
	for _, tt := range neighbourFrames {
		from, target, ok := parseNeighbour(tt.in)
		if from != tt.from || target != tt.target || ok != tt.ok {
			t.Errorf("%s: got %s, %s, %t", tt.name, from, target, ok)
		}
	}
}

// seqpacket is a wire to hear frames from.
func seqpacket(t *testing.T) (near, far *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	near, far = os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// Somebody else who holds the address, or is about to take it, is a reason not
// to. Our own frames, and those who only ask for the address, are none.
func TestListen(t *testing.T) {
	type heard struct {
		name    string
		frame   []byte
		claimed bool
	}
	var arps, ndps []heard
	for _, f := range arpFrames {
		arps = append(arps, heard{f.name, f.in, f.claimed})
	}
	for _, f := range neighbourFrames {
		ndps = append(ndps, heard{f.name, f.in, f.claimed})
	}
	for _, tt := range []struct {
		protocol protocol
		addr     netip.Addr
		frames   []heard
	}{{arpProtocol, addr4, arps}, {ndpProtocol, addr6, ndps}} {
		wanted := []netip.Addr{netip.MustParseAddr("192.0.2.77"), tt.addr}
		quiet, sayQuiet := seqpacket(t)
		for _, f := range tt.frames {
			if len(f.frame) == 0 {
				continue
			}
			if !f.claimed {
				sayQuiet.Write(f.frame)
				continue
			}
			wire, say := seqpacket(t)
			say.Write(f.frame)
			err := question{tt.protocol, wire, mac8, wanted, []MAC{mac8}}.listen(t.Context())
			refusal, ok := err.(*Refusal)
			if !ok || refusal.Error() != tt.addr.String()+" is in use on the segment by 02:00:00:00:00:09" || refusal.Hint() == "" {
				t.Errorf("%s: got %v", f.name, err)
			}
		}
		if err := (question{tt.protocol, quiet, mac8, wanted, []MAC{{2, 1}, mac8}}).listen(t.Context()); err != nil {
			t.Errorf("nobody claimed %s, and yet: %v", tt.addr, err)
		}
		// All of it was listened to, not only the beginning.
		quiet.SetReadDeadline(time.Now().Add(-time.Second))
		if n, err := quiet.Read(make([]byte, 2048)); err == nil {
			t.Errorf("%d bytes were not heard", n)
		}
	}
}

// A wait for answers ends with its context.
func TestListenEndsWithContext(t *testing.T) {
	wire, _ := seqpacket(t)
	for tries := 0; ; tries++ { // a busy machine may let one go on, and not all
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		start := time.Now()
		if err := (question{arpProtocol, wire, mac8, nil, nil}).listen(ctx); err != nil {
			t.Error(err)
		}
		took := time.Since(start)
		if took < probeWait {
			return
		}
		if tries == 20 {
			t.Fatalf("it went on for %v", took)
		}
	}
}

func FuzzParseARP(f *testing.F) {
	for _, tt := range arpFrames {
		f.Add(tt.in)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		from, sender, target, ok := parseARP(b)
		if !ok {
			return
		}
		if !sender.Is4() || !target.Is4() {
			t.Fatalf("%s and %s are not IPv4", sender, target)
		}
		// What was understood, said again, is understood alike.
		if f2, s2, t2, ok := parseARP(arp(from, sender, target)); !ok || f2 != from || s2 != sender || t2 != target {
			t.Errorf("got %s, %s, %s, %t from %x", f2, s2, t2, ok, b)
		}
	})
}

func FuzzParseNeighbour(f *testing.F) {
	for _, tt := range neighbourFrames {
		f.Add(tt.in)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		from, target, ok := parseNeighbour(b)
		if !ok {
			return
		}
		if !target.Is6() {
			t.Fatalf("%s is not IPv6", target)
		}
		if f2, t2, ok := parseNeighbour(advertisement(from, target)); !ok || f2 != from || t2 != target {
			t.Errorf("got %s, %s, %t from %x", f2, t2, ok, b)
		}
	})
}
