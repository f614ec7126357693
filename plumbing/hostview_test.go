package plumbing

import (
	"net/netip"
	"slices"
	"testing"
)

// Whoever remembers the host's devices hears what becomes of them: another MTU, an address,
// a device that was not there.
func TestHostView(t *testing.T) {
	host := ports(t)
	view, err := ViewHost()
	if err != nil {
		t.Fatal(err)
	}
	h, err := view.Open(vs8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close(); view.Close() })
	want := Network{Interfaces: []Interface{{Name: "eth0", Port: "eth1"}, {Name: "eth1", Port: "br8"}}}
	t.Cleanup(func() {
		host.Run(t, "sh", "-ec", "ip link set eth1 mtu 1500; ip address del 192.0.2.3/24 dev eth1; ip link delete br8")
	})
	for _, c := range []struct {
		change string
		heard  func(State) bool
	}{
		{"ip link set eth1 mtu 1400", func(s State) bool { return s.Ports["eth1"].MTU == 1400 }},
		{"ip address add 192.0.2.3/24 dev eth1", func(s State) bool {
			return slices.Contains(s.Ports["eth1"].Addresses, netip.MustParseAddr("192.0.2.3"))
		}},
		{"ip link add br8 type bridge", func(s State) bool { return s.Ports["br8"].Index != 0 }},
	} {
		if c.heard(observe(t, h, want)) {
			t.Fatalf("before %q it is so", c.change)
		}
		host.Run(t, "sh", "-ec", c.change)
		if !c.heard(observe(t, h, want)) {
			t.Errorf("%q was not heard", c.change)
		}
	}
}
