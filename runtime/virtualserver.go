package runtime

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime/service"
)

// A VirtualServer is what one should be: the document that people write and the
// record that the store keeps.
type VirtualServer struct {
	ID               int    `json:"id" yaml:"id"`                                 // 1–4094
	Name             string `json:"name,omitempty" yaml:"name,omitempty"`         // a host name; empty: vs and the ID
	Disabled         bool   `json:"disabled,omitempty" yaml:"disabled,omitempty"` // kept, but not on the network
	plumbing.Network `yaml:",inline"`
	DNS              service.DNS       `json:"dns,omitzero" yaml:"dns,omitempty"`
	Services         []service.Service `json:"services,omitempty" yaml:"services,omitempty"`
}

// MaxID is the highest virtual server's number: as many as there are VLANs.
const MaxID = 4094

// Namespace is the name its network namespace is published under, whatever its
// own name: vs8.
func (vs VirtualServer) Namespace() string { return "vs" + strconv.Itoa(vs.ID) }

// Title is the name it goes by.
func (vs VirtualServer) Title() string {
	if vs.Name != "" {
		return vs.Name
	}
	return vs.Namespace()
}

// String names it in messages: vs8, or vs8 (finance).
func (vs VirtualServer) String() string {
	if vs.Name != "" && vs.Name != vs.Namespace() {
		return fmt.Sprintf("%s (%s)", vs.Namespace(), vs.Name)
	}
	return vs.Namespace()
}

// A Problem is one thing wrong with a virtual server, and where: Path is the
// field as it is written in a document.
type Problem = plumbing.Problem

// Validate reports everything that is wrong with it and can be known without
// the kernel, all of it at once.
func (vs VirtualServer) Validate() []Problem {
	var list []Problem
	if vs.ID < 1 || vs.ID > MaxID {
		list = append(list, Problem{Path: "id", Err: fmt.Errorf("id %d is out of range: 1 to %d", vs.ID, MaxID)})
	}
	if err := vs.checkName(); err != nil {
		list = append(list, Problem{Path: "name", Err: err})
	}
	list = append(list, vs.Network.Validate()...)
	for _, p := range service.Validate(vs.Services) {
		list = append(list, Problem(p))
	}
	for k, a := range vs.DNS.Servers {
		if !a.IsValid() || a.IsUnspecified() {
			list = append(list, Problem{Path: fmt.Sprintf("dns.servers[%d]", k), Err: fmt.Errorf("%s cannot be a name server", a)})
		}
	}
	for k, s := range vs.DNS.Search {
		if !domain.MatchString(s) {
			list = append(list, Problem{Path: fmt.Sprintf("dns.search[%d]", k), Err: fmt.Errorf("%q is not a domain", s)})
		}
	}
	return list
}

var (
	label  = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	domain = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9.])?$`)
	number = regexp.MustCompile(`^[0-9]+$`)
	ours   = regexp.MustCompile(`^vs[0-9]+$`)
)

// checkName: a name stands for the virtual server wherever its number does, so
// it cannot look like another's.
func (vs VirtualServer) checkName() error {
	switch {
	case vs.Name == "" || vs.Name == vs.Namespace():
		return nil
	case !label.MatchString(vs.Name):
		return fmt.Errorf("name %q is not a host name: letters, digits and hyphens, at most 63", vs.Name)
	case number.MatchString(vs.Name), ours.MatchString(strings.ToLower(vs.Name)):
		return fmt.Errorf("name %q looks like another virtual server's number", vs.Name)
	}
	return nil
}

// conflict says what a and b cannot both have; "" when they get along. The same
// address may be on two ports: these are two networks.
func (vs VirtualServer) conflict(other VirtualServer) string {
	if strings.EqualFold(vs.Title(), other.Title()) {
		return fmt.Sprintf("name %s", vs.Title())
	}
	macs := map[plumbing.MAC]bool{}
	type spot struct {
		port string
		addr netip.Addr
	}
	taken := map[spot]bool{}
	for _, i := range other.Interfaces {
		macs[i.MAC] = !i.MAC.IsZero()
		for _, p := range i.Addresses {
			taken[spot{i.Port, p.Addr()}] = true
		}
	}
	for _, i := range vs.Interfaces {
		if macs[i.MAC] {
			return fmt.Sprintf("MAC %s", i.MAC)
		}
		for _, p := range i.Addresses {
			if taken[spot{i.Port, p.Addr()}] {
				return fmt.Sprintf("address %s on port %s", p.Addr(), i.Port)
			}
		}
	}
	return ""
}
