package plumbing

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A Kind is how an interface sits on its port; empty means macvlan.
type Kind string

// The kinds of interface.
const (
	Macvlan Kind = "macvlan"
	Vlan    Kind = "vlan"   // the VLAN device itself, which nobody else has then
	Device  Kind = "device" // the port itself, whatever it is, moved in
)

// A Mode is whom of those on the same port, or VLAN of it, an interface reaches; empty means
// the first of its kind.
type Mode string

// The modes of macvlans.
const (
	Bridge   Mode = "bridge"   // all that are in bridge mode, without the wire
	Private  Mode = "private"  // none, not even by way of a switch that sends back
	VEPA     Mode = "vepa"     // what the switch sends back (802.1Qbg)
	Source   Mode = "source"   // who has one of the MACs that it is told
	Passthru Mode = "passthru" // it is alone on the port, and has its MAC
)

// A trait is all that there is to know of the interfaces of one kind and mode.
type trait struct {
	kind Kind
	mode Mode
	code uint32 // the kernel's number for the mode
	// beside says who may be on the same port, or VLAN of it: others with the same word; with
	// none, nobody. The kernel has one receiver for each device (rx_handler).
	beside  string
	portMAC bool // it has the MAC of what it sits on
	ending  ending
}

// An ending is how a link is taken from a namespace that goes. On return its MAC is free.
type ending int

const (
	// goesDown is for what is off its port when it is down, and ends with the namespace; to
	// delete it as well would take twice as long.
	goesDown ending = iota
	goesDeleted
	goesBack // to the host
)

// traits has the first of a kind as what it is without a mode.
var traits = []trait{
	{kind: Macvlan, mode: Bridge, code: 4, beside: "macvlan"},
	{kind: Macvlan, mode: Private, code: 1, beside: "macvlan"},
	{kind: Macvlan, mode: VEPA, code: 2, beside: "macvlan"},
	{kind: Macvlan, mode: Source, code: 16, beside: "macvlan"},
	// Only its deletion gives the port to others (macvlan_common_newlink).
	{kind: Macvlan, mode: Passthru, code: 8, portMAC: true, ending: goesDeleted},
	{kind: Vlan, ending: goesDeleted},
	{kind: Device, portMAC: true, ending: goesBack},
}

// trait is the interface's; it is the zero trait for what Validate refuses.
func (i Interface) trait() trait {
	t, _ := traitOf(i.Kind, i.Mode)
	return t
}

func traitOf(k Kind, m Mode) (t trait, known bool) {
	at := slices.IndexFunc(traits, func(t trait) bool {
		return t.kind == cmp.Or(k, Macvlan) && (m == "" || m == t.mode)
	})
	if at < 0 {
		return t, false
	}
	return traits[at], true
}

// ending is how a link leaves. One of no kind of ours ends with the namespace.
func (l Link) ending() (how ending, ours bool) {
	t, known := traitOf(l.Kind, l.Mode)
	return t.ending, known && l.Kind != ""
}

// leaves is the step by which it does, if one is needed.
func (l Link) leaves() (Step, bool) {
	switch how, ours := l.ending(); {
	case !ours:
		return nil, false
	case how == goesDeleted:
		return delLink{dev: l.Name}, true
	case how == goesBack:
		return moveBack{l.Name, l.Alias, l.origin, l.MAC}, true
	}
	return silence{l.Name}, true
}

// receivesAll reports whether what comes for the host there goes to it, too: it shares what it
// sits on with nobody (macvlan_handle_frame). A VLAN gets its own frames alone.
func (t trait) receivesAll() bool { return t.kind == Macvlan && t.beside == "" }

// String names it: macvlan in mode bridge.
func (t trait) String() string {
	if t.mode == "" {
		return string(t.kind)
	}
	return fmt.Sprintf("%s in mode %s", t.kind, t.mode)
}

// Canonical is the interface without what is said by default, too.
func (i Interface) Canonical() Interface {
	first, _ := traitOf(i.Kind, "")
	if i.Mode == first.mode {
		i.Mode = ""
	}
	if i.Kind == Macvlan {
		i.Kind = ""
	}
	return i
}

// HasOwnMAC reports whether it has a MAC that is not that of what it sits on.
func (i Interface) HasOwnMAC() bool { return !i.trait().portMAC }

// validateKind refuses what does not go with the kind and its mode.
func (i Interface) validateKind(p problems) {
	if _, known := traitOf(i.Kind, ""); !known {
		p.in("kind").add("kind %q is unknown: it is %s", i.Kind, listed(kinds()))
		return
	}
	t, known := traitOf(i.Kind, i.Mode)
	switch modes := modesOf(i.Kind); {
	case known:
	case len(modes) == 0:
		p.in("mode").add("interface %s is of kind %s, which has no modes", i.Name, i.Kind)
	default:
		p.in("mode").add("mode %q is unknown: it is %s", i.Mode, listed(modes))
	}
	if t.kind == Vlan && len(i.VLAN) == 0 {
		p.in("vlan").add("interface %s is of kind vlan and has no vlan", i.Name)
	}
	if t.kind == Device && len(i.VLAN) > 0 {
		p.in("vlan").check(refuse("give it kind vlan, or name a VLAN device as its port", "interface %s is a whole device, and none of its VLANs", i.Name))
	}
	if t.portMAC && t.kind != Device && !i.MAC.IsZero() {
		p.in("mac").check(refuse("leave the MAC out", "interface %s is a %s, which has the MAC of what it sits on", i.Name, t))
	}
	switch {
	case t.mode == Source && len(i.Sources) == 0:
		p.in("sources").check(refuse("name the MACs that it is to receive from", "interface %s is a %s and has no sources", i.Name, t))
	case t.mode != Source && len(i.Sources) > 0:
		p.in("sources").check(refuse("give it mode source", "interface %s has sources, and is a %s", i.Name, t))
	}
	if len(i.Sources) > maxSources {
		p.in("sources").add("interface %s has %d sources: at most %d", i.Name, len(i.Sources), maxSources)
		return
	}
	for k, m := range i.Sources {
		if slices.Contains(i.Sources[:k], m) {
			p.item("sources", k).add("MAC %s is there twice", m)
		}
	}
}

// maxSources is far less than what fits in one attribute: 5,400.
const maxSources = 1024

func kinds() (list []string) {
	for _, t := range traits {
		if !slices.Contains(list, string(t.kind)) {
			list = append(list, string(t.kind))
		}
	}
	return list
}

func modesOf(k Kind) (list []string) {
	for _, t := range traits {
		if t.kind == cmp.Or(k, Macvlan) && t.mode != "" {
			list = append(list, string(t.mode))
		}
	}
	return list
}

// listed are words with a comma between them, and "or" before the last.
func listed(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// A Claim is something of the host's that an interface needs.
type Claim struct {
	Key   string // the same for all who need the thing
	Words string
	As    string // what others are who may have it beside this one; "" for nobody
}

// Meets reports whether both can have what they need.
func (c Claim) Meets(other Claim) bool {
	return c.Key != other.Key || c.As != "" && c.As == other.As
}

// Claims are what others may want as well: VLAN devices, and to receive on what it sits on.
func (i Interface) Claims() []Claim {
	var list []Claim
	alone := i.On() + ", which cannot be shared (kind vlan)"
	if i.Kind == Vlan && len(i.VLAN) > 0 {
		list = append(list, Claim{Key: "vlan " + i.Segment(), Words: alone})
	}
	for _, l := range i.lowers() {
		list = append(list, Claim{"vlan " + l.path, alone, "lower"})
	}
	part := Claim{"port " + i.Port, "port " + i.Port + ", which cannot be shared (kind device)", "part"}
	if i.Kind == Device {
		part.As = ""
	}
	list = append(list, part)
	if t := i.trait(); t.kind == Macvlan {
		words := fmt.Sprintf("%s, in another way than %s", i.On(), t)
		if t.beside == "" {
			words = fmt.Sprintf("%s, which a %s shares with nobody", i.On(), t)
		}
		list = append(list, Claim{"on " + i.Segment(), words, t.beside})
	}
	return list
}

// Excludes reports whether both need what only one of them can have.
func (i Interface) Excludes(other Interface) bool {
	_, excluded := i.excludedBy(other)
	return excluded
}

func (i Interface) excludedBy(other Interface) (Claim, bool) {
	for _, c := range i.Claims() {
		if slices.ContainsFunc(other.Claims(), func(o Claim) bool { return !c.Meets(o) }) {
			return c, true
		}
	}
	return Claim{}, false
}

// A form is what a link is made as, and stays.
type form struct {
	Kind Kind
	Mode Mode // "" where the kind has none
	tag       // of a VLAN
}

func (i Interface) form() form {
	t := i.trait()
	return form{t.kind, t.mode, i.innermost()}
}

// words are iproute2's for a link of that form.
func (f form) words(sources []MAC) string {
	if f.Kind == Vlan {
		return "type vlan " + f.tag.words() + " loose_binding on"
	}
	words := fmt.Sprintf("type %s mode %s", f.Kind, f.Mode)
	if len(sources) > 0 {
		words += " macaddr set"
		for _, m := range sources {
			words += " " + m.String()
		}
	}
	return words
}

// put appends the kernel's word for the kind, and its attributes.
func (f form) put(m *message, sources []MAC) {
	if f.Kind == Vlan {
		m.putInfo(string(Vlan), f.tag.put)
		return
	}
	t, _ := traitOf(f.Kind, f.Mode)
	m.putInfo(string(f.Kind), func(m *message) {
		m.putUint32(macvlanMode, t.code)
		if len(sources) > 0 {
			m.putSources(sources)
		}
	})
}

// putSources sets the list of a macvlan, as a whole.
func (m *message) putSources(sources []MAC) {
	m.put(macvlanMACMode, binary.NativeEndian.AppendUint32(nil, macvlanMACSet))
	m.nest(macvlanMACData, func(m *message) {
		for _, mac := range sources {
			m.put(macvlanMAC, mac[:])
		}
	})
}

// linkSources changes the list of a macvlan.
func linkSources(index int, sources []MAC) message {
	m := ifinfomsg(unix.RTM_NEWLINK, 0, index, 0, 0)
	m.putInfo(string(Macvlan), func(m *message) { m.putSources(sources) })
	return m
}

// include/uapi/linux/if_link.h: IFLA_MACVLAN_….
const (
	macvlanMode    = 1
	macvlanMACMode = 3 // MACADDR_MODE
	macvlanMAC     = 4 // MACADDR
	macvlanMACData = 5 // MACADDR_DATA
	macvlanMACSet  = 3 // MACVLAN_MACADDR_SET
)

// inheriting is the network with the MACs that are those of what the interfaces sit on.
func (n Network) inheriting(have State) Network {
	n.Interfaces = slices.Clone(n.Interfaces)
	for k := range n.Interfaces {
		i := &n.Interfaces[k]
		if i.HasOwnMAC() || !i.MAC.IsZero() {
			continue
		}
		port := have.Ports[i.base()]
		l, there := have.Link(i.Name)
		switch {
		case i.Kind == Device && there:
			i.MAC = l.origin.mac
		case i.Kind == Device:
			i.MAC = port.asOrigin().mac
		case there && port.Name == "": // it has been renamed
			i.MAC = l.MAC
		default:
			i.MAC = port.MAC
		}
	}
	return n
}

// sources are sorted: their order says nothing.
func (i Interface) sources() []MAC {
	list := slices.Clone(i.Sources)
	sortMACs(list)
	return list
}
