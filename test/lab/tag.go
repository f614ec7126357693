package lab

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Plug is how a client is plugged in: on a VLAN, 10, or 100.10 for one inside
// another (802.1ad), or untagged ("").
type Plug struct {
	Name, VLAN string
	Addresses  []string // CIDR
}

// Clients plugs several clients in, each on its VLAN: its eth0 is there, and a
// capture by it sees no tags. On a slow machine it is much faster than one after the
// other.
func (s *Segment) Clients(plugs ...Plug) []*Client {
	s.h.t.Helper()
	var clients []*Client
	var names []string
	for _, p := range plugs {
		clients = append(clients, &Client{p.Name, filepath.Join(nsDir, p.Name)})
		names = append(names, p.Name)
	}
	s.h.build(
		func() error {
			var lines []string
			for _, c := range clients {
				if err := newNamespace(c.path); err != nil {
					return err
				}
				lines = append(lines,
					cable(c.name, "wire", c.path),
					"link set dev "+c.name+" master switch up")
			}
			errs := []error{batch(s.path, lines...)}
			for k, c := range clients {
				errs = append(errs, batch(c.path, plugs[k].lines()...))
			}
			return cmp.Or(errors.Join(errs...), s.awaitForwarding(names...))
		},
		func() error {
			var errs []error
			var lines []string
			for _, c := range clients {
				lines = append(lines, "link del dev "+c.name)
			}
			errs = append(errs, batch(s.path, lines...))
			for _, c := range clients {
				errs = append(errs, dropNamespace(c.path))
			}
			return errors.Join(errs...)
		})
	return clients
}

// awaitForwarding waits until the switch has noticed the carriers of these ports of its. The
// kernel tells it from a work queue, under a lock that all namespaces of the machine share,
// and until then it drops what comes.
func (s *Segment) awaitForwarding(names ...string) error {
	argv := enter(s.path, []string{"ip", "-o", "-d", "link", "show", "master", "switch"})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		ports := run("", argv...)
		late := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
			for line := range strings.Lines(ports.Stdout) {
				if strings.Contains(line, ": "+name+"@") && strings.Contains(line, "state forwarding") {
					return true
				}
			}
			return false
		})
		switch {
		case len(late) == 0:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("the switch has forwarded nothing from %s for 10 seconds: %v", late[0], ports)
		}
	}
}

// lines make eth0 on the wire.
func (p Plug) lines() []string {
	lines := []string{"sysctl net.ipv6.conf.default.accept_dad=0", "sysctl net.ipv6.conf.wire.accept_dad=0"}
	on := "wire"
	if p.VLAN == "" {
		lines = append(lines, "link set dev wire name "+clientIf)
	} else {
		inner := p.VLAN
		if outer, in, double := strings.Cut(p.VLAN, "."); double {
			lines = append(lines, "link set dev wire up",
				"link add link wire name outer type vlan protocol 802.1ad id "+outer)
			on, inner = "outer", in
		}
		lines = append(lines, "link set dev "+on+" up", "link add link "+on+" name "+clientIf+" type vlan id "+inner)
	}
	for _, a := range p.Addresses {
		lines = append(lines, "addr add "+a+" dev "+clientIf)
	}
	return append(lines, "link set dev "+clientIf+" up")
}

// Send puts frames on the wire by the client's eth0 as they are, tags included.
func (c *Client) Send(t testing.TB, frames ...[]byte) {
	t.Helper()
	f, err := packetSocket(c.path, clientIf)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, frame := range frames {
		if _, err := f.Write(frame); err != nil {
			t.Fatalf("cannot send %x: %v", frame, err)
		}
	}
}

// A Tag is one of a frame's.
type Tag struct {
	ID       uint16
	Protocol uint16 // 0 is ETH_P_8021Q
}

// Tagged is a frame with tags, the outermost first.
func Tagged(dst, src []byte, etherType uint16, payload []byte, tags ...Tag) []byte {
	word := func(b []byte, v uint16) []byte { return append(b, byte(v>>8), byte(v)) }
	b := append(append([]byte{}, dst...), src...)
	for _, t := range tags {
		if t.Protocol == 0 {
			t.Protocol = unix.ETH_P_8021Q
		}
		b = word(word(b, t.Protocol), t.ID)
	}
	return append(word(b, etherType), payload...)
}
