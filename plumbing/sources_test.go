package plumbing

import (
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func macs(n int) (list []MAC) {
	for k := range n {
		list = append(list, MAC{2, 9, 0, 0, byte(k >> 8), byte(k)})
	}
	return list
}

// A list that does not fit in an attribute is not sent: the kernel would read its end as
// something else.
func TestTooManySources(t *testing.T) {
	if m := linkSources(2, macs(maxSources)); m.err != nil {
		t.Error(m.err)
	}
	step := setSources{dev: "eth0", sources: macs(5462)}
	h := &Handle{place: vs8, indexes: map[string]int{"eth0": 2}}
	err := Plan{step}.Apply(t.Context(), h)
	if err == nil || err.Error() != "cannot set the sources of eth0 in vs8: the list is too long for the kernel" {
		t.Errorf("got %v", err)
	}
	var s *netlinkSocket // on which nothing is sent
	if err := s.one(linkSources(2, step.sources)); !errors.Is(err, errTooLong) {
		t.Errorf("got %v", err)
	}
}

// Who gives a link inside so many sources that the kernel's word on it is longer than any
// other ends nobody's healing, and his own link is mended and removed as any.
func TestSourcesAddedInside(t *testing.T) {
	ports(t)
	want := eth0(func(i *Interface) { i.Mode, i.Sources = Source, macs(2) })
	h := enable(t, vs8, want)
	index, err := h.index("eth0")
	if err != nil {
		t.Fatal(err)
	}
	const atOnce, all = 5000, 7000
	requests := []message{linkSources(index, macs(atOnce))}
	for _, mac := range macs(all)[atOnce:] {
		m := ifinfomsg(unix.RTM_NEWLINK, 0, index, 0, 0)
		m.putInfo(string(Macvlan), func(m *message) {
			m.putUint32(macvlanMACMode, 0) // MACVLAN_MACADDR_ADD
			m.put(macvlanMAC, mac[:])
		})
		requests = append(requests, m)
	}
	if err := errors.Join(h.inside.do(requests...)...); err != nil {
		t.Fatal(err)
	}

	l := hear(t)
	id, err := l.Follow(h.Namespace())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.inside.one(linkMTU(index, 1400)); err != nil {
		t.Fatal(err)
	}
	l.SetDeadline(time.Now().Add(10 * time.Second))
	for err = nil; err == nil; {
		_, err = l.Next()
	}
	if !errors.Is(err, ErrMissed) {
		t.Fatalf("of a notice that is too long: %v", err)
	}
	apply(t, h, want)
	l.await(t, "what came after", func(n Notice) bool { return n.Namespace == id && n.Topic == OfLink && n.Link.MTU == 1500 })
	if have := observe(t, h, want); len(planFor(t, h, want)) > 0 || !slices.Equal(have.Links[1].Sources, macs(2)) {
		t.Errorf("mended, it has %d sources", len(have.Links[1].Sources))
	}
	if err := errors.Join(h.inside.do(requests...)...); err != nil {
		t.Fatal(err)
	}
	remove(t, vs8)
}
