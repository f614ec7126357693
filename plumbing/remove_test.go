package plumbing

import (
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

// A network can be made, removed and made again at once: its MACs are free when
// the removal returns.
func freesTheMAC(t *testing.T, host *lab.Host) {
	want := eth0(func(i *Interface) { i.Addresses = prefixes("192.0.2.8/24", "2001:db8::8/64") })
	for round := range 50 {
		// In turns under another name: it is the port that has to forget.
		place := Place{Dir: host.NetnsDir, Name: []string{"vs8", "vs9"}[round%2]}
		h := open(t, place)
		err := planFor(t, h, want).Apply(t.Context(), h)
		h.Close()
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		remove(t, place)
	}
}

// A namespace that was dropped with its links, as after a crash, holds their MACs
// a little longer: whoever wants them waits.
func outwaitsTheDying(t *testing.T, _ *lab.Host) {
	want := eth0(nil)
	for range 20 {
		h := open(t, vs8)
		plan := planFor(t, h, want)
		half := slices.IndexFunc(plan, func(s Step) bool { _, ok := s.(publish); return ok })
		if err := plan[:half].Apply(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		h.Close()
		h = open(t, vs8)
		err := plan.Apply(t.Context(), h)
		h.Close()
		if err != nil {
			t.Fatal(err)
		}
		remove(t, vs8)
	}
}

// What a port receives for, as the kernel lists it, is looked through for a MAC.
func TestHoldsMAC(t *testing.T) {
	entry := func(attrs ...[]byte) []byte {
		return append(make([]byte, unix.SizeofNdMsg), slices.Concat(attrs...)...)
	}
	for _, tt := range []struct {
		name  string
		entry []byte
		want  bool
	}{
		{"it", entry(nlattr(unix.NDA_LLADDR, mac8[:])), true},
		{"it, behind others", entry(nlattr(unix.NDA_VLAN, []byte{1, 0}), nlattr(unix.NDA_LLADDR, mac9[:]), nlattr(unix.NDA_LLADDR, mac8[:])), true},
		{"another", entry(nlattr(unix.NDA_LLADDR, mac9[:])), false},
		{"its bytes under another name", entry(nlattr(unix.NDA_DST, mac8[:])), false},
		{"part of it", entry(nlattr(unix.NDA_LLADDR, mac8[:5])), false},
		{"cut off", entry(nlattr(unix.NDA_LLADDR, mac8[:])[:8]), false},
		{"no attributes", entry(), false},
		{"less than a header", make([]byte, unix.SizeofNdMsg-1), false},
		{"nothing", nil, false},
	} {
		if _, mac := decodePortMAC(tt.entry); (mac == mac8) != tt.want {
			t.Errorf("%s: got %s", tt.name, mac)
		}
	}
}

// A removal takes the whole namespace away, whatever else is in it, and leaves
// somebody else's alone.
func removesWhatIsThere(t *testing.T, host *lab.Host) {
	remove(t, vs8) // nothing is there

	h := open(t, vs8)
	apply(t, h, everything())
	h.Close()
	host.Run(t, "sh", "-ec", "ip -n vs8 link add link lan name veth7 type macvlan; ip -n vs8 link add veth8 type veth; ip -n vs8 link set lan down")
	remove(t, vs8)
	if leaks := host.Leaks(); leaks != "" {
		t.Errorf("this is left:\n%s", leaks)
	}
	remove(t, vs8)

	host.Run(t, "ip", "netns", "add", "vs8")
	t.Cleanup(func() { host.Run(t, "ip", "netns", "delete", "vs8") })
	host.Run(t, "ip", "-n", "vs8", "link", "add", "veth8", "type", "veth")
	before := look(t, host, vs8)
	remove(t, vs8)
	h = at(t, vs8)
	if _, err := Diff(vs8, everything(), observe(t, h, everything())); err == nil {
		t.Error("a namespace of somebody else's is to be changed")
	}
	if d := cmp.Diff(before, look(t, host, vs8)); d != "" {
		t.Errorf("somebody else's namespace (-before +after):\n%s", d)
	}
}

// Peers of a virtual server that is removed hear it, rather than wait.
func TestRemovalClosesConnections(t *testing.T) {
	host := lab.New(t)
	client := host.Segment("eth1").Client("client1", "192.0.2.100/24", "2001:db8::100/64")
	h := open(t, vs8)
	apply(t, h, eth0(func(i *Interface) { i.Addresses = prefixes("192.0.2.8/24", "2001:db8::8/64") }))
	// Not multipath TCP, in which Go would listen by itself.
	var plain net.ListenConfig
	plain.SetMultipathTCP(false)
	var peers []net.Conn
	for _, addr := range []string{"192.0.2.8:80", "[2001:db8::8]:80"} {
		var l net.Listener
		if err := h.Namespace().Do(func() (err error) { l, err = plain.Listen(t.Context(), "tcp", addr); return err }); err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		peer, err := client.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		peers = append(peers, peer)
	}
	// Multipath TCP's listeners the kernel does not close; they have no peer.
	var multipath net.ListenConfig
	multipath.SetMultipathTCP(true)
	var l net.Listener
	if err := h.Namespace().Do(func() (err error) { l, err = multipath.Listen(t.Context(), "tcp", "192.0.2.8:81"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := Removal(observe(t, h, Network{})).Force(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	h.Close()
	for _, peer := range peers {
		peer.SetReadDeadline(time.Now().Add(3 * time.Second))
		if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("the peer of %s got %v, want a reset", peer.RemoteAddr(), err)
		}
	}
}
