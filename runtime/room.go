package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vsrun/vsrun/plumbing"
)

// A Room is how virtual servers that are applied together come by what others of them have
// until then: an address, a MAC, a name, or a VLAN of its own. Its holders give it up
// before anybody takes it.
type Room struct {
	runtime *Runtime
	list    []VirtualServer
	before  map[int]VirtualServer // those that have something to give up
	less    map[int]VirtualServer // the same without it
}

// Room is found out for those that are about to be applied.
func (r *Runtime) Room(list []VirtualServer) *Room {
	m := &Room{r, list, map[int]VirtualServer{}, map[int]VirtualServer{}}
	type wish struct {
		vs     VirtualServer
		shared bool
	}
	wanted := map[string][]wish{}
	for _, vs := range list {
		for _, one := range vs.resolved(r.MachineID).claims() {
			wanted[one.key] = append(wanted[one.key], wish{vs, one.shared})
		}
	}
	for _, vs := range list {
		old, err := r.Store.Load(vs.ID)
		if err != nil || same(old, vs) { // new, or it is told of when it is applied itself
			continue
		}
		less := old
		for _, one := range old.resolved(r.MachineID).claims() {
			for _, w := range wanted[one.key] {
				if w.vs.ID != vs.ID && !(w.shared && one.shared) && free(w.vs, []VirtualServer{vs}, r.MachineID) == nil { // else one of them is refused
					less = less.without(w.vs, r.MachineID)
				}
			}
		}
		if !same(less, old) && len(less.Validate()) == 0 {
			m.before[vs.ID], m.less[vs.ID] = old, less
		}
	}
	return m
}

// without is the virtual server less what another one has of it.
func (vs VirtualServer) without(other VirtualServer, machineID string) VirtualServer {
	if strings.EqualFold(vs.Title(), other.Title()) {
		vs.Name = ""
	}
	var macs []plumbing.MAC
	for _, i := range vs.resolved(machineID).Interfaces {
		macs = append(macs, i.MAC)
	}
	vs.Network = vs.Network.Without(other.resolved(machineID).Network, macs)
	return vs
}

// Givers are the virtual servers that give something up first, as they are then.
func (m *Room) Givers() []VirtualServer {
	var list []VirtualServer
	for _, vs := range m.list {
		if less, gives := m.less[vs.ID]; gives {
			list = append(list, less)
		}
	}
	return list
}

// GiveUp has the givers do so. After an error they have what they had.
func (m *Room) GiveUp(ctx context.Context) error {
	for k, less := range m.Givers() {
		_, err := m.runtime.Update(ctx, less.ID, func(vs *VirtualServer) error {
			if same(*vs, m.before[vs.ID]) { // else somebody has changed it since
				*vs = less
			}
			return nil
		})
		if err == nil {
			continue
		}
		for _, given := range m.Givers()[:k] {
			err = errors.Join(err, m.goBack(ctx, given.ID))
		}
		return err
	}
	return nil
}

// Apply is Runtime.Apply for all, many at once; done is told which of them in the list it
// was. Those that give or take something, or want what another one has in the list, come
// last, in their order: who fails gets back what it gave up before another one takes it.
func (m *Room) Apply(ctx context.Context, done func(k int, did string, err error)) {
	var now, last []int
	claimed, given := claims{}, claims{}
	for _, vs := range m.before {
		given.add(vs, m.runtime.MachineID)
	}
	for k, vs := range m.list {
		_, gives := m.before[vs.ID]
		takes := given.refuse(vs, m.runtime.MachineID) != nil
		if gives || takes || claimed.refuse(vs, m.runtime.MachineID) != nil || m.runtime.Store.free(vs, m.runtime.MachineID) != nil {
			last = append(last, k)
			continue
		}
		claimed.add(vs, m.runtime.MachineID)
		now = append(now, k)
	}
	one := func(k int) {
		did, err := m.apply(ctx, m.list[k])
		done(k, did, err)
	}
	AtOnce(len(now), func(n int) { one(now[n]) })
	for _, k := range last {
		one(k)
	}
}

// apply gives one that it fails for back what it had, unless that is another's by now.
func (m *Room) apply(ctx context.Context, vs VirtualServer) (did string, err error) {
	did, err = m.runtime.Apply(ctx, vs)
	if _, gave := m.before[vs.ID]; gave && err != nil {
		err = errors.Join(err, m.goBack(ctx, vs.ID))
	}
	return did, err
}

func (m *Room) goBack(ctx context.Context, id int) error {
	before := m.before[id]
	if _, err := m.runtime.Apply(context.WithoutCancel(ctx), before); err != nil {
		return fmt.Errorf("cannot give %s back what it had: %w", before, err)
	}
	return nil
}

// Plan is what would be done when all givers have given up theirs, and those before vs in
// the list are applied.
func (m *Room) Plan(vs VirtualServer) (plumbing.Plan, error) {
	others, err := m.runtime.Store.List()
	if err != nil {
		return nil, err
	}
	for k, other := range others {
		if less, gives := m.less[other.ID]; gives {
			others[k] = less
		}
	}
	for _, fresh := range m.list {
		if fresh.ID == vs.ID {
			break
		}
		others = append(slices.DeleteFunc(others, func(o VirtualServer) bool { return o.ID == fresh.ID }), fresh)
	}
	var first *VirtualServer
	if less, gives := m.less[vs.ID]; gives {
		first = &less
	}
	return m.runtime.planned(vs, free(vs, others, m.runtime.MachineID), first)
}
