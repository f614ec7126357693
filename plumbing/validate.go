package plumbing

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
)

// A Problem is one thing wrong with a value, and where: Path is the field as it
// is written in a document ("interfaces[0].gateways[1]").
type Problem struct {
	Path string
	Err  error
}

// problems collects what is wrong below one path.
type problems struct {
	at   string
	list *[]Problem
}

func (p problems) in(field string) problems {
	if p.at != "" {
		field = p.at + "." + field
	}
	return problems{field, p.list}
}

func (p problems) item(field string, k int) problems {
	return p.in(fmt.Sprintf("%s[%d]", field, k))
}

func (p problems) add(format string, args ...any) {
	*p.list = append(*p.list, Problem{p.at, fmt.Errorf(format, args...)})
}

func (p problems) check(err error) {
	if err != nil {
		*p.list = append(*p.list, Problem{p.at, err})
	}
}

// Validate reports everything that is wrong with the network and can be known
// without the kernel, all of it at once.
func (n Network) Validate() []Problem {
	var list []Problem
	p := problems{list: &list}
	names := map[string]bool{}
	macs := map[MAC]bool{}
	addrs := map[netip.Addr]bool{}
	tables := map[int]string{}
	for k, i := range n.Interfaces {
		at := p.item("interfaces", k)
		i.validate(at)
		if names[i.Name] {
			at.in("name").add("interface %s is there twice", i.Name)
		}
		if !i.MAC.IsZero() && macs[i.MAC] {
			at.in("mac").add("MAC %s is there twice", i.MAC)
		}
		for j, a := range i.Addresses {
			if addrs[a.Addr()] {
				at.item("addresses", j).add("address %s is there twice", a.Addr())
			}
			addrs[a.Addr()] = true
		}
		for _, o := range n.Interfaces[:k] {
			if c, excluded := i.excludedBy(o); excluded {
				at.in("port").add("interface %s already has %s", o.Name, c.Words)
			}
		}
		if other := tables[i.Table]; other != "" && i.Table != 0 {
			at.in("table").add("table %d is %s's", i.Table, other)
		}
		names[i.Name], macs[i.MAC], tables[i.Table] = true, true, i.Name
	}
	n.validateTables(p)
	seen := map[routeKey]bool{}
	for _, r := range n.gatewayRoutes() {
		if k := slices.IndexFunc(n.Interfaces, func(i Interface) bool { return i.Name == r.Dev }); seen[r.key()] {
			p.item("interfaces", k).in("metric").add("metric %d of %s's gateway is another interface's, too", r.Metric, r.Dev)
		}
		seen[r.key()] = true
	}
	for _, i := range n.Interfaces {
		for _, a := range i.Addresses {
			seen[Route{To: a.Masked()}.key()] = a.Addr().Is4() // the kernel's own
		}
	}
	for k, r := range n.Routes {
		at := p.item("routes", k)
		r.validate(at, n)
		key := r.canonical().key()
		if seen[key] {
			at.check(refuse("give it another metric", "route %s: there is one with its destination and metric", r))
		}
		seen[key] = true
	}
	return list
}

// validateTables refuses a table that is asked for where it is what another interface gets
// by itself.
func (n Network) validateTables(p problems) {
	multihomes := n.multihomes()
	for k, i := range n.Interfaces {
		for _, own := range multihomes {
			if own.Table == 0 && slices.ContainsFunc(multihomes, func(m multihome) bool {
				return m.Name == i.Name && m.Table == own.table && m.ipv6 == own.ipv6
			}) {
				p.item("interfaces", k).in("table").add("table %d is %s's own, which asks for none", i.Table, own.Name)
				break
			}
		}
	}
}

func (i Interface) validate(p problems) {
	p.in("name").check(CheckIfname(i.Name))
	if i.Port == "" {
		p.in("port").add("interface %s has no port: name the host's device it sits on", i.Name)
	} else {
		p.in("port").check(checkDevice(i.Port))
	}
	p.in("vlan").check(i.VLAN.check())
	i.validateKind(p)
	if i.MTU != 0 && (i.MTU < 68 || i.MTU > 65535) {
		p.in("mtu").add("mtu %d is out of range: 68 to 65535 bytes", i.MTU)
	}
	if i.MTU != 0 && i.MTU < minIPv6MTU && i.hasIPv6() {
		p.in("mtu").add("mtu %d is too small for IPv6: at least %d bytes", i.MTU, minIPv6MTU)
	}
	p.in("metric").check(inRange("metric", i.Metric, 0, math.MaxUint32))
	p.in("table").check(inRange("table", i.Table, 0, math.MaxUint32))
	if i.Table >= unix.RT_TABLE_DEFAULT && i.Table <= unix.RT_TABLE_LOCAL {
		p.in("table").add("table %d is the kernel's, for all interfaces", i.Table)
	}
	if err := inRange("realm", i.Realm, 0, maxRealm); err != nil {
		p.in("realm").add("%w, which is what the kernel counts apart", err)
	}
	for k, a := range i.Addresses {
		p.item("addresses", k).check(checkAddress(a))
	}
	families := map[bool]bool{}
	for k, gw := range i.Gateways {
		at := p.item("gateways", k)
		at.check(i.checkGateway(gw))
		if families[gw.Is4()] {
			at.add("interface %s has two gateways of one family", i.Name)
		}
		families[gw.Is4()] = true
	}
}

// maxRealm is what /proc/net/rt_acct has room for (ip_rcv_finish_core).
const maxRealm = 255

// minIPv6MTU is what every link with IPv6 carries (RFC 8200, 5).
const minIPv6MTU = 1280

func (i Interface) hasIPv6() bool { return i.RA || len(i.addresses(true)) > 0 }

// CheckIfname reports why name cannot be an interface's name inside a virtual
// server. The kernel's limits are IFNAMSIZ and dev_valid_name; all and default
// are directories of /proc/sys/net, lo is the loopback.
func CheckIfname(name string) error {
	switch name {
	case "":
		return errors.New("an interface has no name")
	case "lo", "all", "default":
		return fmt.Errorf("interface name %q is taken by the kernel", name)
	}
	if strings.HasSuffix(name, nsutil.LeavingMark) {
		return fmt.Errorf("interface name %q ends as that of one which another one replaces", name)
	}
	return checkDevice(name)
}

func checkDevice(name string) error {
	if len(name) > 15 {
		return refuse("choose a shorter one", "name %q is %d bytes long: the kernel's limit is 15", name, len(name))
	}
	// A % is the kernel's pattern for a free number (dev_alloc_name).
	odd := func(r rune) bool {
		return r == '/' || r == ':' || r == '%' || r == unicode.ReplacementChar || unicode.IsSpace(r) || !unicode.IsPrint(r)
	}
	if name == "." || name == ".." || strings.HasPrefix(name, "-") || strings.ContainsFunc(name, odd) {
		return fmt.Errorf("%q cannot be a device's name", name)
	}
	return nil
}

func checkAddress(p netip.Prefix) error {
	a := p.Addr()
	switch {
	case !p.IsValid():
		return errors.New("an address is missing")
	case a.Is4In6():
		return fmt.Errorf("address %s is IPv4 written as IPv6", p)
	case a.Zone() != "", a.IsUnspecified(), a.IsMulticast(), a.IsLoopback(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("address %s cannot be an interface's", p)
	case a.Is6() && a.IsLinkLocalUnicast():
		return fmt.Errorf("address %s is link-local: the kernel gives each interface its own", p)
	case p.Bits() == 0:
		return fmt.Errorf("address %s has prefix length 0", p)
	case a.Is4() && p.Bits() < 31 && a == p.Masked().Addr():
		return fmt.Errorf("address %s is the network's own address, not a host's", p)
	case a.Is4() && p.Bits() < 31 && a == lastAddr(p):
		return fmt.Errorf("address %s is the network's broadcast address", p)
	}
	return nil
}

// lastAddr is the highest IPv4 address of a prefix: its broadcast address.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(b)
}

func (i Interface) checkGateway(gw netip.Addr) error {
	if err := checkNexthop(gw); err != nil {
		return err
	}
	for _, a := range i.Addresses {
		if a.Addr() == gw {
			return fmt.Errorf("gateway %s is the interface's own address", gw)
		}
	}
	for _, a := range i.Addresses {
		if a.Masked().Contains(gw) {
			return nil
		}
	}
	if gw.IsLinkLocalUnicast() && gw.Is6() {
		return nil
	}
	return refuse("a gateway is a neighbour: give the interface an address with a prefix that holds it",
		"gateway %s is outside every prefix of %s", gw, i.Name)
}

func checkNexthop(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return errors.New("a gateway is missing")
	case a.Zone() != "", a.Is4In6(), a.IsUnspecified(), a.IsMulticast(), a.IsLoopback():
		return fmt.Errorf("%s cannot be a gateway", a)
	}
	return nil
}

func (r Route) validate(p problems, n Network) {
	if !r.To.IsValid() {
		p.in("to").add("a route has no destination")
		return
	}
	if r.To != r.To.Masked() {
		p.in("to").add("route to %s has host bits set: did you mean %s?", r.To, r.To.Masked())
	}
	if r.Dev != "" {
		if _, ok := n.Interface(r.Dev); !ok {
			p.in("dev").add("route to %s leaves by %s, which is no interface here", prefixName(r.To), r.Dev)
		}
	}
	r.validateVia(p, n)
	if r.Src.IsValid() && !slices.ContainsFunc(n.Interfaces, func(i Interface) bool {
		return slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Addr() == r.Src })
	}) {
		p.in("src").add("route to %s: source %s is no address here", prefixName(r.To), r.Src)
	} else if r.Src.IsValid() && r.Src.Is4() != r.To.Addr().Is4() {
		p.in("src").add("route to %s from %s mixes address families", prefixName(r.To), r.Src)
	}
	p.in("table").check(inRange("table", r.Table, 0, math.MaxUint32))
	p.in("metric").check(inRange("metric", r.Metric, 0, math.MaxUint32))
	p.in("realm").check(inRange("realm", r.Realm, 0, math.MaxUint16))
	if r.Realm != 0 && r.To.Addr().Is6() {
		p.in("realm").add("route to %s: IPv6 routes have no realm", prefixName(r.To))
	}
}

func (r Route) validateVia(p problems, n Network) {
	if !r.Via.IsValid() {
		if r.Dev == "" {
			p.add("route to %s needs via or dev", prefixName(r.To))
		}
		return
	}
	at := p.in("via")
	at.check(checkNexthop(r.Via))
	if r.Via.Is4() != r.To.Addr().Is4() {
		at.add("route to %s via %s mixes address families", prefixName(r.To), r.Via)
		return
	}
	if r.Dev != "" && r.Via.Is6() && r.Via.IsLinkLocalUnicast() {
		return
	}
	if _, ok := n.connected(r.Via); !ok {
		at.add("route to %s: gateway %s is outside every connected prefix", prefixName(r.To), r.Via)
	}
}

func inRange(what string, v int, low, high int64) error {
	if int64(v) < low || int64(v) > high {
		return fmt.Errorf("%s %d is out of range: %d to %d", what, v, low, high)
	}
	return nil
}
