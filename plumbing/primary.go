package plumbing

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// primaries makes the first address of each IPv4 subnet its primary one, where another
// of ours is that: what begins inside is sent from it. Where one of somebody else's is, or
// would become so, that waits until it is deleted.
func (d *differ) primaries(i Interface) (plan Plan) {
	var done []netip.Prefix
	for _, first := range i.Addresses {
		subnet := first.Masked()
		if first.Addr().Is6() || d.remade[i.Name] || slices.Contains(done, subnet) {
			continue
		}
		done = append(done, subnet)
		step := setPrimary{dev: i.Name, first: first}
		wrong, there, promoted := false, false, d.passing(i.Name, subnet)
		for _, a := range d.have.Addresses {
			switch {
			case a.Dev != i.Name || a.Prefix.Masked() != subnet:
			case a.Prefix == first:
				there = true
			case slices.Contains(i.Addresses, a.Prefix):
				step.others = append(step.others, a.Prefix)
				wrong = wrong || !a.Secondary
			case a.Foreign:
				step.foreign, promoted = true, promoted || !there
			}
		}
		if wrong && !promoted {
			plan = append(plan, step)
		}
	}
	return plan
}

// passing reports whether somebody has given a link an address with a lifetime there: where
// that stands among the others is not known.
func (d *differ) passing(dev string, subnet netip.Prefix) bool {
	return slices.ContainsFunc(d.have.Passing, func(a Address) bool { return a.Dev == dev && a.Prefix.Masked() == subnet })
}

// setPrimary makes an address that is there the primary one of its subnet: the kernel
// promotes it, the next in its list, when all others of ours, of which the first is primary,
// are gone (__inet_del_ifa), and these come back behind it, at the end (__inet_insert_ifa).
type setPrimary struct {
	dev     string
	first   netip.Prefix
	others  []netip.Prefix
	foreign bool // one of somebody else's is behind it
}

func (s setPrimary) String() string {
	return fmt.Sprintf("make %s the primary address on %s", s.first, s.dev)
}

// undo leaves it where the next would be somebody else's then.
func (s setPrimary) undo() Step {
	if s.foreign {
		return nil
	}
	return setPrimary{dev: s.dev, first: s.others[0], others: append([]netip.Prefix{s.first}, s.others[1:]...)}
}

func (s setPrimary) plan() (p Plan) {
	for _, a := range slices.Backward(s.others) {
		p = append(p, delAddress{Address{Dev: s.dev, Prefix: a}})
	}
	for _, a := range s.others {
		p = append(p, addAddress{Address{Dev: s.dev, Prefix: a}})
	}
	return p
}

func (s setPrimary) Command(p Place) string {
	return strings.TrimSuffix(s.plan().Script(p), "\n")
}

func (s setPrimary) apply(ctx context.Context, h *Handle) error { return s.plan().Apply(ctx, h) }
