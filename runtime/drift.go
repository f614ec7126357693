package runtime

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime/service"
)

// A Drift is one thing that is not as it should be.
type Drift struct {
	Topic plumbing.Topic
	Text  string // what is to be done about it, or what keeps that from being done
}

// The topics beside plumbing's.
const (
	OfServices plumbing.Topic = "service"
	OfUnits    plumbing.Topic = "unit"   // a service that is systemd's to see to
	OfFiles    plumbing.Topic = "file"   // of a virtual server's own
	OfLimits   plumbing.Topic = "limit"  // of its services', and of all of them
	OfMember   plumbing.Topic = "member" // of a bond: it is not on this host
	OfBefore   plumbing.Topic = "before" // what an apply took from it for others
	// What nobody can do anything about for now.
	OfFailure  plumbing.Topic = "failure"  // of a service
	OfSilence  plumbing.Topic = "silence"  // of an init
	OfConflict plumbing.Topic = "conflict" // somebody else has an address
	OfRefusal  plumbing.Topic = "refusal"  // something is missing, or in the way
)

// String is what people read.
func (d Drift) String() string { return d.Text }

// MarshalText writes it as people read it.
func (d Drift) MarshalText() ([]byte, error) { return []byte(d.Text), nil }

// Mendable reports whether the node agent may mend it, as an enable of the virtual server
// or an apply of the port does. A unit that somebody has stopped stays so until then.
func (d Drift) Mendable() bool {
	return !slices.Contains([]plumbing.Topic{OfUnits, OfMember, OfFailure, OfSilence, OfConflict, OfRefusal}, d.Topic)
}

// Words are several on one line.
func Words(list []Drift) string {
	words := make([]string, len(list))
	for k, d := range list {
		words[k] = d.Text
	}
	return strings.Join(words, "; ")
}

func stepDrift(plan plumbing.Plan) (drift []Drift) {
	for _, step := range plan.Changes() {
		drift = append(drift, Drift{plumbing.About(step), step.String()})
	}
	return drift
}

// networkDrift is what differs in the namespace, and on the host below it.
func networkDrift(place plumbing.Place, vs VirtualServer, want plumbing.Network, have plumbing.State) (drift []Drift) {
	if vs.Disabled {
		drift = stepDrift(plumbing.Removal(have))
	} else {
		plan, err := plumbing.Diff(place, want, have)
		drift = stepDrift(plan)
		if err != nil {
			drift = append(drift, Drift{OfRefusal, err.Error()})
		}
	}
	for _, i := range want.Interfaces {
		if name := have.Renamed(i); name != "" && !vs.Disabled {
			drift = append(drift, Drift{OfRefusal, fmt.Sprintf("port %s is called %s now", i.Port, name)})
		}
	}
	for _, a := range have.Addresses {
		if a.Duplicate {
			drift = append(drift, Drift{OfConflict, fmt.Sprintf("address %s on %s is in use by somebody else", a.Prefix, a.Dev)})
		}
	}
	return drift
}

// wholeDrift is what an apply that did not end has left.
func (r *Runtime) wholeDrift(vs VirtualServer) []Drift {
	if vs.Before == nil {
		return nil
	}
	if err := r.Store.free(vs.whole(), r.MachineID); err != nil {
		return []Drift{{OfRefusal, "an apply that took something from it did not end: " + err.Error()}}
	}
	return []Drift{{OfBefore, "give back what an apply took that did not end"}}
}

// portDrift is what differs in a port.
func portDrift(p *portRecord, have plumbing.BondState) []Drift {
	if p.Leaving {
		return []Drift{{OfRefusal, "it is half destroyed: vsrun port destroy " + p.Name + " does the rest"}}
	}
	plan, err := planPort(p, have)
	drift := stepDrift(plan)
	if err != nil {
		return append(drift, Drift{OfRefusal, err.Error()})
	}
	for _, name := range have.Missing(p.Bond) {
		drift = append(drift, Drift{OfMember, "member " + name + " is not on this host"})
	}
	return drift
}

// fileDrift is what differs between the files that should be and those that the
// init keeps.
func fileDrift(want, have []service.File) (drift []Drift) {
	for _, one := range want {
		if !slices.Contains(have, one.Digest()) {
			drift = append(drift, Drift{OfFiles, "write file " + one.Path})
		}
	}
	for _, one := range have {
		if !slices.ContainsFunc(want, func(o service.File) bool { return o.Path == one.Path }) {
			drift = append(drift, Drift{OfFiles, "take file " + one.Path + " away"})
		}
	}
	return drift
}

// limitDrift is what somebody has set otherwise in cgroups.
func limitDrift(vs VirtualServer, want []service.Service, have service.Report) (drift []Drift) {
	if have.Limits == nil {
		return nil
	}
	for _, controller := range vs.Resources.Differing(*have.Limits) {
		drift = append(drift, Drift{OfLimits, "set the limit of " + controller})
	}
	for _, one := range want {
		for _, controller := range have.Changed[one.Name] {
			drift = append(drift, Drift{OfLimits, fmt.Sprintf("set the limit of %s of service %s", controller, one.Name)})
		}
	}
	return drift
}

// serviceDrift is what differs between the services that should be and those
// that the init keeps, and which of them do not run though they should.
func serviceDrift(vs VirtualServer, want []service.Service, have service.Report) (drift []Drift) {
	topic := OfServices
	if vs.Supervisor == Systemd {
		topic = OfUnits
	}
	add := func(format string, args ...any) { drift = append(drift, Drift{topic, fmt.Sprintf(format, args...)}) }
	named := func(list []service.Service, name string) int {
		return slices.IndexFunc(list, func(o service.Service) bool { return o.Name == name })
	}
	for _, one := range want {
		switch k := named(have.Wanted, one.Name); {
		case k < 0:
			add("start service %s", one.Name)
		case !one.Equal(have.Wanted[k]):
			add("restart service %s (changed)", one.Name)
		}
	}
	for _, one := range have.Wanted {
		if named(want, one.Name) < 0 {
			add("stop service %s", one.Name)
		}
	}
	for _, one := range have.Services {
		if one.State == service.Failed || one.State == service.Backoff {
			drift = append(drift, Drift{OfFailure, fmt.Sprintf("service %s: %s", one.Name, one.Last)})
		}
	}
	return drift
}
