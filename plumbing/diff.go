package plumbing

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Diff is the plan that takes the kernel from have to want. It refuses what the
// state of the kernel makes impossible. Every interface wanted must have its
// MAC by now.
func Diff(place Place, want Network, have State) (Plan, error) {
	if have.Namespace == Foreign {
		return nil, refuse("choose another id, or remove it: ip netns delete "+place.Name,
			"%s is a network namespace of somebody else's", place.Path())
	}
	have, vlans := withVLANs(want, have.withMarked(place, want))
	want = want.inheriting(have)
	for _, i := range want.Interfaces {
		if err := checkPort(place, i, have); err != nil {
			return nil, err
		}
		if i.hasIPv6() && !have.Features.IPv6 {
			return nil, refuse("boot without ipv6.disable=1, or leave the IPv6 addresses out", "this kernel has no IPv6")
		}
	}
	if err := checkForeignLinks(place, want, have); err != nil {
		return nil, err
	}
	d := differ{place: place, want: want, have: have, routes: want.allRoutes()}
	d.namespace()
	if have.Namespace == Absent && want.UsesDevice() { // with a namespace that nobody holds a device ends
		d.add(publish{})
	}
	d.stale()
	d.plan = append(d.plan, vlans...) // after a VLAN that was the namespace's alone
	d.makeWay()
	d.links()
	d.addresses()
	stale := d.setRoutes()
	d.rules()
	d.plan = append(d.plan, stale...)
	d.staleAddresses()
	d.plan = append(d.plan, d.lower...)
	if have.Namespace == Absent && !want.UsesDevice() {
		d.add(publish{})
	}
	for _, a := range d.fresh {
		d.add(announce{a})
	}
	d.leave()
	return d.plan, nil
}

// Removal is the plan that takes a namespace of ours away, and leaves its addresses
// silent and its MACs free: with the namespace alone they would go only when
// its last process and socket has.
func Removal(have State) Plan {
	if have.Namespace != Ours {
		return nil
	}
	var plan Plan
	if have.Holder != 0 { // a shell needs the name
		plan = append(plan, republish{have.Holder})
	}
	plan = append(plan, destroySockets{})
	for _, l := range slices.Backward(have.Links) {
		if step, needed := l.leaves(); needed {
			plan = append(plan, step)
		}
	}
	return append(plan, unpublish{})
}

// WithoutProbe is the plan without asking the segment whether the addresses are
// free.
func (p Plan) WithoutProbe() Plan {
	return slices.DeleteFunc(slices.Clone(p), func(s Step) bool {
		if host, ok := s.(onHost); ok {
			s = host.Step
		}
		_, ok := s.(probe)
		return ok
	})
}

// A differ builds one plan. Its order: what must go for something new to fit,
// then all that is new, then what is left over.
type differ struct {
	place  Place
	want   Network
	have   State
	routes []Route // wanted
	plan   Plan
	lower  Plan            // MTUs that become smaller: below 1280 IPv6 goes, with all that is to be deleted
	remade map[string]bool // interfaces that are deleted, with all on them
	fresh  []announcement  // addresses the segment has not heard of
}

func (d *differ) add(s Step) { d.plan = append(d.plan, s) }

func (d *differ) namespace() {
	if d.have.Namespace == Absent {
		d.add(makeNamespace{})
	}
	if d.have.Holder != 0 {
		d.add(republish{d.have.Holder})
	}
	d.sysctls(firstSysctls)
	lo, _ := d.have.Link("lo")
	if mark := d.place.mark(""); lo.Alias != mark {
		d.add(markLink{"lo", mark, lo.Alias})
	}
	if !lo.Up {
		d.add(upLoopback{})
	}
}

func (d *differ) sysctls(list []sysctl) {
	var s setSysctls
	for _, c := range list {
		was, known := d.have.Sysctls[c.key]
		if !d.have.Features.offered(c) || was == c.value {
			continue
		}
		s.set = append(s.set, c)
		if known {
			s.was = append(s.was, sysctl{c.key, was})
		}
	}
	if len(s.set) > 0 {
		d.add(s)
	}
}

// stale deletes the links of ours that are not wanted, or not as they are: what
// is on them first, so that an undoing brings it back.
func (d *differ) stale() {
	d.remade = map[string]bool{}
	for _, l := range slices.Backward(d.have.Links) {
		if !d.place.has(l) {
			continue
		}
		i, wanted := d.want.Interface(l.Name)
		if wanted && l.fits(i, d.have.Ports[i.base()]) || d.moving(l) || d.isLeaving(l) {
			continue
		}
		d.remade[l.Name] = true
		for _, r := range d.have.Routes {
			if r.Dev == l.Name {
				d.add(delRoute{r})
			}
		}
		for _, a := range slices.Backward(d.have.Addresses) {
			if a.Dev == l.Name {
				d.add(delAddress{a})
			}
		}
		if l.Up {
			d.add(downLink{l.Name, upLink{l.Name, d.portName(l.Parent), l.MAC}})
		}
		if l.Kind == Device {
			d.add(moveBack{l.Name, l.Alias, l.origin, l.MAC})
			continue
		}
		d.add(keptMark{l.Name, l.Alias})
		if l.RA {
			d.add(setSysctls{set: raSysctls(l.Name, false, false), was: raSysctls(l.Name, true, l.Defrtr)})
		}
		d.add(d.deletion(l))
	}
}

func (d *differ) portName(index int) string {
	for _, p := range d.have.Ports {
		if p.Index == index {
			return p.Name
		}
	}
	return fmt.Sprintf("if%d", index) // as iproute2 names one it cannot see
}

// fits reports whether the link is what the interface asks for, but for what can be set
// while it is in use: its MTU, and its sources. A port that is not there under its
// name has been renamed: the link would be gone with it.
func (l Link) fits(i Interface, p Port) bool {
	if i.Kind == Device {
		return l.Kind == Device && l.origin.name == i.Port && l.RA == i.RA
	}
	return l.like(i) && l.tag == i.innermost() && (l.Parent == p.Index || p.Name == "")
}

func (d *differ) links() {
	for _, i := range d.want.Interfaces {
		port := d.have.Ports[i.base()]
		link, there := d.have.Link(i.Name)
		renewed := !there || d.remade[i.Name]
		mtu := cmp.Or(i.MTU, port.MTU, link.MTU)
		switch {
		case i.Kind != Device:
		case renewed:
			mtu = cmp.Or(i.MTU, port.asOrigin().mtu)
		default:
			mtu = cmp.Or(i.MTU, link.origin.mtu)
		}
		switch {
		case renewed && i.Kind == Device:
			d.add(moveIn{i.Name, d.place.mark(i.Name), port.Name, port.asOrigin()})
			link = Link{MTU: port.MTU, MAC: port.MAC, Alias: d.place.mark(i.Name)}
		case renewed:
			d.add(addLink{dev: i.Name, form: i.form(), sources: i.sources(), port: port.Name, portIndex: port.Index, mac: i.MAC, mtu: mtu})
			link = Link{MTU: mtu, Sources: i.sources()}
		}
		if i.Kind == Device && link.MAC != i.MAC {
			d.add(setMAC{i.Name, i.MAC, link.MAC})
		}
		if sources := i.sources(); !slices.Equal(link.Sources, sources) {
			d.add(setSources{i.Name, sources, link.Sources})
		}
		switch {
		case link.MTU < mtu:
			d.add(setMTU{i.Name, mtu, link.MTU})
		case link.MTU > mtu:
			d.lower = append(d.lower, setMTU{i.Name, mtu, link.MTU})
		}
		switch gateway := d.routersLead(); {
		case i.RA && !link.RA: // before it is up, which is when routers are asked
			d.add(setSysctls{set: raSysctls(i.Name, true, gateway), was: raSysctls(i.Name, false, false)})
		case i.RA && link.Defrtr != gateway:
			d.add(setSysctls{set: []sysctl{raSysctl(i.Name, raGateway, gateway)}, was: []sysctl{raSysctl(i.Name, raGateway, link.Defrtr)}})
		}
		if mark := d.place.mark(i.Name); link.Alias != mark {
			d.add(markLink{i.Name, mark, link.Alias})
		}
		if !link.Up {
			d.add(upLink{i.Name, i.Port, i.MAC})
			if i.Kind == Device {
				d.add(awaitCarrier{i.Name})
			}
		}
	}
	if slices.ContainsFunc(d.want.Interfaces, Interface.hasIPv6) {
		d.sysctls(ip6Sysctls)
	}
}

// routersLead says whether routers may be default gateways: not beside one that is asked for,
// which has the metric of theirs (IP6_RT_PRIO_USER), or they another one.
func (d *differ) routersLead() bool {
	return !slices.ContainsFunc(d.want.Interfaces, func(i Interface) bool { return i.gateway(true).IsValid() })
}

// addresses asks for all new addresses at once whether anybody holds them,
// before any is given: a link is up by then, and silent.
func (d *differ) addresses() {
	var adds Plan
	for _, i := range d.want.Interfaces {
		var fresh announcement
		old, moves := d.leaving(i)
		for _, p := range i.Addresses {
			if d.holds(i.Name, p) {
				continue
			}
			d.clear(i.Name, p)
			adds = append(adds, addAddress{Address{Dev: i.Name, Prefix: p}})
			if !moves || !d.holds(old.Name, p) {
				fresh.addrs = append(fresh.addrs, p.Addr())
			}
		}
		if len(fresh.addrs) > 0 {
			fresh.dev, fresh.mac = i.Name, i.MAC
			d.fresh = append(d.fresh, fresh)
		}
		adds = append(adds, d.primaries(i)...)
	}
	if len(d.fresh) > 0 {
		d.add(probe{d.fresh, d.ownMACs()})
	}
	d.plan = append(d.plan, adds...)
}

func (d *differ) holds(dev string, p netip.Prefix) bool {
	return !d.remade[dev] && slices.ContainsFunc(d.have.Addresses, func(a Address) bool {
		return a.Dev == dev && a.Prefix == p
	})
}

// ownMACs are those that may answer a probe: an address can move from one of our
// interfaces to another.
func (d *differ) ownMACs() []MAC {
	var own []MAC
	for _, l := range d.have.Links {
		own = append(own, l.MAC)
	}
	for _, i := range d.want.Interfaces {
		own = append(own, i.MAC)
	}
	return own
}

// clear makes room for an address that is there with another prefix length:
// IPv6 has an address on a link once.
func (d *differ) clear(dev string, p netip.Prefix) {
	for _, a := range d.have.Addresses {
		if a.Dev == dev && a.Prefix.Addr() == p.Addr() && p.Addr().Is6() && !d.remade[dev] {
			d.add(delAddress{a})
		}
	}
}

// staleAddresses deletes what we have given an interface of ours beside what is wanted.
func (d *differ) staleAddresses() {
	for _, a := range slices.Backward(d.have.Addresses) {
		i, ours := d.want.Interface(a.Dev)
		again := a.Prefix.Addr().Is6() && slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Addr() == a.Prefix.Addr() })
		if ours && !a.Foreign && !again && !d.remade[a.Dev] && !slices.Contains(i.Addresses, a.Prefix) {
			d.add(delAddress{a})
		}
	}
}

// setRoutes adds and replaces routes, and returns the deletions of those left.
func (d *differ) setRoutes() (stale Plan) {
	have := map[routeKey]Route{}
	for _, r := range d.have.Routes {
		if !d.remade[r.Dev] {
			have[r.key()] = r
		}
	}
	for _, r := range d.have.Routers {
		if _, ours := d.want.Interface(r.Dev); ours && !d.routersLead() && !d.remade[r.Dev] {
			d.add(delRouter{r})
		}
	}
	for _, r := range d.routes {
		old, there := have[r.key()]
		delete(have, r.key())
		switch {
		case !there:
			d.add(setRoute{Route: r})
		case old != r:
			d.add(setRoute{r, &old})
		}
	}
	for _, r := range d.have.Routes {
		if left, ok := have[r.key()]; ok && left == r {
			stale = append(stale, delRoute{r})
		}
	}
	return stale
}
