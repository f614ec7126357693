package plumbing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
)

// What a link sits on cannot be changed. An interface that gets another port, or VLAN, is
// another link with the same MAC: the old one gets another name, and serves until the new one
// has everything. A crash leaves it under that name, and the next plan goes on from there.

// like reports whether the link is what the interface asks for, wherever it sits; one that is
// the port itself sits on none.
func (l Link) like(i Interface) bool {
	f := i.form()
	return f.Kind != Device && l.Kind == f.Kind && l.Mode == f.Mode && l.MAC == i.MAC && l.RA == i.RA
}

// moving reports whether another link is to take the place of this one.
func (d *differ) moving(l Link) bool {
	i, wanted := d.want.Interface(l.Name)
	return wanted && d.place.has(l) && l.like(i) && !l.fits(i, d.have.Ports[i.base()])
}

// leaving is the old link of an interface. One that is where the new one is to be goes
// before: two cannot have one MAC there.
func (d *differ) leaving(i Interface) (Link, bool) {
	old, there := d.have.Link(nsutil.LeavingName(i.Name))
	now, _ := d.have.Link(i.Name)
	return old, there && d.place.has(old) && old.like(i) && !old.fits(i, d.have.Ports[i.base()]) && !d.moving(now)
}

// isLeaving reports whether the link is that of some interface.
func (d *differ) isLeaving(l Link) bool {
	return slices.ContainsFunc(d.want.Interfaces, func(i Interface) bool {
		old, there := d.leaving(i)
		return there && old.Index == l.Index
	})
}

// makeWay gives the links that are to be replaced another name, when nobody has their
// addresses where they go. The port asks, with its own MAC: a switch must not send there yet
// what is for the old link.
func (d *differ) makeWay() {
	var ask []announcement
	var renames Plan
	for _, l := range d.have.Links {
		if !d.moving(l) {
			continue
		}
		i, _ := d.want.Interface(l.Name)
		base := d.have.Ports[i.base()]
		a := announcement{dev: base.Name, mac: base.MAC}
		for _, p := range i.Addresses {
			if d.holds(l.Name, p) {
				a.addrs = append(a.addrs, p.Addr())
			}
		}
		if len(a.addrs) > 0 {
			ask = append(ask, a)
		}
		renames = append(renames, d.rename(l)...)
	}
	if len(ask) > 0 {
		d.add(onHost{probe{ask, d.ownMACs()}})
	}
	d.plan = append(d.plan, renames...)
}

// rename is how a link gets its other name. Older kernels want it to be down, which takes
// its routes.
func (d *differ) rename(l Link) (plan Plan) {
	if l.Up && !d.have.Features.LiveRename {
		var kept []Route
		for _, r := range d.have.Routes {
			if r.Dev == l.Name {
				plan = append(plan, delRoute{r})
			} else {
				kept = append(kept, r)
			}
		}
		d.have.Routes = kept
		plan = append(plan, downLink{l.Name, upLink{l.Name, d.portName(l.Parent), l.MAC}})
	}
	s := renameLink{l.Name, nsutil.LeavingName(l.Name)}
	if d.remade[s.name] { // one of that name is gone by then
		d.have = d.have.After(d.plan)
		delete(d.remade, s.name)
	}
	d.have = d.have.renamed(s)
	return append(plan, s)
}

// renamesLive reports whether this kernel renames links that are up (dev_change_name).
var renamesLive = sync.OnceValue(func() bool {
	var name unix.Utsname
	var major, minor int
	if unix.Uname(&name) == nil {
		fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor)
	}
	return major > 6 || major == 6 && minor >= 2
})

// leave takes the old links away. The segment is told as soon as nothing is sent by them any
// more, and again when they are gone.
func (d *differ) leave() {
	for _, i := range d.want.Interfaces {
		old, there := d.leaving(i)
		if !there {
			continue
		}
		tell := announceInUse{announce{announcement{dev: i.Name, mac: i.MAC}}}
		for _, a := range slices.Backward(d.have.Addresses) {
			if a.Dev == old.Name {
				d.add(delAddress{a})
			}
		}
		for _, p := range i.Addresses {
			tell.addrs = append(tell.addrs, p.Addr())
		}
		d.add(tell)
		d.add(d.deletion(old))
		d.add(tell)
	}
}

// deletion is the step that deletes a link as it is.
func (d *differ) deletion(l Link) delLink {
	return delLink{dev: l.Name, form: l.form, sources: l.Sources, port: d.portName(l.Parent), portIndex: l.Parent, mac: l.MAC, mtu: l.MTU}
}

// renamed is the state when a link has another name.
func (s State) renamed(r renameLink) State {
	s.Links, s.Addresses, s.Routes = slices.Clone(s.Links), slices.Clone(s.Addresses), slices.Clone(s.Routes)
	s.Passing = slices.Clone(s.Passing)
	change := func(name *string) {
		if *name == r.dev {
			*name = r.name
		}
	}
	for k := range s.Links {
		change(&s.Links[k].Name)
	}
	for k := range s.Addresses {
		change(&s.Addresses[k].Dev)
	}
	for k := range s.Passing {
		change(&s.Passing[k].Dev)
	}
	for k := range s.Routes {
		change(&s.Routes[k].Dev)
	}
	return s
}

// renameLink gives a link another name inside.
type renameLink struct{ dev, name string }

func (s renameLink) String() string { return fmt.Sprintf("rename %s to %s", s.dev, s.name) }
func (s renameLink) undo() Step     { return renameLink{s.name, s.dev} }

func (s renameLink) Command(p Place) string {
	return fmt.Sprintf("%s link set dev %s name %s", p.in("ip"), quote(s.dev), quote(s.name))
}

func (s renameLink) apply(_ context.Context, h *Handle) error {
	index, err := h.index(s.dev)
	if err != nil {
		return err
	}
	delete(h.indexes, s.dev)
	return h.inside.one(linkRename(index, s.name))
}

func (s renameLink) explain(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return refuse("rename or delete that first", "another link is called %s", s.name)
	}
	return err
}

// CheckPort refuses a name that no device of the host has.
func CheckPort(name string) error {
	h, err := OpenHost()
	if err != nil {
		return err
	}
	defer h.Close()
	have, err := h.Observe(Network{Interfaces: []Interface{{Port: name}}})
	if _, there := have.Ports[name]; err == nil && !there {
		err = refuse(cureForPort(name, have.HostLinks), "no port %s on this host", name)
	}
	return err
}
