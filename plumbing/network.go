package plumbing

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A Network is what a namespace should hold. The zero Network is a namespace
// with its loopback up.
type Network struct {
	Interfaces []Interface `json:"interfaces,omitempty" yaml:"interfaces,omitempty"`
	Routes     []Route     `json:"routes,omitempty" yaml:"routes,omitempty"`
}

// An Interface is a device inside the namespace, on a port of the host.
type Interface struct {
	Name      string         `json:"name" yaml:"name"` // inside; 1–15 bytes
	Port      string         `json:"port" yaml:"port"` // on the host
	VLAN      VLAN           `json:"vlan,omitempty" yaml:"vlan,omitempty"`
	Kind      Kind           `json:"kind,omitempty" yaml:"kind,omitempty"`
	Mode      Mode           `json:"mode,omitempty" yaml:"mode,omitempty"`
	Sources   []MAC          `json:"sources,omitempty" yaml:"sources,omitempty"` // whom a macvlan in mode source receives from, at most 1024
	MAC       MAC            `json:"mac,omitzero" yaml:"mac,omitempty"`
	MTU       int            `json:"mtu,omitempty" yaml:"mtu,omitempty"`             // bytes, 68–65535; 0: that of what it sits on
	Addresses []netip.Prefix `json:"addresses,omitempty" yaml:"addresses,omitempty"` // the first of an IPv4 subnet is its primary one
	Gateways  []netip.Addr   `json:"gateways,omitempty" yaml:"gateways,omitempty"`   // at most one of each family
	RA        bool           `json:"ra,omitempty" yaml:"ra,omitempty"`               // take addresses and a default route from IPv6 routers, too
	Metric    int            `json:"metric,omitempty" yaml:"metric,omitempty"`       // of its gateways' routes, 1–2^32-1; 0: by the order of interfaces
	Table     int            `json:"table,omitempty" yaml:"table,omitempty"`         // its own routing table, 1–2^32-1; 0: one is made where it needs one
	Realm     int            `json:"realm,omitempty" yaml:"realm,omitempty"`         // of what is received by its IPv4 addresses, 1–255; 0: none
}

// Equal compares what is said of them: a default that is written out is the default.
func (i Interface) Equal(other Interface) bool {
	a, b := i.Canonical(), other.Canonical()
	return i.Name == other.Name && i.Port == other.Port && slices.Equal(i.VLAN, other.VLAN) && i.MAC == other.MAC && i.MTU == other.MTU &&
		a.Kind == b.Kind && a.Mode == b.Mode && slices.Equal(i.Sources, other.Sources) &&
		i.RA == other.RA && i.Metric == other.Metric && i.Table == other.Table && i.Realm == other.Realm &&
		slices.Equal(i.Addresses, other.Addresses) && slices.Equal(i.Gateways, other.Gateways)
}

// A Route is a static route. Via or Dev may be left out, not both.
type Route struct {
	To     netip.Prefix `json:"to" yaml:"to"`
	Via    netip.Addr   `json:"via,omitzero" yaml:"via,omitempty"`
	Dev    string       `json:"dev,omitempty" yaml:"dev,omitempty"`
	Src    netip.Addr   `json:"src,omitzero" yaml:"src,omitempty"`        // what is sent has this address, unless it has one already
	Table  int          `json:"table,omitempty" yaml:"table,omitempty"`   // 1–2^32-1; 0: main (254)
	Metric int          `json:"metric,omitempty" yaml:"metric,omitempty"` // 0–2^32-1; 0: the kernel's default
	Realm  int          `json:"realm,omitempty" yaml:"realm,omitempty"`   // 0–65535, IPv4 only
}

// mainTable is where a route without a table goes (RT_TABLE_MAIN).
const mainTable = 254

// IPv6 has no metric 0: the kernel makes it 1024 (IP6_RT_PRIO_USER).
const ip6DefaultMetric = 1024

func (r Route) String() string {
	var b strings.Builder
	b.WriteString(prefixName(r.To))
	if r.Via.IsValid() {
		fmt.Fprintf(&b, " via %s", r.Via)
	}
	if r.Dev != "" {
		fmt.Fprintf(&b, " dev %s", r.Dev)
	}
	if r.Src.IsValid() {
		fmt.Fprintf(&b, " src %s", r.Src)
	}
	if r.Table != 0 && r.Table != mainTable {
		fmt.Fprintf(&b, " table %d", r.Table)
	}
	if r.Metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	if r.Realm != 0 {
		fmt.Fprintf(&b, " realm %d", r.Realm)
	}
	return b.String()
}

// prefixName is iproute2's word for a destination.
func prefixName(p netip.Prefix) string {
	if p.Bits() == 0 {
		return "default"
	}
	return p.String()
}

// Interface returns the interface with that name.
func (n Network) Interface(name string) (Interface, bool) {
	for _, i := range n.Interfaces {
		if i.Name == name {
			return i, true
		}
	}
	return Interface{}, false
}

// connected returns the interface on whose prefixes addr lies.
func (n Network) connected(addr netip.Addr) (Interface, bool) {
	for _, i := range n.Interfaces {
		for _, p := range i.Addresses {
			if p.Masked().Contains(addr) {
				return i, true
			}
		}
	}
	return Interface{}, false
}

// allRoutes is every route to be made: a default route for each gateway, the
// static ones with their device filled in, and those of the interfaces' own tables.
func (n Network) allRoutes() []Route {
	routes := n.gatewayRoutes()
	for _, r := range n.Routes {
		r.Dev = n.Leaves(r)
		routes = append(routes, r.canonical())
	}
	return append(routes, n.tableRoutes()...)
}

// gatewayRoutes are the gateways' default routes, for what has no address yet. Where
// several of a family meet, the first interface is preferred, unless a metric is given:
// later ones get metrics 100 apart, since two routes with one destination and metric are
// refused. Where a metric is given, those without have 1024 and more.
func (n Network) gatewayRoutes() []Route {
	var routes []Route
	given := map[routeKey]bool{}
	for _, i := range n.Interfaces {
		for _, gw := range i.Gateways {
			r := Route{To: everywhere(gw), Via: gw, Dev: i.Name, Metric: i.Metric}.canonical()
			given[r.key()] = given[r.key()] || i.Metric != 0
			routes = append(routes, r)
		}
	}
	asked := slices.ContainsFunc(n.Interfaces, func(i Interface) bool { return i.Metric != 0 })
	for k, r := range routes {
		if i, _ := n.Interface(r.Dev); i.Metric != 0 {
			continue
		}
		r.Metric = ip6DefaultMetric
		if r.To.Addr().Is4() && !asked { // else its 0 would come before all that are given
			r.Metric = 0
		}
		for given[r.canonical().key()] {
			r.Metric += 100
		}
		routes[k] = r.canonical()
		given[routes[k].key()] = true
	}
	return routes
}

// canonical writes a route's defaults in the one way that is compared.
func (r Route) canonical() Route {
	r.To = r.To.Masked()
	if r.Table == mainTable {
		r.Table = 0
	}
	if r.To.Addr().Is6() && r.Metric == ip6DefaultMetric {
		r.Metric = 0
	}
	return r
}

// Leaves is the name of the interface that a static route leaves by.
func (n Network) Leaves(r Route) string {
	if r.Dev != "" {
		return r.Dev
	}
	i, _ := n.connected(r.Via)
	return i.Name
}
