package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/plumbing"
)

// interfaceFlags are one interface on the command line, with its routes.
type interfaceFlags struct {
	port, vlan, kind, ifname     string
	mode                         string
	mac                          string
	sources                      []string
	mtu, metric, table, realm    int
	ra                           bool
	addresses, gateways, routeTo []string
}

func (f *interfaceFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.port, "port", "", "the host's device that the interface sits on")
	flags.StringVar(&f.vlan, "vlan", "", "the VLAN of the port, such as 10, or 100.10 for one inside another (802.1ad)")
	flags.StringVar(&f.kind, "kind", "", "how it sits there: macvlan; vlan for a VLAN that it shares with nobody; device for the port itself, moved in (default macvlan)")
	flags.StringVar(&f.mode, "mode", "", "whom on the port a macvlan reaches: bridge (all in this mode), private (none), vepa (whom the switch lets it), source (whom --source names), passthru (it is alone there, and has its MAC) (default bridge)")
	flags.StringArrayVar(&f.sources, "source", nil, "a MAC that a macvlan in mode source receives from; repeatable, up to 1024 times")
	flags.StringVar(&f.ifname, "ifname", "", "its name inside (default the first free of eth0, eth1, …)")
	flags.StringArrayVar(&f.addresses, "address", nil, "address with prefix length, such as 192.0.2.8/24; repeatable")
	flags.StringArrayVar(&f.gateways, "gateway", nil, "default gateway; one IPv4, one IPv6")
	flags.StringArrayVar(&f.routeTo, "route", nil, `"CIDR via IP [dev D] [src IP] [table N] [realm N] [metric N]"; repeatable`)
	flags.StringVar(&f.mac, "mac", "", "MAC address (default derived, the same every time)")
	flags.IntVar(&f.mtu, "mtu", 0, "largest packet in bytes (default the port's)")
	flags.BoolVar(&f.ra, "ra", false, "take IPv6 addresses, and a default route, from the routers there, too")
	flags.IntVar(&f.metric, "metric", 0, "its gateways' among several interfaces', the lowest first (default by the interfaces' order)")
	flags.IntVar(&f.table, "table", 0, "its own routing table, and rules from and to its addresses (default made when several interfaces have gateways)")
	flags.IntVar(&f.realm, "realm", 0, "a number, 1 to 255, under which the kernel counts what its IPv4 addresses receive")
}

// parse turns the flags into values. Without a port there is no interface, and
// nothing may be said about one.
func (f *interfaceFlags) parse(others plumbing.Network) ([]plumbing.Interface, []plumbing.Route, error) {
	if f.port == "" {
		if f.vlan+f.kind+f.mode+f.ifname+f.mac != "" || f.mtu != 0 || f.metric != 0 || f.table != 0 || f.realm != 0 || f.ra || len(f.sources)+len(f.addresses)+len(f.gateways)+len(f.routeTo) > 0 {
			return nil, nil, usagef("an interface needs --port, the host's device that it sits on")
		}
		return nil, nil, nil
	}
	i := plumbing.Interface{Name: f.ifname, Port: f.port, Kind: plumbing.Kind(f.kind), Mode: plumbing.Mode(f.mode), MTU: f.mtu, Metric: f.metric, Table: f.table, Realm: f.realm, RA: f.ra}
	if i.Name == "" {
		i.Name = freeName(others)
	}
	var err error
	if f.vlan != "" {
		if i.VLAN, err = plumbing.ParseVLAN(f.vlan); err != nil {
			return nil, nil, usageError{err}
		}
	}
	if f.mac != "" {
		if i.MAC, err = plumbing.ParseMAC(f.mac); err != nil {
			return nil, nil, usageError{err}
		}
	}
	for _, s := range f.sources {
		m, err := plumbing.ParseMAC(s)
		if err != nil {
			return nil, nil, usageError{err}
		}
		i.Sources = append(i.Sources, m)
	}
	for _, s := range f.addresses {
		p, err := parsePrefix(s)
		if err != nil {
			return nil, nil, err
		}
		i.Addresses = append(i.Addresses, p)
	}
	for _, s := range f.gateways {
		a, err := parseAddr(s)
		if err != nil {
			return nil, nil, err
		}
		i.Gateways = append(i.Gateways, a)
	}
	var routes []plumbing.Route
	for _, s := range f.routeTo {
		r, err := parseRoute(s)
		if err != nil {
			return nil, nil, err
		}
		routes = append(routes, r)
	}
	return []plumbing.Interface{i}, routes, nil
}

func freeName(n plumbing.Network) string {
	for k := 0; ; k++ {
		name := "eth" + strconv.Itoa(k)
		if _, taken := n.Interface(name); !taken {
			return name
		}
	}
}

func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, usagef("%q is not an address with prefix length, such as 192.0.2.8/24", s)
	}
	return p, nil
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, usagef("%q is not an IP address", s)
	}
	return a, nil
}

// parseRoute reads a route as `ip route` is told it.
func parseRoute(s string) (plumbing.Route, error) {
	words := strings.Fields(s)
	if len(words)%2 == 0 {
		return plumbing.Route{}, usagef("route %q is not \"CIDR via IP [dev D] [src IP] [table N] [realm N] [metric N]\"", s)
	}
	var r plumbing.Route
	for k := 1; k < len(words); k += 2 {
		if err := setRouteWord(&r, words[k], words[k+1]); err != nil {
			return r, usagef("route %q: %w", s, err)
		}
	}
	var err error
	switch {
	case words[0] != "default":
		r.To, err = parsePrefix(words[0])
	case r.Via.Is6():
		r.To = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	default:
		r.To = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return r, err
}

func setRouteWord(r *plumbing.Route, word, value string) (err error) {
	numbers := map[string]*int{"table": &r.Table, "realm": &r.Realm, "metric": &r.Metric}
	switch {
	case word == "via":
		r.Via, err = parseAddr(value)
	case word == "src":
		r.Src, err = parseAddr(value)
	case word == "dev":
		r.Dev = value
	case numbers[word] != nil:
		if *numbers[word], err = strconv.Atoi(value); err != nil {
			err = fmt.Errorf("%s %q is not a number", word, value)
		}
	default:
		err = fmt.Errorf("unknown word %q", word)
	}
	return err
}
