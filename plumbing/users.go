package plumbing

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
)

// Leftover is the plan that deletes the host's VLAN devices of ours that nobody
// uses: nothing sits on one, no bridge has it, no address is on it. Links that
// are leaving the namespace do not count, and what coming needs stays. While it is
// made and applied, nobody may put anything on them.
func (h *Handle) Leftover(leaving []Link, coming Network) (Plan, error) {
	links, err := h.host.devices()
	if err != nil {
		return nil, err
	}
	ours := ourVLANs(links)
	if len(ours) == 0 {
		return nil, nil
	}
	used, err := h.usedOnHost(links, leaving)
	if err == nil {
		err = h.usedBy(used, coming)
	}
	if err == nil && slices.ContainsFunc(ours, func(v device) bool { return !used[v.index] }) {
		err = h.usedElsewhere(used, leaving)
	}
	var plan Plan
	for _, v := range ours {
		if used[v.index] {
			used[v.Parent] = true
			continue
		}
		plan = append(plan, onHost{delDevice{"vlan", v.Name}})
	}
	return plan, err
}

// ourVLANs are the host's VLAN devices of ours, one inside another first: it is
// the younger.
func ourVLANs(links []device) []device {
	ours := slices.DeleteFunc(slices.Clone(links), func(d device) bool { return !d.isOurVLAN() })
	slices.SortFunc(ours, func(a, b device) int { return b.index - a.index })
	return ours
}

// usedOnHost are the indexes of devices that something on the host needs, VLANs of
// ours aside, or that take in frames for somebody's MAC, wherever that one is.
func (h *Handle) usedOnHost(links []device, leaving []Link) (map[int]bool, error) {
	used, err := h.satOn(leaving)
	if err != nil {
		return nil, err
	}
	for _, d := range links {
		if !d.isOurVLAN() {
			used[d.sitsOn()] = true
		}
		if d.Master != 0 {
			used[d.index] = true
		}
	}
	err = h.host.all(dump(unix.RTM_GETADDR, unix.AF_UNSPEC), func(b []byte) {
		a, scope, _, _ := decodeAddress(b, nil)
		if linkLocal := a.Prefix.Addr().Is6() && scope == unix.RT_SCOPE_LINK; a.Prefix.IsValid() && !linkLocal { // that nobody has put there
			used[int(binary.NativeEndian.Uint32(b[4:]))] = true
		}
	})
	return used, err
}

// satOn are the indexes of devices that take in frames for others than themselves:
// macvlans sit on them, wherever those are.
func (h *Handle) satOn(leaving []Link) (map[int]bool, error) {
	used := map[int]bool{}
	err := h.host.get(portMACs(0), func(entry []byte) {
		index, mac := decodePortMAC(entry)
		if mac[0]&1 == 0 && !slices.ContainsFunc(leaving, func(l Link) bool { return l.MAC == mac }) {
			used[index] = true
		}
	})
	return used, err
}

// usedBy adds what a network's interfaces sit on.
func (h *Handle) usedBy(used map[int]bool, n Network) error {
	have := State{Ports: map[string]Port{}}
	err := h.observeHost(&have, n)
	for _, i := range n.Interfaces {
		if below, ok := have.Below(i); ok {
			used[below.Index] = true
		}
	}
	return err
}

// usedElsewhere adds what links in published namespaces sit on: one that is down
// takes in nothing, and the host does not show it.
func (h *Handle) usedElsewhere(used map[int]bool, leaving []Link) error {
	here, err := nsutil.Current()
	if err != nil {
		return err
	}
	defer here.Close()
	places, err := published(h.place.Dir, ipDir)
	if err != nil {
		return err
	}
	for _, place := range places {
		ns, err := nsutil.Open(place.Path())
		if err != nil { // gone since, or no namespace
			continue
		}
		var links []device
		err = ns.Do(func() (err error) { links, err = linksOn(here); return err })
		if err = errors.Join(err, ns.Close()); err != nil {
			return err
		}
		for _, d := range links {
			leaves := place == h.place && slices.ContainsFunc(leaving, func(l Link) bool { return l.Index == d.index })
			if !leaves {
				used[d.Parent] = true
			}
		}
	}
	return nil
}

// published are the places in these directories.
func published(dirs ...string) ([]Place, error) {
	var places []Place
	for _, dir := range slices.Compact(dirs) {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			places = append(places, Place{dir, e.Name()})
		}
	}
	return places, nil
}

// linksOn are the links of the calling thread's namespace that sit on a device of
// another one: indexes below are that one's then.
func linksOn(other *nsutil.Namespace) ([]device, error) {
	inside, err := dialNetlink(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer inside.close()
	links, err := inside.devices()
	if err != nil {
		return nil, err
	}
	id := noID // the list has given it one, where one is needed
	err = inside.get(namespaceID(other.Fd()), func(b []byte) { id = decodeID(b) })
	return slices.DeleteFunc(links, func(d device) bool {
		return d.Kind == "veth" || d.elsewhere == noID || d.elsewhere != id
	}), err
}

// observeDevices finds what else there is to know of devices that are to be given away: who
// sits on them, and those that have been marked, whatever they are called by now.
func (s *State) observeDevices(host *hostDevices, want Network) error {
	if !want.UsesDevice() {
		return nil
	}
	links, err := host.all()
	if err != nil {
		return err
	}
	s.nameLinks(links)
	for _, d := range links {
		if p := d.port(); p.origin.name != "" {
			s.Marked = append(s.Marked, p)
		}
	}
	for path, p := range s.Ports {
		for _, d := range links {
			if d.sitsOn() == p.Index {
				p.Users = append(p.Users, d.Name)
			}
		}
		s.Ports[path] = p
	}
	return nil
}

// Returned is the plan for devices on the host that bear the mark of the handle's namespace,
// but those that keep says it gets.
func (h *Handle) Returned(keep Network) (Plan, error) {
	links, err := h.host.devices()
	if err != nil {
		return nil, err
	}
	var plan Plan
	for _, d := range links {
		p := d.port()
		dev, ours := strings.CutPrefix(p.Alias, h.place.mark("")+"/")
		i, wanted := keep.Interface(dev)
		if ours && p.origin.name != "" && !(wanted && i.Kind == Device && i.Port == p.origin.name) {
			plan = append(plan, onHost{restore{p.Name, p.origin, p.MAC}})
		}
	}
	return plan, nil
}

// MarkedNamespaces are the names of those whose mark devices of the host bear.
func MarkedNamespaces() ([]string, error) {
	host, err := dialNetlink(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer host.close()
	links, err := host.devices()
	var names []string
	for _, d := range links {
		if p := d.port(); p.origin.name != "" {
			name, _, _ := strings.Cut(strings.TrimPrefix(p.Alias, "vsrun:"), "/")
			names = append(names, name)
		}
	}
	return names, err
}
