package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime"
	"github.com/vsrun/vsrun/runtime/service"
)

// A world is what the agent has to know to tell whom a change concerns. All of it is
// found out anew after anything was missed.
type world struct {
	ear     *plumbing.Listener
	sysctls *plumbing.SysctlListener
	groups  *cgroup.Tree
	servers map[int]*server
	bonds   map[string]plumbing.Bond
	links   map[int]plumbing.Heard // the host's, by index
	named   map[int]int            // virtual servers by the ids of their namespaces
	watches map[int]int            // and by the watches of their kernel parameters and limits
}

// A server is one that has a record.
type server struct {
	vs      runtime.VirtualServer
	ns      inode
	watches []int
	limits  map[string]int // watches, by directory
	lost    map[int]bool   // links inside that have lost their carrier
	watched bool           // its init
}

// hear passes on what is heard; nil is something that was missed. The channel is closed
// when ctx ends, and when nothing can be heard any more.
func hear(ctx context.Context, ear *plumbing.Listener) <-chan []plumbing.Notice {
	heard := make(chan []plumbing.Notice)
	stop := context.AfterFunc(ctx, func() { ear.SetDeadline(time.Unix(1, 0)) })
	go func() {
		defer close(heard)
		defer stop()
		for {
			list, err := ear.Next()
			if err != nil && !errors.Is(err, plumbing.ErrMissed) {
				return
			}
			if err == nil && len(list) == 0 {
				continue
			}
			select {
			case heard <- list:
			case <-ctx.Done():
				return
			}
		}
	}()
	return heard
}

// hearSysctls is hear for kernel parameters.
func hearSysctls(ctx context.Context, ear *plumbing.SysctlListener) <-chan []int {
	heard := make(chan []int)
	stop := context.AfterFunc(ctx, func() { ear.Close() })
	go func() {
		defer stop()
		for {
			list, err := ear.Next()
			if err != nil && !errors.Is(err, plumbing.ErrMissed) {
				return
			}
			select {
			case heard <- list:
			case <-ctx.Done():
				return
			}
		}
	}()
	return heard
}

// lookAtAll forgets all that is known and begins anew.
func (a *Agent) lookAtAll() {
	w := &a.world
	old := w.servers
	for id, s := range old {
		a.unfollow(id, s)
	}
	w.servers, w.bonds, w.named, w.watches = map[int]*server{}, map[string]plumbing.Bond{}, map[int]int{}, map[int]int{}
	a.anew = nil
	links, err := w.ear.Links()
	if err != nil { // what is missing tells nobody whom a change concerns
		a.missed("the host's devices", err)
	}
	w.links = links
	list, err := a.runtime.Store.List()
	if err != nil {
		a.unread("all virtual servers", err)
	}
	for _, vs := range list {
		w.servers[vs.ID] = &server{vs: vs, lost: map[int]bool{}, watched: old[vs.ID] != nil && old[vs.ID].watched}
		a.follow(vs.ID)
		a.mark(subject{id: vs.ID}, 0)
	}
	names, err := a.runtime.Store.Ports()
	if err != nil {
		a.missed("ports", err)
	}
	for _, name := range names {
		a.readPort(name)
	}
	if a.anew == nil {
		clear(a.said)
	}
}

// missed begins anew in a while: nobody will tell when it can be seen.
func (a *Agent) missed(what string, err error) {
	a.tellMissed(what, err)
	if a.anew == nil {
		a.anew = time.After(a.limits.failed(subject{}))
	}
}

// unread is missed for records. One that is damaged stays so until another is in its
// place, which inotify tells.
func (a *Agent) unread(what string, err error) {
	if passes(err) {
		a.missed(what, err)
		return
	}
	a.tellMissed(what, err)
}

// tellMissed says so once, however often it is tried.
func (a *Agent) tellMissed(what string, err error) {
	if a.said[what] != err.Error() {
		a.log.Warn("cannot look after "+what, "err", err)
		a.said[what] = err.Error()
	}
}

// passes reports whether there is an error of the kernel's among those of records, as for
// want of memory. What is no file does not become one.
func passes(err error) bool {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return slices.ContainsFunc(many.Unwrap(), passes)
	}
	no, ok := errors.AsType[syscall.Errno](err)
	return ok && no != unix.ELOOP && no != unix.ENXIO // a symbolic link, a socket
}

// take marks those whom the notices concern.
func (a *Agent) take(heard []plumbing.Notice) {
	if heard == nil {
		a.record(Event{Event: Missed})
		a.lookAtAll()
		return
	}
	for _, n := range heard {
		id, ours := a.world.named[n.Namespace]
		switch {
		case n.Topic == plumbing.OfNamespace:
			if ours { // it is gone, or another one has its number by now
				delete(a.world.named, n.Namespace)
				if s := a.world.servers[id]; s != nil {
					s.ns = inode{}
					a.unfollow(id, s)
					a.follow(id)
				}
			}
		case n.Namespace == plumbing.Host:
			a.takeHost(n)
		case ours && a.world.servers[id] != nil:
			a.takeInside(id, n)
		}
	}
}

// takeSysctls marks those whose kernel parameters have been written; nil is all of them.
func (a *Agent) takeSysctls(heard []int) {
	if heard == nil {
		a.take(nil)
	}
	for _, w := range heard {
		if id, ours := a.world.watches[w]; ours {
			a.mark(subject{id: id}, settle)
			a.followLimits(id) // a service may have been started
		}
	}
}

func (a *Agent) takeInside(id int, n plumbing.Notice) {
	s, lost := subject{id: id}, a.world.servers[id].lost
	a.mark(s, settle)
	if n.Link != nil && !n.Gone {
		a.runtime.Store.Ledgers().Begun(id, n.Link.Name)
	}
	switch {
	case n.Link == nil:
	case n.Gone:
		delete(lost, n.Index)
		if n.Counted != nil {
			a.runtime.LinkEnded(id, n.Link.Name, *n.Counted)
		}
	case n.Link.Carrier && lost[n.Index]:
		delete(lost, n.Index)
		a.announce[s] = true
	case !n.Link.Carrier && n.Link.Flags&unix.IFF_UP != 0:
		lost[n.Index] = true
	}
}

// takeHost marks those that sit on a device of the host that something has happened to,
// and the port that it is, or is a member of.
func (a *Agent) takeHost(n plumbing.Notice) {
	was, known := a.world.links[n.Index]
	switch {
	case n.Topic == plumbing.OfSysctl && known: // of a VLAN device of ours, perhaps
	case n.Topic != plumbing.OfLink:
		return
	case n.Gone:
		delete(a.world.links, n.Index)
	default:
		now, before := *n.Link, was
		a.world.links[n.Index] = now
		now.Carrier, before.Carrier = false, false
		if known && now == before {
			return
		}
	}
	names := a.concerned(was)
	if n.Link != nil {
		names = append(names, a.concerned(*n.Link)...)
	}
	for id, s := range a.world.servers {
		if slices.ContainsFunc(s.vs.Interfaces, func(i plumbing.Interface) bool { return slices.Contains(names, i.Port) }) {
			a.mark(subject{id: id}, settle)
		}
	}
	for name, bond := range a.world.bonds {
		if slices.Contains(names, name) || slices.ContainsFunc(bond.Members, func(m string) bool { return slices.Contains(names, m) }) {
			a.mark(subject{port: name}, settle)
		}
	}
}

// concerned are the names of a device, of what it sits on, and of the bond that it is in.
func (a *Agent) concerned(l plumbing.Heard) []string {
	names := append(strings.Fields(l.Altnames), l.Name, a.world.links[l.Master].Name)
	for range 3 { // a VLAN within a VLAN of a port
		below, there := a.world.links[l.Parent]
		if !there || l.Parent == 0 {
			break
		}
		names = append(append(names, below.Name), strings.Fields(below.Altnames)...)
		l = below
	}
	return slices.DeleteFunc(names, func(s string) bool { return s == "" })
}

// reread takes records that have been changed; nil is all of them.
func (a *Agent) reread(changed []subject) {
	if changed == nil {
		a.lookAtAll()
	}
	for _, s := range changed {
		if s.port != "" {
			a.readPort(s.port)
			continue
		}
		vs, err := a.runtime.Store.Load(s.id)
		if err != nil {
			if !errors.Is(err, runtime.ErrNotFound) {
				a.unread(s.String(), err)
			}
			a.forget(s.id)
			continue
		}
		if a.world.servers[s.id] == nil {
			a.world.servers[s.id] = &server{lost: map[int]bool{}}
		}
		a.world.servers[s.id].vs = vs
		delete(a.said, s.String())
		a.follow(s.id)
		a.mark(s, settle)
	}
}

func (a *Agent) forget(id int) {
	if s := a.world.servers[id]; s != nil {
		a.unfollow(id, s)
	}
	delete(a.world.servers, id)
	maps.DeleteFunc(a.world.named, func(_, of int) bool { return of == id })
	a.limits.forget(subject{id: id})
}

func (a *Agent) readPort(name string) {
	bond, err := a.runtime.Store.Port(name)
	if err != nil {
		if !errors.Is(err, runtime.ErrNoPort) {
			a.unread(subject{port: name}.String(), err)
		}
		delete(a.world.bonds, name)
		a.limits.forget(subject{port: name})
		return
	}
	a.world.bonds[name] = bond
	delete(a.said, subject{port: name}.String())
	a.mark(subject{port: name}, settle)
}

// watchInit has a virtual server looked at when its init ends: also when it has ended
// since a look that found it.
func (a *Agent) watchInit(ctx context.Context, id int, served bool) {
	s := a.world.servers[id]
	if s == nil || s.watched || len(s.vs.Services) == 0 || s.vs.Supervisor == runtime.Systemd {
		return
	}
	missed := served && !s.vs.Disabled
	s.watched = true
	a.watching.Go(func() {
		c, err := a.runtime.InitOf(id)
		if err == nil {
			err = c.Wait(ctx)
			c.Close()
		}
		a.ask(ctx, func() {
			if s := a.world.servers[id]; s != nil {
				s.watched = false
			}
			switch {
			case err == nil:
				a.mark(subject{id: id}, 0)
			case errors.Is(err, service.ErrNotRunning):
				if missed {
					a.mark(subject{id: id}, settle)
				}
			case ctx.Err() == nil: // its end would not be heard
				a.mark(subject{id: id}, a.limits.failed(subject{id: id}))
			}
		})
	})
}
