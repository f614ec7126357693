package plumbing

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A Rule sends what it matches to a routing table (ip-rule(8)). The library drops parts of
// rules on the way in and out, so they are encoded and decoded here.
type Rule struct {
	IPv6     bool
	From, To netip.Prefix // the zero Prefix matches all
	IIF      string       // the interface that a packet has come in by; "" matches all
	Table    int
	Priority int
	Realm    int // IPv4 only

	// Not in what we make:
	Not bool // it matches all others
	TOS byte // 0 matches all
}

// Below the host's own rules: local comes first at 0, main at 32766. A packet with an
// address of ours goes by that, whereto it may go.
const (
	fromPriority = 1180
	toPriority   = 1181
	iifPriority  = 1182
)

// firstTable is followed by the numbers of the interfaces' own tables, where none is asked for.
const firstTable = 118000

// A multihome is the routing table of an interface, in one family.
type multihome struct {
	Interface
	table int
	ipv6  bool
}

// multihomes are the tables that the network needs: those asked for, and one for each
// gateway where several interfaces have one of a family. What comes in by one of them would
// be answered by another's otherwise.
func (n Network) multihomes() []multihome {
	var list []multihome
	for _, ipv6 := range []bool{false, true} {
		gateways := 0
		for _, i := range n.Interfaces {
			if i.gateway(ipv6).IsValid() {
				gateways++
			}
		}
		for k, i := range n.Interfaces {
			asked := i.Table != 0 || i.Realm != 0 && !ipv6
			if has := len(i.addresses(ipv6)) > 0; has && asked || gateways > 1 && i.gateway(ipv6).IsValid() {
				table := i.Table
				if table == 0 {
					table = firstTable + k + 1
				}
				list = append(list, multihome{i, table, ipv6})
			}
		}
	}
	return list
}

// TableOf is the number of the interface's own routing table; 0 where it has none.
func (n Network) TableOf(dev string) int {
	for _, m := range n.multihomes() {
		if m.Name == dev {
			return m.table
		}
	}
	return 0
}

func (i Interface) gateway(ipv6 bool) netip.Addr {
	k := slices.IndexFunc(i.Gateways, func(gw netip.Addr) bool { return gw.Is6() == ipv6 })
	if k < 0 {
		return netip.Addr{}
	}
	return i.Gateways[k]
}

func (i Interface) addresses(ipv6 bool) []netip.Prefix {
	var list []netip.Prefix
	for _, p := range i.Addresses {
		if p.Addr().Is6() == ipv6 {
			list = append(list, p)
		}
	}
	return list
}

// routes are the table's: what is connected, what leads out by the interface, its gateway.
// The kernel wants the neighbours' before that which goes by one of them.
func (m multihome) routes(n Network) []Route {
	var routes []Route
	for _, p := range m.addresses(m.ipv6) {
		if p.IsSingleIP() { // nothing is connected by it
			continue
		}
		r := Route{To: p.Masked(), Dev: m.Name, Table: m.table}
		if !m.ipv6 { // which chooses among all addresses itself (RFC 6724)
			r.Src = p.Addr()
		}
		routes = append(routes, r)
	}
	for _, r := range n.Routes {
		if r = r.canonical(); r.Table == 0 && r.To.Addr().Is6() == m.ipv6 && n.Leaves(r) == m.Name {
			r.Dev, r.Table = m.Name, m.table
			routes = append(routes, r)
		}
	}
	if gw := m.gateway(m.ipv6); gw.IsValid() {
		routes = append(routes, Route{To: everywhere(gw), Via: gw, Dev: m.Name, Table: m.table})
	}
	return routes
}

func everywhere(gw netip.Addr) netip.Prefix { return netip.PrefixFrom(unspecified(family(gw)), 0) }

// tableRoutes are the routes of all tables. What the document says itself of such a table
// comes first.
func (n Network) tableRoutes() []Route {
	seen := map[routeKey]bool{}
	for _, r := range n.Routes {
		seen[r.canonical().key()] = true
	}
	var routes []Route
	for _, m := range n.multihomes() {
		for _, r := range m.routes(n) {
			if !seen[r.key()] {
				routes = append(routes, r)
			}
			seen[r.key()] = true
		}
	}
	return routes
}

// allRules are those of all tables: from each address, and, where a table is asked for by
// number, also to what is connected, and for what has come in by the interface.
func (n Network) allRules() []Rule {
	var rules []Rule
	add := func(r Rule) {
		if !slices.Contains(rules, r) {
			rules = append(rules, r)
		}
	}
	for _, m := range n.multihomes() {
		rule := Rule{IPv6: m.ipv6, Table: m.table}
		if !m.ipv6 {
			rule.Realm = m.Realm
		}
		for _, p := range m.addresses(m.ipv6) {
			r := rule
			r.From, r.Priority = netip.PrefixFrom(p.Addr(), p.Addr().BitLen()), fromPriority
			add(r)
			if m.Table != 0 && !p.IsSingleIP() {
				r := rule
				r.To, r.Priority = p.Masked(), toPriority
				add(r)
			}
		}
		if m.Table != 0 {
			rule.IIF, rule.Priority = m.Name, iifPriority
			add(rule)
		}
	}
	return rules
}

// String is iproute2's way to write it.
func (r Rule) String() string {
	var b strings.Builder
	word := func(name string, p netip.Prefix) {
		if p.IsValid() {
			fmt.Fprintf(&b, "%s %s ", name, p)
		}
	}
	if r.Not {
		b.WriteString("not ")
	}
	word("from", r.From)
	word("to", r.To)
	if r.TOS != 0 {
		fmt.Fprintf(&b, "tos %#x ", r.TOS)
	}
	if r.IIF != "" {
		fmt.Fprintf(&b, "iif %s ", r.IIF)
	}
	fmt.Fprintf(&b, "lookup %d priority %d", r.Table, r.Priority)
	if r.Realm != 0 {
		fmt.Fprintf(&b, " realms %d", r.Realm)
	}
	return b.String()
}

func (r Rule) command(p Place, verb, protocol string) string {
	tool := p.in("ip")
	if r.IPv6 {
		tool += " -6"
	}
	if r.IIF != "" {
		r.IIF = quote(r.IIF)
	}
	return fmt.Sprintf("%s rule %s %s protocol %s", tool, verb, r, protocol)
}

// rule is a request about a rule (struct fib_rule_hdr).
func rule(kind, flags uint16, r Rule, protocol byte) message {
	body := make([]byte, unix.SizeofRtMsg)
	body[0], body[7] = unix.AF_INET, unix.FR_ACT_TO_TBL
	if r.IPv6 {
		body[0] = unix.AF_INET6
	}
	body[3] = r.TOS
	if r.Not {
		binary.NativeEndian.PutUint32(body[8:], unix.FIB_RULE_INVERT)
	}
	m := message{kind: kind, flags: flags, body: body}
	if r.To.IsValid() {
		m.body[1] = byte(r.To.Bits())
		m.put(unix.FRA_DST, r.To.Addr().AsSlice())
	}
	if r.From.IsValid() {
		m.body[2] = byte(r.From.Bits())
		m.put(unix.FRA_SRC, r.From.Addr().AsSlice())
	}
	if r.IIF != "" {
		m.putString(unix.FRA_IIFNAME, r.IIF)
	}
	m.putUint32(unix.FRA_TABLE, uint32(r.Table))
	m.putUint32(unix.FRA_PRIORITY, uint32(r.Priority))
	if r.Realm != 0 {
		m.putUint32(unix.FRA_FLOW, uint32(r.Realm))
	}
	m.put(unix.FRA_PROTOCOL, []byte{protocol})
	return m
}

// decodeRule reads a rule; ours is false for one that we would not make. What it also
// matches, and Rule lacks, makes it one that is not wanted.
func decodeRule(b []byte) (r Rule, ours bool) {
	if len(b) < unix.SizeofRtMsg {
		return r, false
	}
	r.IPv6, r.Table, r.TOS = b[0] == unix.AF_INET6, int(b[4]), b[3]
	r.Not = number(b[8:12])&unix.FIB_RULE_INVERT != 0
	prefix := func(value []byte, bits byte) netip.Prefix {
		addr, _ := netip.AddrFromSlice(value)
		return netip.PrefixFrom(addr, int(bits))
	}
	eachAttr(b[unix.SizeofRtMsg:], func(typ uint16, value []byte) {
		switch typ {
		case unix.FRA_DST:
			r.To = prefix(value, b[1])
		case unix.FRA_SRC:
			r.From = prefix(value, b[2])
		case unix.FRA_IIFNAME:
			r.IIF = text(value)
		case unix.FRA_TABLE:
			r.Table = number(value)
		case unix.FRA_PRIORITY:
			r.Priority = number(value)
		case unix.FRA_FLOW:
			r.Realm = number(value)
		case unix.FRA_PROTOCOL:
			ours = len(value) == 1 && value[0] == routeProtocol
		}
	})
	return r, ours
}

// observeRules reads the rules of ours, of both families at once, and which of the kernel's
// own are missing, and those that somebody has added by hand.
func (s *State) observeRules(inside *netlinkSocket) error {
	var seen []Rule
	families := map[bool]bool{}
	err := inside.all(dump(unix.RTM_GETRULE, unix.AF_UNSPEC), func(b []byte) {
		r, ours := decodeRule(b)
		if ours {
			s.Rules = append(s.Rules, r)
		}
		if len(b) < unix.SizeofRtMsg || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
			return
		}
		families[r.IPv6] = true
		if what := foreignRule(b); what != "" {
			s.foreign = append(s.foreign, Foreigner{what, message{kind: unix.RTM_DELRULE, body: bytes.Clone(b)}}) // as `ip rule flush` does
		}
		for _, own := range kernelRules {
			if r.isKernelRule(own, b) {
				seen = append(seen, own)
			}
		}
	})
	s.LostRules = lostRules(seen, families)
	return err
}

// rules adds those that are missing, and then deletes those that are not wanted: what is
// under way is answered by one or the other. But the kernel has no rule beside one that
// differs in the realm, the TOS or the not alone (rule_exists).
func (d *differ) rules() {
	for _, r := range d.have.LostRules {
		d.add(restoreRule{r})
	}
	want := d.want.allRules()
	var stale []Rule
	for _, r := range d.have.Rules {
		switch {
		case slices.Contains(want, r):
		case slices.ContainsFunc(want, func(w Rule) bool { w.Realm, w.TOS, w.Not = r.Realm, r.TOS, r.Not; return w == r }):
			d.add(delRule{r})
		default:
			stale = append(stale, r)
		}
	}
	for _, r := range want {
		if !slices.Contains(d.have.Rules, r) {
			d.add(addRule{r})
		}
	}
	for _, r := range stale {
		d.add(delRule{r})
	}
}
