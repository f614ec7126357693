package plumbing

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// primaries makes the first address of each IPv4 subnet its primary one, where another
// of ours is that: what begins inside is sent from it. Where one of somebody else's is, it
// stays so until that is deleted.
func (d *differ) primaries(i Interface) (plan Plan) {
	var done []netip.Prefix
	for _, first := range i.Addresses {
		subnet := first.Masked()
		if first.Addr().Is6() || d.remade[i.Name] || slices.Contains(done, subnet) {
			continue
		}
		done = append(done, subnet)
		step := setPrimary{dev: i.Name, first: first}
		wrong := false
		for _, a := range d.have.Addresses {
			if a.Dev == i.Name && a.Prefix.Masked() == subnet && a.Prefix != first && slices.Contains(i.Addresses, a.Prefix) {
				step.others = append(step.others, a.Prefix)
				wrong = wrong || !a.Secondary
			}
		}
		if wrong {
			plan = append(plan, step)
		}
	}
	return plan
}

// setPrimary makes an address that is there the primary one of its subnet: the kernel
// promotes it when all others of ours, of which the first is primary, are gone, and these
// come back behind it (inet_insert_ifa).
type setPrimary struct {
	dev    string
	first  netip.Prefix
	others []netip.Prefix
}

func (s setPrimary) String() string {
	return fmt.Sprintf("make %s the primary address on %s", s.first, s.dev)
}

func (s setPrimary) undo() Step {
	return setPrimary{s.dev, s.others[0], append([]netip.Prefix{s.first}, s.others[1:]...)}
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
