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
// before anybody takes it, and their records say what they had until they are applied
// themselves.
type Room struct {
	runtime   *Runtime
	list      []VirtualServer
	before    map[int]VirtualServer // those that have something to give up
	less      map[int]VirtualServer // the same without it
	gave      map[int]bool          // those that have given it up
	now, last []int                 // which of the list go at once, and which then, one after the other
}

// Room is found out for those that are about to be applied.
func (r *Runtime) Room(list []VirtualServer) *Room {
	m := &Room{runtime: r, list: list, before: map[int]VirtualServer{}, less: map[int]VirtualServer{}, gave: map[int]bool{}}
	type wish struct {
		vs VirtualServer
		as string
	}
	wanted := map[string][]wish{}
	for _, vs := range list {
		for _, one := range vs.resolved(r.MachineID).claims() {
			wanted[one.key] = append(wanted[one.key], wish{vs, one.as})
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
				if w.vs.ID != vs.ID && !one.meets(w.as) && free(w.vs, []VirtualServer{vs}, r.MachineID) == nil { // else one of them is refused
					less = less.without(w.vs, r.MachineID)
				}
			}
		}
		if !same(less, old) && len(less.Validate()) == 0 {
			whole := old.whole()
			less.Before = &whole
			m.before[vs.ID], m.less[vs.ID] = old, less
		}
	}
	m.arrange()
	return m
}

// arrange has those that give or take something, or want what another one has in the list,
// come last, in their order: who fails gets back what it gave up before another one takes it.
func (m *Room) arrange() {
	id := m.runtime.MachineID
	claimed, given := claims{}, claims{}
	for _, vs := range m.before {
		given.add(vs, id)
	}
	for k, vs := range m.list {
		_, gives := m.before[vs.ID]
		takes := given.refuse(vs, id) != nil
		if gives || takes || claimed.refuse(vs, id) != nil || m.runtime.Store.free(vs, id) != nil {
			m.last = append(m.last, k)
			continue
		}
		claimed.add(vs, id)
		m.now = append(m.now, k)
	}
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

// Apply is Runtime.Apply for all, many at once; done is told which of them in the list it
// was. Nobody else, vsd neither, is at work on those that hand something over until all of
// them are done.
func (m *Room) Apply(ctx context.Context, done func(k int, did string, err error)) {
	AtOnce(len(m.now), func(n int) {
		k := m.now[n]
		did, err := m.runtime.Apply(ctx, m.list[k])
		done(k, did, err)
	})
	var ids []int
	for _, k := range m.last {
		ids = append(ids, m.list[k].ID)
	}
	slices.Sort(ids)
	if len(ids) == 0 {
		return
	}
	unlock, err := m.runtime.Store.lock(ctx, ids...)
	if err == nil {
		defer unlock()
		err = m.giveUp(ctx)
	}
	for _, k := range m.last {
		did, failed := "", err
		if err == nil {
			did, failed = m.apply(ctx, m.list[k])
		}
		done(k, did, failed)
	}
}

// giveUp has the givers do so. After an error they have what they had. One that somebody has
// changed, or destroyed, since the room was found out stays what it is by now: who wants
// something of it is refused, or finds it free.
func (m *Room) giveUp(ctx context.Context) error {
	for _, vs := range m.list {
		less, gives := m.less[vs.ID]
		if !gives {
			continue
		}
		now, err := m.runtime.Store.Load(vs.ID)
		switch {
		case errors.Is(err, ErrNotFound), err == nil && !same(now, m.before[vs.ID]):
			continue
		case err == nil:
			err = m.runtime.replace(ctx, &now, less)
		}
		if err != nil {
			err = fmt.Errorf("cannot have %s give up what others are to have: %w", vs, err)
			for _, giver := range m.list {
				if m.gave[giver.ID] {
					err = errors.Join(err, m.giveBack(ctx, giver.ID))
				}
			}
			return err
		}
		m.gave[vs.ID] = true
	}
	return nil
}

// giveBack makes a giver what it was, unless that is another's by now.
func (m *Room) giveBack(ctx context.Context, id int) error {
	before := m.before[id]
	if _, err := m.runtime.apply(context.WithoutCancel(ctx), before); err != nil {
		return fmt.Errorf("cannot give %s back what it had: %w", before, err)
	}
	return nil
}

// apply gives one that it fails for back what it had.
func (m *Room) apply(ctx context.Context, vs VirtualServer) (did string, err error) {
	did, err = m.runtime.apply(ctx, vs)
	if err != nil && m.gave[vs.ID] {
		err = errors.Join(err, m.giveBack(ctx, vs.ID))
	}
	return did, err
}

// Planned is told of all that Apply does, in that order, and what makes the plan for it.
func (m *Room) Planned(tell func(VirtualServer, func(VirtualServer) (plumbing.Plan, error))) {
	for _, k := range m.now {
		tell(m.list[k], m.plan)
	}
	for _, vs := range m.list {
		if less, gives := m.less[vs.ID]; gives {
			tell(less, m.runtime.Plan)
		}
	}
	for _, k := range m.last {
		tell(m.list[k], m.plan)
	}
}

// plan is what would be done when all givers have given up theirs, and those before vs are
// applied.
func (m *Room) plan(vs VirtualServer) (plumbing.Plan, error) {
	others, err := m.runtime.Store.List()
	if err != nil {
		return nil, err
	}
	for k, other := range others {
		if less, gives := m.less[other.ID]; gives {
			others[k] = less
		}
	}
	for _, k := range slices.Concat(m.now, m.last) {
		fresh := m.list[k]
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
