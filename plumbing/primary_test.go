package plumbing

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vsrun/vsrun/test/lab"
)

// What begins inside is sent from the first address of the subnet in the document, whatever
// has become of it meanwhile.
func TestPrimary(t *testing.T) {
	host := lab.New(t)
	host.Segment("eth1")
	document := func(words ...string) Network { return eth0(func(i *Interface) { i.Addresses = prefixes(words...) }) }
	want := document("192.0.2.8/24", "198.51.100.8/24", "192.0.2.9/24", "192.0.2.10/24", "192.0.2.11/32")
	h := enable(t, vs8, want)
	source := func(to string) string {
		words := strings.Fields(host.Run(t, "ip", "-n", "vs8", "route", "get", to))
		return words[slices.Index(words, "src")+1]
	}
	for _, hand := range []string{
		"delete 192.0.2.8/24 dev eth0",
		"delete 192.0.2.8/24 dev eth0; ip -n vs8 address add 192.0.2.8/24 dev eth0",
		"delete 192.0.2.8/24 dev eth0; ip -n vs8 address delete 192.0.2.9/24 dev eth0; ip -n vs8 address add 192.0.2.9/24 dev eth0",
		"flush dev eth0",
	} {
		host.Run(t, "sh", "-ec", "ip -n vs8 address "+hand)
		apply(t, h, want)
		if a, b := source("192.0.2.1"), source("198.51.100.1"); a != "192.0.2.8" || b != "198.51.100.8" {
			t.Errorf("after %s sources are %s and %s", hand, a, b)
		}
	}
	host.Run(t, "sh", "-ec", "ip -n vs8 address add 192.0.2.77/24 dev eth0 proto static 2>/dev/null || ip -n vs8 address add 192.0.2.77/24 dev eth0")
	apply(t, h, document("192.0.2.10/24", "192.0.2.8/24", "198.51.100.8/24"))
	if a := source("192.0.2.1"); a != "192.0.2.10" {
		t.Errorf("in another order the source is %s", a)
	}
	// Somebody else's does not become primary in the place of ours.
	apply(t, h, document("192.0.2.8/24", "192.0.2.10/24", "198.51.100.8/24"))
	if a := source("192.0.2.1"); a != "192.0.2.10" {
		t.Errorf("where somebody else's would be next the source is %s", a)
	}
	// It is left alone, and what is primary with it.
	host.Run(t, "sh", "-ec", "ip -n vs8 address delete 192.0.2.10/24 dev eth0; ip -n vs8 address delete 192.0.2.8/24 dev eth0")
	apply(t, h, document("192.0.2.10/24", "192.0.2.8/24", "198.51.100.8/24"))
	if a := source("192.0.2.1"); a != "192.0.2.77" {
		t.Errorf("beside somebody else's the source is %s", a)
	}
}

func TestSetPrimary(t *testing.T) {
	list := prefixes("192.0.2.8/24", "192.0.2.9/24", "192.0.2.10/24")
	step := setPrimary{dev: "eth0", first: list[1], others: []netip.Prefix{list[0], list[2]}}
	if text := step.String(); text != "make 192.0.2.9/24 the primary address on eth0" {
		t.Error(text)
	}
	const delete, add = "ip -n vs8 address delete ", "ip -n vs8 address add "
	want := delete + "192.0.2.10/24 dev eth0\n" + delete + "192.0.2.8/24 dev eth0\n" +
		add + "192.0.2.8/24 broadcast + dev eth0\n" + add + "192.0.2.10/24 broadcast + dev eth0"
	if got := step.Command(vs8); got != want {
		t.Errorf("it is\n%s\nwant\n%s", got, want)
	}
	if undo := step.undo().(setPrimary); undo.first != list[0] || !slices.Equal(undo.others, []netip.Prefix{list[1], list[2]}) {
		t.Errorf("it is undone by %v", undo)
	}
	step.foreign = true
	if undo := step.undo(); undo != nil {
		t.Errorf("beside somebody else's it is undone by %v", undo)
	}
}

// Nothing makes somebody else's address the primary one.
func TestPrimaryBesideForeign(t *testing.T) {
	list := prefixes("192.0.2.8/24", "192.0.2.9/24", "192.0.2.77/24")
	want := eth0(func(i *Interface) { i.Addresses = list[:2] })
	first, old := Address{Dev: "eth0", Prefix: list[0], Secondary: true}, Address{Dev: "eth0", Prefix: list[1]}
	foreign := Address{Dev: "eth0", Prefix: list[2], Secondary: true, Foreign: true}
	stale := Address{Dev: "eth0", Prefix: list[2], Secondary: true}
	for _, tt := range []struct {
		name          string
		have, passing []Address
		made          bool
	}{
		{"alone", []Address{old, first}, nil, true},
		{"yet to be added", []Address{old}, nil, true},
		{"before one of somebody else's", []Address{old, first, foreign}, nil, true},
		{"behind one of somebody else's", []Address{old, foreign, first}, nil, false},
		{"to be added behind it", []Address{old, foreign}, nil, false},
		{"behind one that goes", []Address{old, stale, first}, nil, true},
		{"beside one with a lifetime", []Address{old, first}, []Address{foreign}, false},
	} {
		plan, err := Diff(vs8, want, present(func(s *State) { s.Addresses, s.Passing = tt.have, tt.passing }))
		if err != nil {
			t.Fatal(err)
		}
		made := slices.ContainsFunc(plan, func(s Step) bool { _, is := s.(setPrimary); return is })
		if made != tt.made {
			t.Errorf("%s: made primary: %t", tt.name, made)
		}
	}
}
