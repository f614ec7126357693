package plumbing

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
)

// Leftover is the plan that deletes the host's VLAN devices of ours that nobody
// uses: nothing sits on one, no bridge has it, no address is on it. Links that
// are leaving the namespace do not count, and what coming needs stays. While it is
// made and applied, nobody may put anything on them.
func (h *Handle) Leftover(leaving []Link, coming Network) (Plan, error) {
	host, err := netlinksafe.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer host.Close()
	links, err := host.LinkList()
	if err != nil {
		return nil, err
	}
	ours := ourVLANs(links)
	if len(ours) == 0 {
		return nil, nil
	}
	used, err := h.usedOnHost(host, links, leaving)
	if err == nil {
		err = usedBy(used, coming)
	}
	if err == nil && slices.ContainsFunc(ours, func(v *netlink.Vlan) bool { return !used[v.Index] }) {
		err = h.usedElsewhere(used, leaving)
	}
	var plan Plan
	for _, v := range ours {
		if used[v.Index] {
			used[v.ParentIndex] = true
			continue
		}
		plan = append(plan, onHost{delDevice{"vlan", v.Name}})
	}
	return plan, err
}

// ourVLANs are the host's VLAN devices of ours, one inside another first: it is
// the younger.
func ourVLANs(links []netlink.Link) []*netlink.Vlan {
	var ours []*netlink.Vlan
	for _, l := range links {
		if v, ok := l.(*netlink.Vlan); ok && v.Group == deviceGroup {
			ours = append(ours, v)
		}
	}
	slices.SortFunc(ours, func(a, b *netlink.Vlan) int { return b.Index - a.Index })
	return ours
}

// usedOnHost are the indexes of devices that something on the host needs, VLANs of
// ours aside, or that take in frames for somebody's MAC, wherever that one is.
func (h *Handle) usedOnHost(host netlinksafe.Handle, links []netlink.Link, leaving []Link) (map[int]bool, error) {
	used, err := h.satOn(leaving)
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		a := l.Attrs()
		if v, ok := l.(*netlink.Vlan); !ok || v.Group != deviceGroup {
			used[sitsOn(l)] = true
		}
		if a.MasterIndex != 0 {
			used[a.Index] = true
		}
	}
	addrs, err := host.AddrList(nil, netlink.FAMILY_ALL)
	for _, a := range addrs {
		if !isLinkLocal(a) { // nobody has put that there
			used[a.LinkIndex] = true
		}
	}
	return used, err
}

// isLinkLocal tells IPv6 addresses that the kernel gives each device by itself.
func isLinkLocal(a netlink.Addr) bool {
	return len(a.IP) == net.IPv6len && a.Scope == unix.RT_SCOPE_LINK
}

// sitsOn is the index of the device below a link in its own namespace, 0 for none. A
// veth's is its peer's.
func sitsOn(l netlink.Link) int {
	if a := l.Attrs(); a.NetNsID < 0 && l.Type() != "veth" {
		return a.ParentIndex
	}
	return 0
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
func usedBy(used map[int]bool, n Network) error {
	have := State{Ports: map[string]Port{}}
	err := have.observeHost(n)
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
		var links []netlink.Link
		err = ns.Do(func() (err error) { links, err = linksOn(here); return err })
		if err = errors.Join(err, ns.Close()); err != nil {
			return err
		}
		for _, l := range links {
			a := l.Attrs()
			leaves := place == h.place && slices.ContainsFunc(leaving, func(l Link) bool { return l.Index == a.Index })
			if !leaves {
				used[a.ParentIndex] = true
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
func linksOn(other *nsutil.Namespace) ([]netlink.Link, error) {
	inside, err := netlinksafe.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	links, err := inside.LinkList()
	if err != nil {
		return nil, err
	}
	id, err := inside.GetNetNsIdByFd(other.Fd()) // the list has given it one, where one is needed
	return slices.DeleteFunc(links, func(l netlink.Link) bool {
		return l.Type() == "veth" || l.Attrs().NetNsID < 0 || l.Attrs().NetNsID != id
	}), err
}

// observeDevices finds what else there is to know of devices that are to be given away: who
// sits on them, and those that have been marked, whatever they are called by now.
func (s *State) observeDevices(host netlinksafe.Handle, want Network) error {
	if !want.UsesDevice() {
		return nil
	}
	links, err := host.LinkList()
	if err != nil {
		return err
	}
	s.nameLinks(links)
	for _, l := range links {
		if p := decodePort(l); p.origin.name != "" {
			s.Marked = append(s.Marked, p)
		}
	}
	for path, p := range s.Ports {
		for _, l := range links {
			if sitsOn(l) == p.Index {
				p.Users = append(p.Users, l.Attrs().Name)
			}
		}
		s.Ports[path] = p
	}
	return nil
}

// Returned is the plan for devices on the host that bear the mark of the handle's namespace,
// but those that keep says it gets.
func (h *Handle) Returned(keep Network) (Plan, error) {
	host, err := netlinksafe.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer host.Close()
	links, err := host.LinkList()
	if err != nil {
		return nil, err
	}
	var plan Plan
	for _, l := range links {
		p := decodePort(l)
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
	links, err := netlink.LinkList()
	var names []string
	for _, l := range links {
		if p := decodePort(l); p.origin.name != "" {
			name, _, _ := strings.Cut(strings.TrimPrefix(p.Alias, "vsrun:"), "/")
			names = append(names, name)
		}
	}
	return names, err
}
