package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime/service"
	"github.com/vsrun/vsrun/runtime/units"
)

// units are those of a virtual server whose Supervisor is, or was, systemd.
func (r *Runtime) units(vs VirtualServer) units.Server { return units.Server{Config: r.config(vs)} }

// Journal is what journalctl finds the output of a service by, nil where it is in
// LogFiles.
func (r *Runtime) Journal(vs VirtualServer, name string) []string {
	if vs.Supervisor != Systemd {
		return nil
	}
	return r.units(vs).Matches(name)
}

// checkHost refuses a supervisor that this host does not have.
func (vs VirtualServer) checkHost() error {
	if vs.Supervisor != Systemd || units.Booted() {
		return nil
	}
	return &plumbing.Refusal{
		Err:  errors.New("supervisor is systemd, but systemd has not booted this host"),
		Cure: "leave supervisor out: services are then run by an init of the virtual server's own",
	}
}

// inInit is the virtual server with those services that are its init's. One whose
// services are units has an init for Exec alone.
func (vs VirtualServer) inInit() VirtualServer {
	if vs.Supervisor == Systemd {
		vs.Services = nil
	}
	return vs
}

// serveByUnits makes the services match the record where they are units: those that
// somebody has stopped are started, too.
func (r *Runtime) serveByUnits(ctx context.Context, ns *nsutil.Namespace, vs VirtualServer) error {
	if err := r.serveByInit(ctx, ns, vs.inInit()); err != nil {
		return err
	}
	if err := r.units(vs).Set(ctx, vs.Services); err != nil {
		return fmt.Errorf("cannot start the services of %s: %w", vs, err)
	}
	return nil
}

// dropStrayUnits takes down what has units and is to have none, and what has units in
// a namespace that is lost (nil): the next would not be theirs.
func (r *Runtime) dropStrayUnits(ctx context.Context, ns *nsutil.Namespace, vs VirtualServer) error {
	switch {
	case !r.units(vs).Any() || ns != nil && vs.Supervisor == Systemd:
		return nil
	case ns == nil:
		return r.takeDown(ctx, vs.ID, OwnTimeout)
	}
	_, err := r.units(vs).Stop(ctx, vs.Services, OwnTimeout)
	return err
}

// orderUnit is Order where the services are units.
func (r *Runtime) orderUnit(ctx context.Context, id int, name string, order service.Order) (killed []string, err error) {
	vs, unlock, err := r.Store.hold(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	k := slices.IndexFunc(vs.Services, func(s service.Service) bool { return s.Name == name })
	switch {
	case k < 0:
		return nil, fmt.Errorf("%s has no service %s", vs, name)
	case vs.Disabled:
		return nil, notEnabled(id)
	case order == service.OrderReload && vs.Services[k].Reload.Signal == "":
		return nil, fmt.Errorf("service %s has no reload signal", name)
	}
	return r.units(vs).Order(ctx, order, vs.Services[k])
}
