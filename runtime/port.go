package runtime

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/vsrun/vsrun/plumbing"
)

// ErrNoPort is a port that the store does not have.
var ErrNoPort = errors.New("no such port")

// ApplyPort makes a port what bond says, whether it is there or not. It returns
// what was done: created, changed or unchanged. After an error all is as it was.
func (r *Runtime) ApplyPort(ctx context.Context, bond plumbing.Bond) (did string, err error) {
	return r.setPort(ctx, bond, nil)
}

// CreatePort makes a port that is not there yet. One that is there, and the same,
// is made whole.
func (r *Runtime) CreatePort(ctx context.Context, bond plumbing.Bond) error {
	_, err := r.setPort(ctx, bond, portDiffers)
	return err
}

func portDiffers(name string) error {
	return &plumbing.Refusal{
		Err:  fmt.Errorf("port %s exists, and is different", name),
		Cure: fmt.Sprintf("see it with: vsrun port show %s; change it with vsrun apply, or destroy it first", name),
	}
}

// setPort makes a port. One that is there and different is refused, if a refusal is
// given.
func (r *Runtime) setPort(ctx context.Context, bond plumbing.Bond, refusal func(string) error) (did string, err error) {
	unlock, err := r.Store.lock(ctx, host)
	if err != nil {
		return "", err
	}
	defer unlock()
	old, err := r.Store.loadPort(bond.Name)
	switch {
	case errors.Is(err, ErrNoPort):
		return "created", r.createPort(ctx, bond)
	case err != nil:
		return "", err
	case sameBond(old.Bond, bond):
		did = "unchanged"
		if old.Leaving {
			did = "created"
		}
		return did, r.reconcilePort(ctx, old)
	case refusal != nil:
		return "", refusal(bond.Name)
	}
	if err := r.freeMembers(bond, old.Members); err != nil {
		return "", err
	}
	if err := r.reconcilePort(ctx, portRecord{Bond: bond, Before: old.Before}); err != nil {
		return "", errors.Join(err, r.Store.savePort(old))
	}
	return "changed", nil
}

func (r *Runtime) createPort(ctx context.Context, bond plumbing.Bond) error {
	if err := r.freeMembers(bond, nil); err != nil {
		return err
	}
	err := r.reconcilePort(ctx, portRecord{Bond: bond})
	if err != nil {
		err = errors.Join(err, r.Store.remove(r.Store.freshPort(bond.Name), r.Store.portPath(bond.Name)))
	}
	return err
}

// freeMembers refuses what other ports and virtual servers have, beside the members
// that the bond has already: also of those that are not on the network now.
func (r *Runtime) freeMembers(bond plumbing.Bond, already []string) error {
	fresh := slices.DeleteFunc(slices.Clone(bond.Members), func(m string) bool { return slices.Contains(already, m) })
	names, err := r.Store.Ports()
	if err != nil {
		return err
	}
	for _, name := range names {
		other, err := r.Store.loadPort(name)
		if err != nil {
			return err
		}
		for _, m := range fresh {
			if name != bond.Name && slices.Contains(other.Members, m) {
				return &plumbing.Refusal{Err: fmt.Errorf("%s is a member of port %s", m, name), Cure: "choose another"}
			}
		}
	}
	for _, m := range fresh {
		users, err := r.usersOf(m)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return &plumbing.Refusal{
				Err:  fmt.Errorf("%s is in use, by %s", m, strings.Join(users, ", ")),
				Cure: "move them to the bond, when it is there: until then, detach their interfaces",
			}
		}
	}
	return nil
}

// usersOf are the virtual servers that have an interface on a port.
func (r *Runtime) usersOf(port string) ([]string, error) {
	list, err := r.Store.List()
	var users []string
	for _, vs := range list {
		if slices.ContainsFunc(vs.Interfaces, func(i plumbing.Interface) bool { return i.Port == port }) {
			users = append(users, vs.String())
		}
	}
	return users, err
}

// reconcilePort makes the host match the record, and stores it first: how members
// were before has to be known when anything goes wrong later. One whose destruction had
// begun is wanted again.
func (r *Runtime) reconcilePort(ctx context.Context, p portRecord) error {
	p.Leaving = false
	h, err := plumbing.OpenHost()
	if err != nil {
		return err
	}
	defer h.Close()
	have, err := p.observe(h)
	if err != nil {
		return err
	}
	plan, err := planPort(&p, have)
	if err != nil {
		return err
	}
	if err := r.Store.savePort(p); err != nil {
		return err
	}
	if err := plan.Apply(ctx, h); err != nil {
		return err
	}
	if p.forget() {
		// The port is as it should be. What could not be forgotten now is when it is next
		// looked after.
		_ = r.Store.savePort(p)
	}
	return nil
}

// observe looks also at what the port has to give back yet.
func (p *portRecord) observe(h *plumbing.Handle) (plumbing.BondState, error) {
	return h.ObserveBond(p.Bond, slices.Collect(maps.Keys(p.Before))...)
}

// planPort also remembers how the members are that the plan adds.
func planPort(p *portRecord, have plumbing.BondState) (plumbing.Plan, error) {
	for _, name := range have.Missing(p.Bond) {
		if _, once := p.Before[name]; !once { // else it may come back
			return nil, &plumbing.Refusal{Err: fmt.Errorf("no device %s on this host", name), Cure: "see which there are: ip -brief link"}
		}
	}
	before := have.Before(p.Bond)
	for name, b := range p.Before { // it may have come back from a crash: the first is what it was
		before[name] = b
	}
	p.Before = before
	return plumbing.DiffBond(p.Bond, p.Before, have)
}

// DestroyPort takes a port away and gives its members back; it says whether there
// was one. One that virtual servers use is not taken away.
func (r *Runtime) DestroyPort(ctx context.Context, name string) (there bool, err error) {
	unlock, err := r.Store.lock(ctx, host)
	if err != nil {
		return false, err
	}
	defer unlock()
	p, err := r.Store.loadPort(name)
	if errors.Is(err, ErrNoPort) {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	return true, r.destroyPort(ctx, p)
}

// destroyPort stores first that it has begun: or vsd would make the port whole again after
// a crash. On a full disk it does without.
func (r *Runtime) destroyPort(ctx context.Context, p portRecord) error {
	h, err := plumbing.OpenHost()
	if err != nil {
		return err
	}
	defer h.Close()
	plan, err := r.planPortRemoval(h, p)
	if err != nil {
		return err
	}
	p.Leaving = true
	if err := r.Store.savePort(p); err != nil && !isFull(err) {
		return err
	}
	if err := plan.Force(ctx, h); err != nil {
		return err
	}
	return r.Store.remove(r.Store.freshPort(p.Name), r.Store.portPath(p.Name))
}

// PlanPortRemoval is what would be done to take a port away.
func (r *Runtime) PlanPortRemoval(name string) (plumbing.Plan, error) {
	p, err := r.Store.loadPort(name)
	if err != nil {
		return nil, err
	}
	h, err := plumbing.OpenHost()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return r.planPortRemoval(h, p)
}

func (r *Runtime) planPortRemoval(h *plumbing.Handle, p portRecord) (plumbing.Plan, error) {
	users, err := r.usersOf(p.Name)
	if err != nil {
		return nil, err
	}
	if len(users) > 0 {
		return nil, &plumbing.Refusal{
			Err:  fmt.Errorf("port %s is in use, by %s", p.Name, strings.Join(users, ", ")),
			Cure: "destroy them, or detach their interfaces, first",
		}
	}
	have, err := p.observe(h)
	if err != nil {
		return nil, err
	}
	return plumbing.RemoveBond(p.Name, p.Before, have)
}

// checkMoved refuses to put an interface on a port that is not there. One that goes on with a
// port that is not there any more has to be told apart: that may have another name now.
func (r *Runtime) checkMoved(old *VirtualServer, vs VirtualServer) error {
	if old == nil || vs.Disabled {
		return nil
	}
	for _, i := range vs.Interfaces {
		was, there := old.Interface(i.Name)
		if _, err := os.Lstat(r.Store.portPath(i.Port)); err == nil || !there || was.Port == i.Port {
			continue // or it is made with it
		}
		if err := plumbing.CheckPort(i.Port); err != nil {
			return err
		}
	}
	return nil
}

// ensurePorts makes whole the ports that a virtual server sits on, as far as they
// are ours.
func (r *Runtime) ensurePorts(ctx context.Context, vs VirtualServer) error {
	for _, i := range vs.Interfaces {
		if _, err := os.Lstat(r.Store.portPath(i.Port)); err != nil {
			continue
		}
		if err := r.ensurePort(ctx, i.Port); err != nil {
			return fmt.Errorf("cannot mend port %s: %w", i.Port, err)
		}
	}
	return nil
}

func (r *Runtime) ensurePort(ctx context.Context, name string) error {
	unlock, err := r.Store.lock(ctx, host)
	if err != nil {
		return err
	}
	defer unlock()
	p, drift, err := r.lookAfterPort(name)
	if err != nil || len(drift) == 0 {
		return err
	}
	return r.reconcilePort(ctx, p)
}

// DiffPort is what an apply of bond would do, in words.
func (r *Runtime) DiffPort(bond plumbing.Bond) ([]Drift, error) {
	p, have, err := r.lookAtPort(bond, nil)
	if err != nil {
		var refused *plumbing.Refusal
		if errors.As(err, &refused) { // what keeps it from being made so
			return []Drift{{OfRefusal, err.Error()}}, nil
		}
		return nil, err
	}
	return portDrift(&p, have), nil
}

// PlanPort is what would be done to make a port what bond says.
func (r *Runtime) PlanPort(bond plumbing.Bond) (plumbing.Plan, error) {
	return r.planPortAs(bond, nil)
}

// PlanPortCreate is PlanPort for one that is to be created.
func (r *Runtime) PlanPortCreate(bond plumbing.Bond) (plumbing.Plan, error) {
	return r.planPortAs(bond, portDiffers)
}

func (r *Runtime) planPortAs(bond plumbing.Bond, refusal func(string) error) (plumbing.Plan, error) {
	p, have, err := r.lookAtPort(bond, refusal)
	if err != nil {
		return nil, err
	}
	return planPort(&p, have)
}

// lookAtPort is the record of a port as bond would have it, and what there is.
func (r *Runtime) lookAtPort(bond plumbing.Bond, refusal func(string) error) (p portRecord, have plumbing.BondState, err error) {
	p, err = r.Store.loadPort(bond.Name)
	switch {
	case err != nil && !errors.Is(err, ErrNoPort):
		return p, have, err
	case err == nil && refusal != nil && !sameBond(p.Bond, bond):
		return p, have, refusal(bond.Name)
	}
	if err := r.freeMembers(bond, p.Members); err != nil {
		return p, have, err
	}
	p.Bond = bond
	h, err := plumbing.OpenHost()
	if err != nil {
		return p, have, err
	}
	defer h.Close()
	have, err = p.observe(h)
	return p, have, err
}
