package plumbing

import (
	"flag"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// checks makes a property be tried n times rather than rapid's hundred, unless
// the command line says how often.
func checks(t *testing.T, n int) {
	t.Helper()
	const name = "rapid.checks"
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == name })
	if said {
		return
	}
	was := flag.Lookup(name).Value.String()
	flag.Set(name, strconv.Itoa(n))
	t.Cleanup(func() { flag.Lookup(name).Value.Set(was) })
}

// From any network to any other in at most three rounds, and then everything is
// there, and nothing else.
func TestApplyFromAnyToAny(t *testing.T) {
	checks(t, 8)
	host := ports(t)
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawNetwork(t, "a"), drawNetwork(t, "b")
		h := open(t, vs8)
		defer remove(t, vs8)
		defer h.Close()
		for _, want := range []Network{a, b, a} {
			apply(t, h, want)
			holds(t, host, vs8, want)
		}
	})
}

// subset draws some of a pool, in any order.
func subset[T any](t *rapid.T, label string, pool []T, most int) []T {
	list := rapid.Permutation(pool).Draw(t, label)
	return list[:rapid.IntRange(0, min(most, len(pool))).Draw(t, label+" count")]
}

func drawNetwork(t *rapid.T, label string) Network {
	var n Network
	free := prefixes("192.0.2.8/24", "192.0.2.9/24", "192.0.2.10/25", "198.51.100.8/25", "203.0.113.8/31", "203.0.113.20/32",
		"2001:db8::8/64", "2001:db8::9/64", "2001:db8:1::8/128", "2001:db8:2::8/48")
	for _, name := range subset(t, label+" interfaces", []string{"eth0", "lan", "x"}, 3) {
		i := Interface{
			Name: name,
			// Mostly the same, so that the interface need not be made anew.
			Port: rapid.SampledFrom([]string{"eth1", "eth1", "eth1", "eth2"}).Draw(t, "port"),
			MAC:  MAC{2, 0, 0, 0, rapid.SampledFrom([]byte{1, 1, 1, 2}).Draw(t, "mac"), name[0]},
			MTU:  rapid.SampledFrom([]int{0, 1500, 1400, 1280, 1000}).Draw(t, "mtu"),
		}
		i.Addresses = slices.DeleteFunc(subset(t, "addresses", free, 4), func(p netip.Prefix) bool {
			return p.Addr().Is6() && !i.bearsIPv6()
		})
		free = slices.DeleteFunc(slices.Clone(free), func(p netip.Prefix) bool { return slices.Contains(i.Addresses, p) })
		for _, pool := range [][]netip.Addr{addrs("192.0.2.1", "192.0.2.2", "198.51.100.1", "203.0.113.9"), addrs("2001:db8::1", "2001:db8::2", "fe80::1")} {
			pool = slices.DeleteFunc(pool, func(gw netip.Addr) bool { return gw.Is6() && !i.bearsIPv6() || i.checkGateway(gw) != nil })
			i.Gateways = append(i.Gateways, subset(t, "gateway", pool, 1)...)
		}
		i.RA = i.bearsIPv6() && rapid.SampledFrom([]bool{false, false, true}).Draw(t, "ra")
		i.Mode = rapid.SampledFrom([]Mode{"", "", Bridge, Private, VEPA}).Draw(t, "mode")
		i.Metric = rapid.SampledFrom([]int{0, 0, 50 + len(n.Interfaces)}).Draw(t, "metric")
		i.Table = rapid.SampledFrom([]int{0, 0, 2000 + len(n.Interfaces)}).Draw(t, "table")
		i.Realm = rapid.SampledFrom([]int{0, 0, 8}).Draw(t, "realm")
		n.Interfaces = append(n.Interfaces, i)
	}
	drawRoutes(t, label, &n)
	if problems := n.Validate(); len(problems) > 0 {
		t.Fatalf("%+v is no network to test with: %v", n, problems)
	}
	return n
}

func (i Interface) bearsIPv6() bool { return i.MTU == 0 || i.MTU >= 1280 }

func drawRoutes(t *rapid.T, label string, n *Network) {
	seen := map[routeKey]bool{}
	for _, to := range subset(t, label+" routes", prefixes("198.51.100.128/25", "203.0.113.64/26", "203.0.113.200/32",
		"198.51.100.128/25", "2001:db8:7::/48", "2001:db8:8::8/128", "2001:db8:7::/48"), 5) {
		r := Route{
			To:     to,
			Table:  rapid.SampledFrom([]int{0, 254, 100, 1000}).Draw(t, "table"),
			Metric: rapid.SampledFrom([]int{0, 50, 1024, 4294967295}).Draw(t, "metric"),
		}
		if to.Addr().Is4() {
			r.Realm = rapid.SampledFrom([]int{0, 3}).Draw(t, "realm")
		}
		var ways []Route
		for _, i := range n.Interfaces {
			if to.Addr().Is6() && !i.bearsIPv6() {
				continue
			}
			ways = append(ways, Route{Dev: i.Name})
			for _, via := range addrs("192.0.2.1", "198.51.100.1", "203.0.113.9", "2001:db8::1", "2001:db8:2::1") {
				if via.Is4() == to.Addr().Is4() && n.Leaves(Route{Via: via}) == i.Name {
					ways = append(ways, Route{Via: via}, Route{Via: via, Dev: i.Name})
				}
			}
		}
		if len(ways) == 0 || seen[r.canonical().key()] {
			continue
		}
		seen[r.canonical().key()] = true
		way := rapid.SampledFrom(ways).Draw(t, "way")
		r.Via, r.Dev = way.Via, way.Dev
		i, _ := n.Interface(n.Leaves(r))
		if own := append(i.addresses(false), i.addresses(to.Addr().Is6())...); len(own) > 0 && own[len(own)-1].Addr().Is6() == to.Addr().Is6() {
			r.Src = rapid.SampledFrom([]netip.Addr{{}, own[len(own)-1].Addr()}).Draw(t, "src")
		}
		n.Routes = append(n.Routes, r)
	}
}
