package runtime

import (
	"errors"
	"slices"

	"github.com/vsrun/vsrun/plumbing"
)

// A PortStatus is how a port stands.
type PortStatus struct {
	Name    string            `json:"name"`
	State   string            `json:"state"` // up, degraded (a member is missing or without link, or something differs), down
	Mode    plumbing.BondMode `json:"mode"`
	MAC     plumbing.MAC      `json:"mac"`
	MTU     int               `json:"mtu"`
	Active  string            `json:"active,omitempty"` // the member that carries all, in the modes that have one
	Members []MemberStatus    `json:"members"`
	Users   []string          `json:"users"` // virtual servers on it
	Drift   []Drift           `json:"drift"`
}

// A MemberStatus is how a member stands.
type MemberStatus struct {
	Name     string `json:"name"`
	State    string `json:"state"`    // up, down, backup, missing (not on this host), out (not in the bond)
	Failures int    `json:"failures"` // times that its link was lost
}

// PortStatus looks at a port.
func (r *Runtime) PortStatus(name string) (PortStatus, error) {
	p, err := r.Store.loadPort(name)
	if err != nil {
		return PortStatus{}, err
	}
	h, err := plumbing.OpenHost()
	if err != nil {
		return PortStatus{}, err
	}
	defer h.Close()
	have, err := p.observe(h)
	if err != nil {
		return PortStatus{}, err
	}
	users, err := r.usersOf(name)
	s := PortStatus{
		Name: name, State: "down", Mode: p.Mode, MAC: have.MAC, Active: have.Active,
		Members: []MemberStatus{}, Users: append([]string{}, users...), Drift: []Drift{},
	}
	s.Drift = append(s.Drift, portDrift(&p, have)...)
	whole := len(s.Drift) == 0
	for _, name := range p.Members {
		m := memberStatus(name, have)
		s.Members = append(s.Members, m)
		// In 802.3ad it is one that the other end has not taken into the aggregate.
		whole = whole && (m.State == "up" || m.State == "backup" && p.Mode == plumbing.ActiveBackup)
	}
	if have.Device != nil {
		s.MTU = have.Device.MTU
		switch {
		case !have.Device.Up || !have.Carrier:
		case whole:
			s.State = "up"
		default:
			s.State = Degraded
		}
	}
	return s, err
}

// PortStatusAll looks at all of them.
func (r *Runtime) PortStatusAll() ([]PortStatus, error) {
	names, err := r.Store.Ports()
	errs := []error{err}
	all := []PortStatus{}
	for _, name := range names {
		s, err := r.PortStatus(name)
		if err == nil {
			all = append(all, s)
		}
		errs = append(errs, err)
	}
	return all, errors.Join(errs...)
}

func memberStatus(name string, have plumbing.BondState) MemberStatus {
	k := slices.IndexFunc(have.Members, func(m plumbing.Member) bool { return m.Name == name })
	if k < 0 {
		return MemberStatus{Name: name, State: "missing"}
	}
	m := have.Members[k]
	s := MemberStatus{Name: name, State: m.MII, Failures: m.Failures}
	switch {
	case !m.Enslaved:
		s.State = "out"
	case m.MII == "up" && m.Backup:
		s.State = "backup"
	}
	return s
}
