package plumbing

import (
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/test/lab"
)

// Namespaces that were dropped together are off the port, also those that somebody holds.
func TestDepart(t *testing.T) {
	host := lab.New(t)
	host.Segment("eth1")
	var gone []Departure
	var held *nsutil.Namespace
	for id := 8; id < 12; id++ {
		place := Place{Dir: host.NetnsDir, Name: fmt.Sprintf("vs%d", id)}
		want := eth0(func(i *Interface) {
			i.MAC[5] = byte(id)
			i.Addresses = prefixes(fmt.Sprintf("192.0.2.%d/24", id))
		})
		h := open(t, place)
		if err := planFor(t, h, want).WithoutProbe().Apply(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		if id == 10 {
			var err error
			if held, err = nsutil.Open(place.Path()); err != nil {
				t.Fatal(err)
			}
			defer held.Close()
		}
		d, err := h.Depart(t.Context(), observe(t, h, Network{}))
		h.Close()
		if err != nil {
			t.Fatal(err)
		}
		gone = append(gone, d)
	}
	onlyItsOwn(t, gone[2])
	if _, err := AwaitDepartures(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	for id := 8; id < 12; id++ {
		mac := eth0(func(i *Interface) { i.MAC[5] = byte(id) }).Interfaces[0].MAC.String()
		if list := host.Run(t, "bridge", "fdb", "show", "dev", "eth1"); strings.Contains(list, mac) {
			t.Errorf("the MAC of vs%d is on the port:\n%s", id, list)
		}
	}
	err := held.Do(func() error {
		s, err := dialNetlink(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer s.close()
		return s.get(linkGet("eth0"), func([]byte) {})
	})
	if !errors.Is(err, unix.ENODEV) {
		t.Errorf("in the one that is held eth0 is still there: %v", err)
	}
	if _, err := AwaitDepartures(t.Context(), gone); err != nil {
		t.Errorf("once more: %v", err)
	}
}

// onlyItsOwn is about the id of a namespace, which another one gets when it is gone.
func onlyItsOwn(t *testing.T, held Departure) {
	t.Helper()
	h, err := OpenHost()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	its := held.links[0]
	others := its
	others.MAC[5]++
	for _, tt := range []struct {
		id   int
		link Link
		want bool
	}{{held.id, its, true}, {held.id, others, false}, {held.id + 1000, its, false}} {
		if got, err := h.stillThere(tt.id, tt.link); got != tt.want || err != nil {
			t.Errorf("namespace %d has %s: %v, %v, want %v", tt.id, tt.link.MAC, got, err, tt.want)
		}
	}
}

// Whoever drops a namespace and is killed before it is off the port leaves no name: who is
// asked to take it down again finds it, if somebody holds it.
func TestDepartedWithoutAName(t *testing.T) {
	host := lab.New(t)
	host.Segment("eth1")
	place := Place{Dir: host.NetnsDir, Name: "vs8"}
	want := eth0(func(i *Interface) { i.Addresses = prefixes("192.0.2.8/24") })
	h := open(t, place)
	if err := planFor(t, h, want).WithoutProbe().Apply(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	held, err := nsutil.Open(place.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, err := h.Depart(t.Context(), observe(t, h, Network{})); err != nil {
		t.Fatal(err)
	}
	h.Close()
	again := open(t, place)
	defer again.Close()
	if err := again.AwaitRelease(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if list := host.Run(t, "bridge", "fdb", "show", "dev", "eth1"); strings.Contains(list, want.Interfaces[0].MAC.String()) {
		t.Errorf("the MAC is on the port:\n%s", list)
	}
}

// While MACs leave a port whose list the kernel gives in pieces, none that stays is taken for
// gone.
func TestTaken(t *testing.T) {
	host := lab.New(t)
	host.Run(t, "ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth2")
	defer host.Run(t, "ip", "link", "delete", "eth1")
	h := open(t, vs8)
	defer h.Close()
	index, err := h.onHost().index("eth1")
	if err != nil {
		t.Fatal(err)
	}
	const many = 2000
	var stay []spot
	var add, del strings.Builder
	for n := range many {
		mac := MAC{2, 0, 0, 9, byte(n >> 8), byte(n)}
		fmt.Fprintf(&add, "fdb add %s dev eth1 self\n", mac)
		if n < many/2 {
			fmt.Fprintf(&del, "fdb delete %s dev eth1 self\n", mac)
		} else {
			stay = append(stay, spot{index, mac})
		}
	}
	batch := func(lines string) {
		bridge := exec.Command("bridge", "-batch", "-")
		bridge.Stdin = strings.NewReader(lines)
		if out, err := bridge.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	batch(add.String())
	done := make(chan bool)
	go func() { batch(del.String()); close(done) }()
	for looks := 0; ; looks++ {
		seen, err := h.taken(stay)
		if err != nil {
			t.Fatal(err)
		}
		if lost := slices.Index(slices.Collect(maps.Values(seen)), false); lost >= 0 {
			t.Fatalf("look %d has lost some", looks)
		}
		select {
		case <-done:
			t.Logf("%d looks", looks)
			return
		default:
		}
	}
}

// A VLAN that somebody has taken down inside shows no MAC on its port, and one that sits on
// another link inside has none there: neither keeps anybody waiting, and the former is free.
func TestDepartOfVLANs(t *testing.T) {
	lab.Require(t, "kind:vlan")
	host := lab.New(t)
	host.Segment("eth1")
	place := Place{Dir: host.NetnsDir, Name: "vs8"}
	want := eth0(func(i *Interface) { i.Kind, i.VLAN, i.Addresses = Vlan, VLAN{10}, prefixes("192.0.2.8/24") })
	h := open(t, place)
	if err := planFor(t, h, want).WithoutProbe().Apply(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	held, err := nsutil.Open(place.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	host.Run(t, "sh", "-ec", `
		ip -n vs8 link add link eth0 name inner type vlan id 7
		ip -n vs8 link set dev inner up
		ip -n vs8 link set dev eth0 down`)
	have := observe(t, h, Network{})
	if l, _ := have.Link("inner"); l.Parent != 0 {
		t.Errorf("inner sits on %d", l.Parent)
	}
	d, err := h.Depart(t.Context(), have)
	h.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := AwaitDepartures(t.Context(), []Departure{d}); err != nil {
		t.Fatal(err)
	}
	host.Run(t, "ip", "link", "add", "link", "eth1", "name", "again", "type", "vlan", "id", "10")
	host.Run(t, "ip", "link", "delete", "again")
}
