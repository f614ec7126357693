package plumbing

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A BondState is what the host holds of a bond and of the devices that are or
// should be its members, read by [Handle.ObserveBond].
type BondState struct {
	Device  *Port // nil: it is not there
	Idle    bool  // nobody's: as the kernel's module makes one when it is loaded
	MAC     MAC
	Options map[string]string // by iproute2's names
	Active  string            // the member that carries all, in the modes that have one
	Carrier bool
	Members []Member // those there are
	InUse   bool     // something sits on it
}

// A Member is a device of the host that is, or should be, a member of a bond.
type Member struct {
	Port
	Enslaved bool         // to this bond
	MAC      MAC          // its own, whatever it has in the bond
	Own      []OwnAddress // the permanent ones, in the order in which to add them
	Routed   *Route       // one that somebody made by it
	InUse    bool         // something sits on it
	MII      string       // up, down: what the bond thinks of its link
	Backup   bool         // it waits
	Failures int          // of its link, as the bond has counted
}

// A Before is how a member was before it became one, to be given back.
type Before struct {
	Up        bool         `json:"up"`
	Addresses []OwnAddress `json:"addresses,omitempty"`
}

// An OwnAddress is one that somebody gave a device of the host, with all that he
// may have said about it.
type OwnAddress struct {
	Prefix        netip.Prefix `json:"prefix"`
	Peer          netip.Prefix `json:"peer,omitzero"` // of a point-to-point link
	Broadcast     netip.Addr   `json:"broadcast,omitzero"`
	Label         string       `json:"label,omitempty"`
	Scope         int          `json:"scope,omitempty"`         // rtnetlink(7)'s number
	NoPrefixRoute bool         `json:"noPrefixRoute,omitempty"` // the kernel makes no connected route for it
	NoDAD         bool         `json:"noDad,omitempty"`         // IPv6: nobody is asked whether it is free
}

// untouched tells whether the bond is as the kernel's module makes one: nobody has
// said anything of it, and nobody uses it.
func (s BondState) untouched() bool {
	d := s.Device
	return d != nil && d.Kind == "bond" && !d.Up && !d.Ours && d.Alias == "" && !s.InUse && len(d.Addresses) == 0 &&
		s.Options["mode"] == string(BalanceRR) && s.Options["miimon"] == "0" &&
		!slices.ContainsFunc(s.Members, func(m Member) bool { return m.Enslaved })
}

// Before is what has to be remembered of the members that want would add.
func (s BondState) Before(want Bond) map[string]Before {
	before := map[string]Before{}
	for _, m := range s.Members {
		if slices.Contains(want.Members, m.Name) && !m.Enslaved {
			before[m.Name] = Before{m.Up, m.Own}
		}
	}
	return before
}

// Missing are the members that are not on this host.
func (s BondState) Missing(want Bond) []string {
	return slices.DeleteFunc(slices.Clone(want.Members), func(name string) bool { return s.member(name) != nil })
}

func (s BondState) member(name string) *Member {
	k := slices.IndexFunc(s.Members, func(m Member) bool { return m.Name == name })
	if k < 0 {
		return nil
	}
	return &s.Members[k]
}

// DiffBond is the plan that takes the host from have to the bond that is wanted.
// Members that are not there are left out: a bond does with those it has. A device
// leaves the bond only if it is in before, which says how it was.
func DiffBond(want Bond, before map[string]Before, have BondState) (Plan, error) {
	d := bondDiffer{want: want, have: have, before: before}
	there := have.Device != nil && !have.Idle
	if there && !have.Device.isOurBond() {
		return nil, refuse("use it as it is, with --port "+want.Name+", or choose another name",
			"%s is there already, and is not vsrun's", want.Name)
	}
	for _, name := range want.Members {
		if m := have.member(name); m != nil && !m.Enslaved {
			if err := m.check(); err != nil {
				return nil, err
			}
		}
	}
	if !there {
		d.make()
	} else {
		d.change()
	}
	d.enslave()
	d.finish(there)
	return d.plan, nil
}

// isOurBond: VLAN devices of ours have our group, too.
func (p Port) isOurBond() bool { return p.Ours && p.Kind == "bond" }

// check refuses a member that is in use: what it does would end.
func (m Member) check() error {
	switch {
	case m.Loopback || m.Kind == "bond" || m.Kind == string(Macvlan):
		return refuse("choose a device that leads to a network", "%s cannot be a member of a bond", m.Name)
	case m.Master != "":
		return refuse("take it out first: ip link set "+quote(m.Name)+" nomaster", "%s is a member of %s", m.Name, m.Master)
	case m.InUse:
		return refuse("see what sits on it: vsrun ls -o wide; ip -d link; bridge fdb show dev "+quote(m.Name),
			"%s is in use: interfaces sit on it", m.Name)
	case m.Routed != nil:
		return refuse("delete it first: ip route delete "+m.Routed.words(), "%s is in use, by the route %s", m.Name, m.Routed)
	}
	return nil
}

// A bondDiffer builds one plan.
type bondDiffer struct {
	want   Bond
	before map[string]Before
	have   BondState
	remake bool // the bond is to be down, without members, and up again
	plan   Plan
}

func (d *bondDiffer) add(s Step) { d.plan = append(d.plan, s) }

func (d *bondDiffer) make() {
	if d.have.Idle {
		d.add(delDevice{"bond", d.want.Name})
	}
	settings := d.want.settings()
	settings = slices.DeleteFunc(settings, func(s setting) bool { return s.name == "primary" })
	d.add(addBond{d.want.Name, settings})
	d.have.Device = &Port{Name: d.want.Name, Kind: "bond", MTU: 1500, Ours: true}
	d.have.Options = map[string]string{}
	for _, s := range settings {
		d.have.Options[s.name] = s.value
	}
	mtu := d.want.MTU
	for _, m := range d.have.Members {
		if mtu == 0 || d.want.MTU == 0 && m.MTU < mtu {
			mtu = m.MTU
		}
	}
	d.want.MTU = mtu
}

// change sets what differs, some of which takes a bond without members.
func (d *bondDiffer) change() {
	var set, was []setting
	for _, s := range d.want.settings() {
		if s.name == "primary" || d.have.Options[s.name] == s.value && !d.scaled(s) {
			continue
		}
		set = append(set, s)
		if d.have.Options["miimon"] != "0" || !isDelay(s.name) { // delays of nothing are refused
			was = append(was, setting{s.name, d.have.Options[s.name]})
		}
		d.remake = d.remake || optionNamed(s.name).idle
	}
	if len(set) == 0 {
		return
	}
	if d.remake {
		for _, m := range slices.Backward(d.have.Members) {
			if m.Enslaved {
				d.add(setMaster{m.Name, "", d.want.Name})
			}
		}
		if d.have.Device.Up {
			d.add(downLink{d.want.Name, upLink{dev: d.want.Name}})
		}
	}
	d.add(setBond{d.want.Name, set, was})
}

// scaled tells whether another miimon makes it something else: the kernel keeps the
// delays as multiples of it, and shows 0 while there is none (bond_option_miimon_set).
func (d *bondDiffer) scaled(s setting) bool {
	have := d.have.Options["miimon"]
	return isDelay(s.name) && have != strconv.Itoa(d.want.miimon()) && (s.value != "0" || have == "0")
}

func isDelay(option string) bool { return option == "updelay" || option == "downdelay" }

// enslave adds the members that are missing. A member has no addresses of its own,
// and is down when it becomes one.
func (d *bondDiffer) enslave() {
	if mtu := d.want.MTU; mtu != 0 && mtu != d.have.Device.MTU {
		d.add(setMTU{d.want.Name, mtu, d.have.Device.MTU})
	}
	for _, m := range d.order() {
		if m.Enslaved {
			if d.remake && !d.leaves(m) {
				d.add(setMaster{m.Name, d.want.Name, ""})
			}
			continue
		}
		for _, a := range slices.Backward(m.Own) {
			d.add(delOwnAddress{m.Name, a})
		}
		if m.Up {
			d.add(downLink{m.Name, upLink{dev: m.Name}})
		}
		d.add(setMaster{m.Name, d.want.Name, ""})
	}
}

// leaves tells whether a member is to be given back, or has been in part.
func (d *bondDiffer) leaves(m Member) bool {
	_, ours := d.before[m.Name]
	return ours && !slices.Contains(d.want.Members, m.Name)
}

// giveBack comes after the new members are in, so that the bond is never without.
func (d *bondDiffer) giveBack() {
	for _, m := range slices.Backward(d.have.Members) {
		if d.leaves(m) {
			d.plan = append(d.plan, m.release(d.want.Name, d.before[m.Name], !d.remake)...)
		}
	}
}

// mac is the MAC that the bond is to have; zero: the one it has. A member that is
// given back takes its own along.
func (d *bondDiffer) mac() MAC {
	mac, taken := d.want.MAC, false
	for _, m := range d.have.Members {
		taken = taken || d.leaves(m) && m.MAC == d.have.MAC
	}
	for _, name := range slices.Backward(d.want.Members) {
		if m := d.have.member(name); m != nil && taken && d.want.MAC.IsZero() {
			mac = m.MAC
		}
	}
	return mac
}

// order is the members as they are wanted, then those of the operator's.
func (d *bondDiffer) order() []Member {
	var list []Member
	for _, name := range d.want.Members {
		if m := d.have.member(name); m != nil {
			list = append(list, *m)
		}
	}
	for _, m := range d.have.Members {
		if m.Enslaved && !slices.Contains(d.want.Members, m.Name) {
			list = append(list, m)
		}
	}
	return list
}

func (d *bondDiffer) finish(there bool) {
	name := d.want.Name
	if p := d.want.Primary; p != d.have.Options["primary"] && slices.Contains(primaryModes, d.want.Mode) && (p == "" || d.have.member(p) != nil) {
		d.add(setBond{name, []setting{{"primary", p}}, []setting{{"primary", d.have.Options["primary"]}}})
	}
	if mac := d.mac(); !mac.IsZero() && (mac != d.have.MAC || d.remake) {
		d.add(setMAC{name, mac, d.have.MAC})
	}
	d.giveBack()
	if !d.have.Device.Up || d.remake {
		d.add(upLink{dev: name})
	}
	if !there || d.have.Device.Alias != portMark {
		d.add(markLink{name, portMark, d.have.Device.Alias})
	}
}

// portMark is the alias of the ports that we made; whose they are is decided by
// their group.
const portMark = "vsrun:port"

// RemoveBond is the plan that takes a bond of ours away and gives its members
// back as they were.
func RemoveBond(name string, before map[string]Before, have BondState) (Plan, error) {
	there := have.Device != nil && !have.Idle
	switch {
	case !there:
	case !have.Device.isOurBond():
		return nil, refuse("rename it, and try again: ip link set "+quote(name)+" name NEW", "%s is not vsrun's: it is left alone", name)
	case have.InUse:
		return nil, refuse("see what sits on it: vsrun ls -o wide; ip -d link show", "%s is in use: interfaces sit on it", name)
	}
	var plan Plan
	for _, m := range slices.Backward(have.Members) {
		plan = append(plan, m.release(name, before[m.Name], true)...)
	}
	if there {
		plan = append(plan, delDevice{"bond", name})
	}
	return plan, nil
}

// release gives a member back as it was, if it is still in: the kernel gives it
// its MAC and MTU back, and leaves it down. A crash may have left it half-way, or
// somebody have taken it out.
func (m Member) release(bond string, was Before, in bool) Plan {
	var plan Plan
	switch {
	case m.Enslaved:
		if in {
			plan = Plan{setMaster{m.Name, "", bond}}
		}
		m.Up, m.Own = false, nil
	case m.Master != "": // another's by now
		return nil
	}
	if was.Up && !m.Up {
		plan = append(plan, upLink{dev: m.Name})
	}
	for _, a := range was.Addresses {
		if !slices.Contains(m.Own, a) {
			plan = append(plan, addOwnAddress{m.Name, a})
		}
	}
	return plan
}

// optionWords joins settings for iproute2.
func optionWords(settings []setting) string {
	var list []string
	for _, s := range settings {
		list = append(list, s.String())
	}
	return strings.Join(list, " ")
}
