package plumbing

import (
	"net/netip"
	"strings"
)

// A State is what the kernel holds, read by [Handle.Observe]. It is never
// stored.
type State struct {
	Namespace Presence
	Holder    int              // a process that is in the namespace where somebody has taken its name away, else 0
	Ports     map[string]Port  // the ports asked about that are there, and their VLANs, by path
	HostLinks []string         // devices of the host that can be ports, read only when a port or VLAN is missing
	Marked    []Port           // the host's devices that bear a mark of ours, read only where one is wanted
	HostNames []string         // all names on the host, read only then
	HostIndex map[int]HostLink // by index, read only then
	Links     []Link           // inside, loopback included
	Addresses []Address        // the permanent ones, on our links, in the kernel's order
	Passing   []Address        // IPv4 ones with a lifetime, likewise
	Routes    []Route          // those with our protocol
	Routers   []Route          // default routes that routers have given
	Rules     []Rule           // likewise
	LostRules []Rule           // the kernel's own that somebody has deleted
	Sysctls   map[string]string
	Features  Features

	foreign []Foreigner // routes and rules that somebody has added by hand
}

// Presence says whether a namespace is there, and whose it is.
type Presence int

// The three answers. Ours carries our mark on its loopback.
const (
	Absent Presence = iota
	Ours
	Foreign
)

// Features are what this kernel has, of what it may lack.
type Features struct {
	IPv6          bool
	OptimisticDAD bool // CONFIG_IPV6_OPTIMISTIC_DAD
	LiveRename    bool // of links that are up (Linux 6.2)
}

// A Port is a device of the host that interfaces sit on, or a VLAN of one.
type Port struct {
	Name       string
	Index      int // 0: it is yet to be made
	MAC        MAC
	MTU        int // bytes
	Up         bool
	Loopback   bool
	NoEthernet bool // but a tunnel of IP packets, or the like
	Ours       bool // we made it
	Loud       bool // ours, and the host has ARP, IPv6 or the like on it
	Alias      string
	origin                  // before it was given away
	Users      []string     // what sits on it, read only of a device that is to be given away
	Kind       string       // "device" for a NIC
	Addresses  []netip.Addr // the host's own
	Master     string       // the device it is a member of, if any
	MasterKind string       // bond, bridge, …
}

// A Link is a device inside the namespace.
type Link struct {
	Name  string
	Index int
	form
	origin        // of a device of the host's
	Sources []MAC // whom it receives from, sorted
	Parent  int   // index of what it sits on in the host's namespace, 0: on nothing there
	MAC     MAC
	MTU     int
	Up      bool
	RA      bool // it heeds router advertisements
	Defrtr  bool // and has such a router as its default gateway
	Alias   string

	pretends bool // its alias says that it is a device of the host's, which it is not
}

// An Address is one on a link of ours.
type Address struct {
	Dev       string
	Prefix    netip.Prefix
	Foreign   bool // somebody else has added it
	Secondary bool // of an IPv4 subnet that has an earlier one
	Duplicate bool // the kernel has found another holder (IFA_F_DADFAILED): not usable
}

// Link returns the link with that name.
func (s State) Link(name string) (Link, bool) {
	for _, l := range s.Links {
		if l.Name == name {
			return l, true
		}
	}
	return Link{}, false
}

// A HostLink is what a device of the host is called, and the index of what it sits on.
type HostLink struct {
	Name   string
	Parent int
}

// Renamed is what the port of an interface is called now, where it has another name: the
// interface goes on. Otherwise it is "".
func (s State) Renamed(i Interface) string {
	l, there := s.Link(i.Name)
	if _, named := s.Ports[i.Port]; named || !there || i.Kind == Device {
		return ""
	}
	below := s.HostIndex[l.Parent]
	for range i.lowers() {
		below = s.HostIndex[below.Parent]
	}
	return below.Name
}

// Below is the host's device that an interface sits on, if it is there: a port, or
// the VLAN of one.
func (s State) Below(i Interface) (Port, bool) {
	p, ok := s.Ports[i.base()]
	return p, ok
}

// A Place is where a namespace is published: Dir/Name.
type Place struct {
	Dir  string // /run/netns, where iproute2 looks
	Name string // vs8; also the owner's mark on what is made inside
}

// Path is the file that the namespace is mounted on.
func (p Place) Path() string { return p.Dir + "/" + p.Name }

// has reports whether a link is ours by its mark, whatever somebody has renamed it to.
func (p Place) has(l Link) bool { return strings.HasPrefix(l.Alias, p.mark("")+"/") && !l.pretends }

// mark is the alias (IFLA_IFALIAS) that says whose a device is; without a
// device's name, the namespace's own mark, on its loopback.
func (p Place) mark(dev string) string {
	if dev == "" {
		return "vsrun:" + p.Name
	}
	return "vsrun:" + p.Name + "/" + dev
}
