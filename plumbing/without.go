package plumbing

import (
	"net/netip"
	"slices"
)

// Without is the network less what other has of it: addresses on the same segments, and
// realms, and interfaces whose MAC or VLAN that has; with them go the gateways and routes that
// have no way then. macs are those that interfaces without one get, in their order.
func (n Network) Without(other Network, macs []MAC) Network {
	var less Network
	for k, i := range n.Interfaces {
		if slices.ContainsFunc(other.Interfaces, func(o Interface) bool { return !o.MAC.IsZero() && o.MAC == macs[k] || o.Excludes(i) }) {
			continue
		}
		taken := func(p netip.Prefix) bool {
			return slices.ContainsFunc(other.Interfaces, func(o Interface) bool {
				return o.Segment() == i.Segment() && slices.ContainsFunc(o.Addresses, func(q netip.Prefix) bool { return q.Addr() == p.Addr() })
			})
		}
		i.Addresses = slices.DeleteFunc(slices.Clone(i.Addresses), taken)
		i.Gateways = slices.DeleteFunc(slices.Clone(i.Gateways), func(gw netip.Addr) bool { return i.checkGateway(gw) != nil })
		if slices.ContainsFunc(other.Interfaces, func(o Interface) bool { return o.Realm == i.Realm }) {
			i.Realm = 0
		}
		less.Interfaces = append(less.Interfaces, i)
	}
	for _, r := range n.Routes {
		if len((Network{Interfaces: less.Interfaces, Routes: []Route{r}}).Validate()) == 0 {
			less.Routes = append(less.Routes, r)
		}
	}
	return less
}

// After is the state when a plan that takes away has been carried out. What it adds is the
// rules and routes that remain, which may be others without a realm or a gateway.
func (s State) After(p Plan) State {
	for _, step := range p {
		switch step := step.(type) {
		case delAddress:
			s.Addresses = slices.DeleteFunc(slices.Clone(s.Addresses), func(a Address) bool { return a == step.Address })
		case delRoute:
			s.Routes = slices.DeleteFunc(slices.Clone(s.Routes), func(r Route) bool { return r == step.Route })
		case delRouter:
			s.Routers = slices.DeleteFunc(slices.Clone(s.Routers), func(r Route) bool { return r == step.Route })
		case setRoute:
			s.Routes = append(slices.DeleteFunc(slices.Clone(s.Routes), func(r Route) bool { return r.key() == step.Route.key() }), step.Route)
		case addRule:
			s.Rules = append(slices.Clone(s.Rules), step.Rule)
		case delRule:
			s.Rules = slices.DeleteFunc(slices.Clone(s.Rules), func(r Rule) bool { return r == step.Rule })
		case renameLink:
			s = s.renamed(step)
		case delLink:
			s.Links = slices.DeleteFunc(slices.Clone(s.Links), func(l Link) bool { return l.Name == step.dev })
		}
	}
	return s
}
