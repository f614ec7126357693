package plumbing

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

// segment is a host with one port, and a client on the far end of the wire.
func segment(t *testing.T) (*lab.Host, *lab.Client) {
	t.Helper()
	host := lab.New(t)
	return host, host.Segment("eth1").Client("client1", "192.0.2.100/24", "2001:db8::100/64")
}

// As in TestApply, these share a host.
func TestWire(t *testing.T) {
	host, client := segment(t)
	for _, tt := range []struct {
		name string
		test func(*testing.T, *lab.Host, *lab.Client)
	}{
		{"finds who holds an address", findsHolder},
		{"is not misled by those who ask", ignoresAskers},
		{"lets not two have an address", letsNotTwo},
		{"is given up", probeIsGivenUp},
		{"refuses an address in use", refusesAddressInUse},
		{"announces", announces},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, host, client) })
		if leaks := host.Leaks(); leaks != "" {
			t.Fatalf("%s left:\n%s", tt.name, leaks)
		}
	}
}

func asking(mac MAC, words ...string) probe {
	return probe{[]announcement{{"eth0", mac, addrs(words...)}}, []MAC{mac}}
}

func findsHolder(t *testing.T, _ *lab.Host, client *lab.Client) {
	h := enable(t, vs8, eth0(func(i *Interface) { i.Addresses = nil }))
	for _, tt := range []struct{ name, holder, other string }{
		{"IPv4", "192.0.2.100", "192.0.2.8"},
		{"IPv6", "2001:db8::100", "2001:db8::8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := asking(mac8, tt.other, tt.holder).apply(t.Context(), h)
			var refusal *Refusal
			if !errors.As(err, &refusal) || refusal.Error() != tt.holder+" is in use on the segment by "+client.MAC(t) || refusal.Hint() == "" {
				t.Errorf("got %v, want %s refused", err, tt.holder)
			}
		})
	}
	t.Run("nobody", func(t *testing.T) {
		heard := client.Capture(t)
		if err := asking(mac8, "192.0.2.8", "192.0.2.9", "2001:db8::8", "2001:db8::9").apply(t.Context(), h); err != nil {
			t.Error(err)
		}
		for _, a := range []string{"192.0.2.8", "192.0.2.9", "2001:db8::8", "2001:db8::9"} {
			if got := heard.Await(probeCount, 10*time.Second, lab.Probes(a), lab.From(mac8.String())); len(got) != probeCount {
				t.Errorf("%s was asked for %d times, want %d: %v", a, len(got), probeCount, got)
			}
		}
	})
}

// Those who want to send something to the address ask for it too: that is no
// claim.
func ignoresAskers(t *testing.T, _ *lab.Host, client *lab.Client) {
	h := enable(t, vs8, eth0(func(i *Interface) { i.Addresses = nil }))
	for _, tt := range []struct {
		addr  string
		frame []byte
	}{
		{"192.0.2.8", arp(mac9, netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("192.0.2.8"))},
		{"2001:db8::8", resolution(mac9, netip.MustParseAddr("2001:db8::100"), netip.MustParseAddr("2001:db8::8"))},
	} {
		heard := client.Capture(t)
		done := make(chan error)
		go func() { done <- asking(mac8, tt.addr).apply(t.Context(), h) }()
		// It listens by now.
		if len(heard.Await(1, 10*time.Second, lab.Probes(tt.addr))) == 0 {
			t.Errorf("%s is not asked for", tt.addr)
		}
		sendFrame(t, client, tt.frame)
		if err := <-done; err != nil {
			t.Error(err)
		}
		heard.Stop()
	}
}

// sendFrame puts a frame on the client's wire.
func sendFrame(t *testing.T, client *lab.Client, frame []byte) {
	t.Helper()
	err := client.Do(func() error {
		dev, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: dev.Index})
	})
	if err != nil {
		t.Error(err)
	}
}

// Of two who want an address at once not both may have it.
func letsNotTwo(t *testing.T, host *lab.Host, _ *lab.Client) {
	alone := func(mac MAC) Network {
		return eth0(func(i *Interface) { i.Addresses, i.MAC = nil, mac })
	}
	a := enable(t, vs8, alone(mac8))
	b := enable(t, Place{Dir: host.NetnsDir, Name: "vs9"}, alone(mac9))
	for _, addr := range []string{"192.0.2.8", "2001:db8::8"} {
		both := make(chan error)
		go func() { both <- asking(mac8, addr).apply(t.Context(), a) }()
		go func() { both <- asking(mac9, addr).apply(t.Context(), b) }()
		if one, two := <-both, <-both; one == nil && two == nil {
			t.Errorf("two may have %s", addr)
		}
	}
}

func probeIsGivenUp(t *testing.T, _ *lab.Host, _ *lab.Client) {
	h := enable(t, vs8, eth0(func(i *Interface) { i.Addresses = nil }))
	shortest := probeWait
	for range 20 {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errTest)
		start := time.Now()
		if err := asking(mac8, "192.0.2.8", "2001:db8::8").apply(ctx, h); !errors.Is(err, errTest) {
			t.Errorf("got %v, want %v", err, errTest)
		}
		shortest = min(shortest, time.Since(start)) // another one may have had to wait for the processor
	}
	if shortest >= probeWait {
		t.Errorf("given up before it began, it took %v", shortest)
	}
	if err := (probe{list: []announcement{{"nothing", mac8, addrs("192.0.2.8")}}}).apply(t.Context(), h); err == nil {
		t.Error("asked on a device that is not there")
	}
}

// An address that somebody has is refused, and nothing is left of the attempt.
func refusesAddressInUse(t *testing.T, host *lab.Host, client *lab.Client) {
	h := open(t, vs8)
	want := eth0(func(i *Interface) { i.Addresses = prefixes("192.0.2.8/24", "192.0.2.100/24") })
	plan, err := Diff(vs8, want, observe(t, h, want))
	if err != nil {
		t.Fatal(err)
	}
	err = plan.Apply(t.Context(), h)
	h.Close()
	var refusal *Refusal
	if text := "cannot use 192.0.2.8, 192.0.2.100 on eth0 in vs8: 192.0.2.100 is in use on the segment by " + client.MAC(t); err == nil || err.Error() != text || !errors.As(err, &refusal) {
		t.Errorf("got  %v\nwant %s", err, text)
	}
	if leaks := host.Leaks(); leaks != "" {
		t.Errorf("this is left:\n%s", leaks)
	}
}

// The segment hears of new addresses.
func announces(t *testing.T, _ *lab.Host, client *lab.Client) {
	heard := client.Capture(t)
	want := eth0(func(i *Interface) { i.Addresses = prefixes("192.0.2.8/24", "2001:db8::8/64") })
	h := enable(t, vs8, want)
	later := eth0(func(i *Interface) {
		i.Addresses = prefixes("192.0.2.8/24", "192.0.2.9/24", "2001:db8::8/64", "2001:db8::9/64")
	})
	announced := func(words ...string) {
		for _, a := range words {
			if got := heard.Await(1, 10*time.Second, lab.Announces(a), lab.From(mac8.String())); len(got) < 1 {
				t.Errorf("%s was not announced: %v", a, heard.Frames())
			}
		}
	}
	announced("192.0.2.8", "2001:db8::8")
	apply(t, h, later)
	announced("192.0.2.9", "2001:db8::9")
}
