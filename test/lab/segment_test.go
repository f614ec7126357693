package lab_test

import (
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/test/lab"
)

const vs8MAC = "02:00:00:00:00:08"

// makeVS makes, with iproute2 alone, what vsrun would: a macvlan on eth1 in the
// namespace vs8.
func makeVS(t *testing.T, h *lab.Host) {
	t.Helper()
	h.Run(t, "sh", "-ec", `
		ip netns add vs8
		ip netns exec vs8 sh -c 'echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad'
		ip link add eth0 link eth1 netns vs8 address `+vs8MAC+` type macvlan mode bridge
		ip -n vs8 link set lo up
		ip -n vs8 addr add 192.0.2.8/24 dev eth0
		ip -n vs8 addr add 2001:db8::8/64 dev eth0 nodad
		ip -n vs8 link set eth0 up`)
	t.Cleanup(func() { destroyVS(t, h) })
}

// destroyVS deletes the device first: its MAC address and all are free at once.
func destroyVS(t *testing.T, h *lab.Host) {
	t.Helper()
	if h.TryRun("ip", "-n", "vs8", "link", "del", "eth0").Code == 0 {
		h.Run(t, "ip", "netns", "del", "vs8")
	}
}

func TestClientReachesMacvlan(t *testing.T) {
	h := lab.New(t)
	c := h.Segment("eth1").Client("client1", "192.0.2.100/24", "2001:db8::100/64")
	makeVS(t, h)
	for _, addr := range []string{"192.0.2.8", "2001:db8::8"} {
		if err := c.Ping(addr); err != nil {
			t.Error(err)
		}
		if got := c.Neighbour(addr); got != vs8MAC {
			t.Errorf("%s is at %q, want %s", addr, got, vs8MAC)
		}
		if err := c.Silent(addr); err == nil {
			t.Errorf("%s is said to be silent", addr)
		}
	}
	if err := h.In("vs8").Ping("192.0.2.100"); err != nil {
		t.Error(err)
	}
	destroyVS(t, h)
	if err := c.Ping("192.0.2.8"); err == nil {
		t.Error("it answers after its namespace is gone")
	}
	for _, addr := range []string{"192.0.2.8", "2001:db8::8"} {
		if err := c.Silent(addr); err != nil {
			t.Error(err)
		}
	}
}

func TestSilentSeesAHolderThatDropsPings(t *testing.T) {
	h := lab.New(t)
	c := h.Segment("eth1").Client("client1", "192.0.2.100/24")
	makeVS(t, h)
	h.In("vs8").Run(t, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all")
	if err := c.Silent("192.0.2.8"); err == nil || !strings.Contains(err.Error(), vs8MAC) {
		t.Errorf("it answers ARP, and yet: %v", err)
	}
}

func TestClientTalksTCP(t *testing.T) {
	h := lab.New(t)
	c := h.Segment("eth1").Client("client1", "192.0.2.100/24", "2001:db8::100/64")
	makeVS(t, h)
	serve(t, "vs8", "192.0.2.8:80", "HTTP/1.0 200 OK\r\n\r\nhello over IPv4\n")
	serve(t, "vs8", "[2001:db8::8]:80", "HTTP/1.0 200 OK\r\n\r\nhello over IPv6\n")
	serve(t, "vs8", "192.0.2.8:81", "HTTP/1.0 404 Not Found\r\n\r\n")
	for url, want := range map[string]string{
		"http://192.0.2.8/":     "hello over IPv4\n",
		"http://[2001:db8::8]/": "hello over IPv6\n",
	} {
		if got, err := c.HTTPGet(url); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", url, got, err, want)
		}
	}
	if got, err := c.HTTPGet("http://192.0.2.8:81/"); err == nil {
		t.Errorf("a page that is not there: %q", got)
	}
	if conn, err := c.Dial("tcp", "192.0.2.8:82"); err == nil {
		conn.Close()
		t.Error("connected to a closed port")
	}
}

// serve sends answer to whoever connects to address in the namespace.
func serve(t *testing.T, name, address, answer string) {
	t.Helper()
	ns, err := nsutil.Open("/run/netns/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var l net.Listener
	if err := ns.Do(func() error { l, err = net.Listen("tcp", address); return err }); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			conn.Read(make([]byte, 4096))
			conn.Write([]byte(answer))
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

func TestCapture(t *testing.T) {
	h := lab.New(t)
	s := h.Segment("eth1")
	c := s.Client("client1", "192.0.2.100/24", "2001:db8::100/64")
	atClient, atPort := c.Capture(t), s.Capture(t, "eth1")
	makeVS(t, h)
	h.In("vs8").Run(t, "sh", "-ec", `
		echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_notify
		echo 1 > /proc/sys/net/ipv6/conf/eth0/ndisc_notify
		echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_dad
		ip link set eth0 down; ip link set eth0 up
		ip addr add 2001:db8::9/64 dev eth0 # with duplicate address detection`)
	for _, kind := range []struct {
		name  string
		holds func(lab.Frame) bool
	}{
		{"gratuitous ARP", lab.Announces("192.0.2.8")},
		{"unsolicited advertisement", lab.Announces("2001:db8::9")},
		{"duplicate address detection", lab.Probes("2001:db8::9")},
	} {
		for _, at := range []*lab.Capture{atClient, atPort} {
			if got := at.Await(1, 10*time.Second, kind.holds, lab.From(vs8MAC)); len(got) != 1 {
				t.Errorf("%s: %d frames, want 1: %v\nof %v", kind.name, len(got), got, at.Frames())
			}
		}
	}
	if got := atClient.Frames(lab.Announces("192.0.2.9")); len(got) != 0 {
		t.Errorf("nobody has 192.0.2.9, and yet: %v", got)
	}
	if got := atPort.Frames(lab.From(c.MAC(t))); len(got) != 0 {
		t.Errorf("the port's capture has what the port receives: %v", got)
	}
}

func TestCaptureOfTags(t *testing.T) {
	h := lab.New(t)
	s := h.Segment("eth1")
	a, b := s.Client("a"), s.Client("b")
	got := b.Capture(t)
	frame := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x81, 0x00, 0x00, 0x0a, 0x88, 0xb5, 'h', 'i'}
	send(t, a, append(frame, make([]byte, 44)...))
	frames := got.Await(1, 10*time.Second, lab.From("02:00:00:00:00:01"))
	if len(frames) != 1 || frames[0].VLAN != 10 || frames[0].EtherType != 0x88b5 || string(frames[0].Payload[:2]) != "hi" {
		t.Errorf("got %v, want one frame in VLAN 10", frames)
	}
}

// send puts a frame on the client's wire.
func send(t *testing.T, c *lab.Client, frame []byte) {
	t.Helper()
	err := c.Do(func() error {
		dev, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		proto := binary.NativeEndian.Uint16([]byte{0x81, 0x00})
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: dev.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Two ports on one switch are one segment, two switches are two.
func TestSegmentsOfSeveralPorts(t *testing.T) {
	h := lab.New(t)
	both, other := h.Segment("eth1", "eth2"), h.Segment("eth3")
	near, far := both.Client("near", "192.0.2.100/24"), other.Client("far", "192.0.2.101/24")
	h.Run(t, "ip", "addr", "add", "192.0.2.2/24", "dev", "eth2")
	t.Cleanup(func() { h.Run(t, "ip", "addr", "del", "192.0.2.2/24", "dev", "eth2") })
	if err := near.Ping("192.0.2.2"); err != nil {
		t.Error(err)
	}
	if err := far.Ping("192.0.2.2"); err == nil {
		t.Error("a client reaches a port that it is not on the same segment with")
	}
	both.SetCarrier(t, "eth2", false)
	if got := h.Run(t, "ip", "link", "show", "eth2"); !strings.Contains(got, "NO-CARRIER") {
		t.Errorf("the cable is out, and yet %s", got)
	}
	both.SetCarrier(t, "eth2", true)
	if err := near.Ping("192.0.2.2"); err != nil {
		t.Error(err)
	}
}
