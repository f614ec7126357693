package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime/service"
)

// A Status is how a virtual server stands: what it should be beside what the
// kernel and its init say.
type Status struct {
	ID         int               `json:"id"`
	Name       string            `json:"name"`
	State      string            `json:"state"`     // enabled, disabled, degraded
	Namespace  string            `json:"namespace"` // where it is published
	Interfaces []InterfaceStatus `json:"interfaces"`
	Routes     []plumbing.Route  `json:"routes"`
	Supervisor string            `json:"supervisor,omitempty"` // of the services: systemd, or an init of its own
	DNS        service.DNS       `json:"dns"`                  // {}: the host's
	Share      []string          `json:"share"`
	Volumes    []service.Volume  `json:"volumes"`
	Services   []ServiceStatus   `json:"services"`
	Resources  service.Resources `json:"resources,omitzero"`
	Use        cgroup.Use        `json:"use"`     // of all its processes together
	Drift      []Drift           `json:"drift"`   // what an enable would mend, and services that fail
	Foreign    []string          `json:"foreign"` // what somebody has added inside
}

// A ServiceStatus is one service: how it stands, and what it may do.
type ServiceStatus struct {
	service.Status
	Sandbox *service.Sandbox `json:"sandbox"` // null: it is not one of the virtual server's any more
}

// The states. A virtual server is degraded when something differs from what it
// should be.
const (
	Enabled  = "enabled"
	Disabled = "disabled"
	Degraded = "degraded"
)

// An InterfaceStatus is one interface; mac, mtu and up are the kernel's where
// it is there.
type InterfaceStatus struct {
	Name      string         `json:"name"`
	Port      string         `json:"port"`
	VLAN      plumbing.VLAN  `json:"vlan"` // null: untagged
	Kind      plumbing.Kind  `json:"kind"`
	Link      string         `json:"link"` // the host's device that it sits on, by its name there; "" when that is missing
	MAC       plumbing.MAC   `json:"mac"`
	MTU       int            `json:"mtu"`
	Up        bool           `json:"up"`
	Addresses []netip.Prefix `json:"addresses"`
	Gateways  []netip.Addr   `json:"gateways"`
	Mode      plumbing.Mode  `json:"mode,omitempty"` // unless it is its kind's first
	Sources   []plumbing.MAC `json:"sources,omitempty"`
	RA        bool           `json:"ra,omitempty"`
	Metric    int            `json:"metric,omitempty"`
	Table     int            `json:"table,omitempty"` // its own, whether asked for or not
	Realm     int            `json:"realm,omitempty"`
}

// Status looks at a virtual server. It changes nothing, and waits for nobody
// longer than a second.
func (r *Runtime) Status(ctx context.Context, id int) (Status, error) {
	vs, err := r.Store.Load(id)
	if err != nil {
		return Status{}, err
	}
	return r.status(ctx, vs)
}

// StatusAll looks at all of them; those that cannot be read are named in the
// error.
func (r *Runtime) StatusAll(ctx context.Context) ([]Status, error) {
	list, err := r.Store.List()
	all, errs := make([]Status, len(list)), make([]error, len(list))
	AtOnce(len(list), func(k int) { all[k], errs[k] = r.status(ctx, list[k]) })
	return all, errors.Join(append(errs, err)...)
}

func (r *Runtime) status(ctx context.Context, vs VirtualServer, was ...*VirtualServer) (Status, error) {
	s := Status{
		ID:         vs.ID,
		Name:       vs.Title(),
		State:      Enabled,
		Namespace:  r.place(vs.ID).Path(),
		Interfaces: []InterfaceStatus{},
		Routes:     append([]plumbing.Route{}, vs.Routes...),
		Supervisor: vs.Supervisor,
		DNS:        vs.DNS,
		Share:      append([]string{}, vs.Share...),
		Volumes:    append([]service.Volume{}, vs.Volumes...),
		Services:   []ServiceStatus{},
		Resources:  vs.Resources,
		Drift:      []Drift{},
		Foreign:    []string{},
	}
	if vs.Disabled {
		s.State = Disabled
	}
	if err := r.look(ctx, vs, &s, was...); err != nil {
		return s, fmt.Errorf("cannot look at %s: %w", vs, err)
	}
	if len(s.Drift) > 0 {
		s.State = Degraded
	}
	return s, nil
}

func (r *Runtime) look(ctx context.Context, vs VirtualServer, s *Status, was ...*VirtualServer) error {
	h, err := r.open(vs.ID)
	if err != nil {
		return err
	}
	defer h.Close()
	h.Had = had(append(was, vs.Before)...)
	want := r.network(vs)
	have, err := h.Observe(want)
	if err != nil {
		return err
	}
	for _, i := range want.Interfaces {
		s.Interfaces = append(s.Interfaces, interfaceStatus(i, want.TableOf(i.Name), have))
	}
	s.Drift = append(s.Drift, networkDrift(r.place(vs.ID), vs, want, have)...)
	s.Drift = append(s.Drift, r.wholeDrift(vs)...)
	for _, f := range r.place(vs.ID).Foreigners(want, have) {
		s.Foreign = append(s.Foreign, f.What)
	}
	return r.lookAtServices(ctx, h.Namespace(), vs, s)
}

func interfaceStatus(i plumbing.Interface, table int, have plumbing.State) InterfaceStatus {
	s := InterfaceStatus{
		Name: i.Name, Port: i.Port, VLAN: i.VLAN, Kind: cmp.Or(i.Kind, plumbing.Macvlan), MAC: i.MAC, MTU: i.MTU,
		Addresses: append([]netip.Prefix{}, i.Addresses...),
		Gateways:  append([]netip.Addr{}, i.Gateways...),
		Mode:      i.Canonical().Mode, Sources: i.Sources, RA: i.RA, Metric: i.Metric, Table: table, Realm: i.Realm,
	}
	below, _ := have.Below(i)
	s.Link = below.Name
	if l, ok := have.Link(i.Name); ok {
		s.MAC, s.MTU, s.Up = l.MAC, l.MTU, l.Up
	}
	return s
}

// answerWithin is how long a look waits for an init.
const answerWithin = time.Second

func (r *Runtime) lookAtServices(ctx context.Context, ns *nsutil.Namespace, vs VirtualServer, s *Status) error {
	have, err := r.report(ctx, ns, vs)
	switch {
	case errors.Is(err, service.ErrSilent):
		s.Drift = append(s.Drift, Drift{OfSilence, service.ErrSilent.Error()})
		s.addServices(vs.Services, nil, service.Unknown)
		return nil
	case errors.Is(err, service.ErrNotRunning):
	case err != nil:
		return err
	case !vs.Disabled && !have.Config.Same(r.config(vs)):
		s.Drift = append(s.Drift, Drift{OfServices, "restart all services: name, dns, share or volumes changed"})
	}
	s.Use = have.Use
	s.addServices(vs.Services, have.Services, service.Stopped)
	want := vs.Services
	if vs.Disabled {
		want = nil
	}
	if err == nil && !vs.Disabled {
		s.Drift = append(s.Drift, fileDrift(vs.Files, have.Files)...)
		s.Drift = append(s.Drift, limitDrift(vs, want, have)...)
	}
	s.Drift = append(s.Drift, serviceDrift(vs, want, have)...)
	return nil
}

// report asks the init, if one is in the namespace, or systemd; nil is a namespace whose
// name is gone.
func (r *Runtime) report(ctx context.Context, ns *nsutil.Namespace, vs VirtualServer) (service.Report, error) {
	if vs.Supervisor == Systemd {
		return r.units(vs).Report(ctx, vs.Services)
	}
	c, err := service.Dial(r.socket(vs.ID))
	if err != nil {
		return service.Report{}, err
	}
	defer c.Close()
	if ns != nil {
		inside, err := c.InNamespace(ns)
		if err == nil && !inside {
			err = service.ErrNotRunning
		}
		if err != nil {
			return service.Report{}, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return c.Report(ctx)
}

// addServices adds those that the init has told about, and those of want that it has
// not, which are in the state.
func (s *Status) addServices(want []service.Service, told []service.Status, state service.State) {
	told = slices.Clone(told)
	for _, one := range want {
		if !slices.ContainsFunc(told, func(o service.Status) bool { return o.Name == one.Name }) {
			told = append(told, service.Status{Name: one.Name, State: state})
		}
	}
	for _, one := range told {
		status := ServiceStatus{Status: one}
		if k := slices.IndexFunc(want, func(o service.Service) bool { return o.Name == one.Name }); k >= 0 {
			sandbox := want[k].Sandbox()
			status.Sandbox = &sandbox
		}
		s.Services = append(s.Services, status)
	}
}
