package plumbing

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A VLAN of a port: one identifier (IEEE 802.1Q), or two with the outer one
// first (802.1ad, "QinQ"). The empty VLAN is the port itself, untagged.
type VLAN []int

// Identifiers are 12 bits; 0 and 4095 are reserved (IEEE 802.1Q, 9.6).
const maxVLAN = 4094

// maxTags is how many tags a VLAN may have.
const maxTags = 2

// ParseVLAN reads 10, or 100.10.
func ParseVLAN(s string) (VLAN, error) {
	var v VLAN
	for word := range strings.SplitSeq(s, ".") {
		id, err := strconv.ParseUint(word, 10, 31) // takes no sign
		if err != nil {
			return nil, fmt.Errorf("%q is not a VLAN such as 10, or 100.10 for one inside another", s)
		}
		v = append(v, int(id))
	}
	return v, v.check()
}

func (v VLAN) check() error {
	if len(v) > maxTags {
		return fmt.Errorf("vlan %s has %d tags: at most %d", v, len(v), maxTags)
	}
	for _, id := range v {
		if id < 1 || id > maxVLAN {
			return fmt.Errorf("vlan %d is out of range: 1 to %d", id, maxVLAN)
		}
	}
	return nil
}

func (v VLAN) String() string {
	words := make([]string, len(v))
	for k, id := range v {
		words[k] = strconv.Itoa(id)
	}
	return strings.Join(words, ".")
}

// MarshalJSON writes a number, a list where there are several, null for none.
func (v VLAN) MarshalJSON() ([]byte, error) {
	switch len(v) {
	case 0:
		return []byte("null"), nil
	case 1:
		return json.Marshal(v[0])
	}
	return json.Marshal([]int(v))
}

// UnmarshalJSON reads what MarshalJSON writes.
func (v *VLAN) UnmarshalJSON(b []byte) error {
	return v.read(func(to any) error { return json.Unmarshal(b, to) })
}

// UnmarshalYAML reads the same in a document.
func (v *VLAN) UnmarshalYAML(read func(any) error) error { return v.read(read) }

func (v *VLAN) read(into func(any) error) error {
	var id *int
	if into(&id) == nil {
		*v = nil
		if id != nil {
			*v = VLAN{*id}
		}
		return nil
	}
	var ids []int
	if into(&ids) != nil {
		return errors.New("a VLAN is a number, or a list of two: the outer and the inner")
	}
	*v = ids
	return nil
}

// A tag is what one VLAN device adds to a frame.
type tag struct {
	id       int
	protocol uint16 // ETH_P_8021Q or ETH_P_8021AD
}

// String names it in messages: 10, or 100 (802.1ad).
func (t tag) String() string {
	if t.protocol == unix.ETH_P_8021AD {
		return fmt.Sprintf("%d (802.1ad)", t.id)
	}
	return strconv.Itoa(t.id)
}

// words are iproute2's.
func (t tag) words() string {
	if t.protocol == unix.ETH_P_8021AD {
		return fmt.Sprintf("protocol 802.1ad id %d", t.id)
	}
	return fmt.Sprintf("protocol 802.1Q id %d", t.id)
}

// tags are a VLAN's, the outermost first: a service tag around a customer tag.
func (v VLAN) tags() []tag {
	var tags []tag
	for k, id := range v {
		t := tag{id, unix.ETH_P_8021Q}
		if k < len(v)-1 {
			t.protocol = unix.ETH_P_8021AD
		}
		tags = append(tags, t)
	}
	return tags
}

// A lower is a VLAN device of the host's, which interfaces sit on. It is known by
// what it does, never by its name.
type lower struct {
	tag
	path string // its key in State.Ports: eth1/10, and eth1/ad100/10 on eth1/ad100
	on   string // that of the device below it
}

// lowers are the VLAN devices for a VLAN of a port, the outermost first.
func lowers(port string, v VLAN) []lower {
	var list []lower
	on := port
	for _, t := range v.tags() {
		path := on + "/" + strconv.Itoa(t.id)
		if t.protocol == unix.ETH_P_8021AD {
			path = on + "/ad" + strconv.Itoa(t.id)
		}
		list = append(list, lower{t, path, on})
		on = path
	}
	return list
}

// lowers are the host's VLAN devices that the interface needs: one of kind vlan
// is itself the innermost.
func (i Interface) lowers() []lower {
	all := lowers(i.Port, i.VLAN)
	if i.Kind == Vlan && len(all) > 0 {
		return all[:len(all)-1]
	}
	return all
}

// base is the path of the host's device that the interface sits on.
func (i Interface) base() string {
	if all := i.lowers(); len(all) > 0 {
		return all[len(all)-1].path
	}
	return i.Port
}

// Segment names the Ethernet that the interface is on: its port, or the VLAN of
// it. Two interfaces with one Segment are neighbours.
func (i Interface) Segment() string {
	if all := lowers(i.Port, i.VLAN); len(all) > 0 {
		return all[len(all)-1].path
	}
	return i.Port
}

// On says in words what the interface is on: port eth1, vlan 10 of port eth1.
func (i Interface) On() string {
	if len(i.VLAN) == 0 {
		return "port " + i.Port
	}
	return fmt.Sprintf("vlan %s of port %s", i.VLAN, i.Port)
}

// UsesVLAN reports whether the network needs VLAN devices on the host.
func (n Network) UsesVLAN() bool {
	return slices.ContainsFunc(n.Interfaces, func(i Interface) bool { return len(i.lowers()) > 0 })
}

// innermost is the tag of an interface of kind vlan; the zero tag for others.
func (i Interface) innermost() tag {
	if tags := i.VLAN.tags(); i.Kind == Vlan && len(tags) > 0 {
		return tags[len(tags)-1]
	}
	return tag{}
}

// vlanName is a name for a VLAN device on the host that is not taken: vsvlan10,
// or vsvlan10-2 where another port has a VLAN 10. It only has to be free, for
// nobody finds a device by it. The longest, vsvlan4094-9999, has the 15 bytes that
// the kernel allows.
func vlanName(id int, taken func(string) bool) string {
	return freeName(fmt.Sprintf("vsvlan%d", id), taken)
}

func freeName(base string, taken func(string) bool) string {
	name := base
	for k := 2; taken(name); k++ {
		name = fmt.Sprintf("%s-%d", base, k)
	}
	return name
}

// altname is the second name of a VLAN device on the host, which says all of it:
// vsrun-eth1.10, vsrun-eth1.ad100.10. At most 33 of the kernel's 127 bytes
// (ALTIFNAMSIZ).
func (l lower) altname() string { return "vsrun-" + strings.ReplaceAll(l.path, "/", ".") }

// vlanMark is the alias of the host's VLAN devices of ours. Whose they are is
// decided by their group, which they have from the first moment on.
const vlanMark = "vsrun:vlan"

// deviceGroup marks the host's devices of ours (IFLA_GROUP): `ip link show group
// 118` lists them. It is our routes' number, too.
const deviceGroup = routeProtocol

// withVLANs is have as it will be when the VLAN devices that want needs are there,
// and the steps to it.
func withVLANs(want Network, have State) (State, Plan) {
	var plan Plan
	ports := maps.Clone(have.Ports)
	have.Ports = ports
	for _, i := range want.Interfaces {
		for _, l := range i.lowers() {
			on, ok := ports[l.on]
			if !ok {
				break
			}
			var steps Plan
			ports[l.path], steps = have.vlan(l, on)
			plan = append(plan, steps...)
		}
	}
	return have, plan
}

// vlan is one VLAN device as it will be, and the steps to it. The operator's own
// are taken as they are.
func (s State) vlan(l lower, on Port) (Port, Plan) {
	v, there := s.Ports[l.path]
	if there && !v.Ours {
		return v, nil
	}
	var plan Plan
	add := func(s Step) { plan = append(plan, onHost{s}) }
	if !there {
		v = Port{Name: vlanName(l.id, s.taken), Kind: string(Vlan), MAC: on.MAC, MTU: on.MTU, Ours: true}
		add(addVLAN{l, v.Name, on.Name})
	}
	if v.MTU < on.MTU { // the kernel makes it smaller with what it is on, never larger
		add(raiseMTU{setMTU{v.Name, on.MTU, v.MTU}})
		v.MTU = on.MTU
	}
	if v.Alias != vlanMark {
		add(addAltname{v.Name, l.altname()})
	}
	if v.Alias != vlanMark || v.Loud {
		add(setSysctls{set: quietSysctls(v.Name, s.Features)})
	}
	if !v.Up || v.Loud {
		add(upVLAN{v.Name})
		v.Up, v.Loud = true, false
	}
	if v.Alias != vlanMark { // last: what has it is complete
		add(markVLAN{markLink{v.Name, vlanMark, v.Alias}})
		v.Alias = vlanMark
	}
	return v, plan
}

// operators is the device that sets the limits of what the interface sits on: those of
// ours follow it.
func (s State) operators(i Interface) Port {
	for _, l := range slices.Backward(i.lowers()) {
		if v := s.Ports[l.path]; !v.Ours {
			return v
		}
	}
	return s.Ports[i.Port]
}

// taken reports whether a device of the host has that name, or will have it.
func (s State) taken(name string) bool {
	if slices.Contains(s.HostNames, name) {
		return true
	}
	for _, p := range s.Ports {
		if p.Name == name {
			return true
		}
	}
	return false
}

// quietSysctls keep the host from having an address on a VLAN that is others',
// and from taking what comes in for it.
func quietSysctls(dev string, f Features) []sysctl {
	list := []sysctl{{"net.ipv4.conf." + dev + ".rp_filter", "1"}}
	if f.IPv6 {
		list = append(list, sysctl{"net.ipv6.conf." + dev + ".disable_ipv6", "1"})
	}
	return list
}
