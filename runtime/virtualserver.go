package runtime

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime/service"
	"github.com/vsrun/vsrun/runtime/units"
)

// A VirtualServer is what one should be: the document that people write and the
// record that the store keeps.
type VirtualServer struct {
	ID               int    `json:"id" yaml:"id"`                                 // 1–4094
	Name             string `json:"name,omitempty" yaml:"name,omitempty"`         // a host name; empty: vs and the ID
	Disabled         bool   `json:"disabled,omitempty" yaml:"disabled,omitempty"` // kept, but not on the network
	plumbing.Network `yaml:",inline"`
	Supervisor       string            `json:"supervisor,omitempty" yaml:"supervisor,omitempty"` // who runs the services: empty is an init of its own, or Systemd
	DNS              service.DNS       `json:"dns,omitzero" yaml:"dns,omitempty"`
	Share            []string          `json:"share,omitempty" yaml:"share,omitempty"` // paths of the host's below its own /run, /tmp, … (see service.Config)
	Files            []service.File    `json:"files,omitempty" yaml:"files,omitempty"` // seen in place of the host's
	Volumes          []service.Volume  `json:"volumes,omitempty" yaml:"volumes,omitempty"`
	Services         []service.Service `json:"services,omitempty" yaml:"services,omitempty"`
	Resources        service.Resources `json:"resources,omitzero" yaml:"resources,omitempty"` // of all its processes together

	// Before is what it was when an apply that has not ended took something from it for
	// others, and what it is to be again if that was killed. Only a record has it.
	Before *VirtualServer `json:"before,omitempty" yaml:"-"`
}

// whole is what it is to be when nobody is at work on it.
func (vs VirtualServer) whole() VirtualServer {
	if vs.Before == nil {
		return vs
	}
	whole := *vs.Before
	whole.Disabled = vs.Disabled
	return whole
}

// Systemd has the host's systemd run the services, as units. That is the weaker fence:
// they have no processes, names and files of their own (see package units).
const Systemd = "systemd"

// MaxID is the highest virtual server's number: as many as there are VLANs.
const MaxID = 4094

// Namespace is the name its network namespace is published under, whatever its
// own name: vs8.
func (vs VirtualServer) Namespace() string { return "vs" + strconv.Itoa(vs.ID) }

// numberOf is the number in a Namespace, of four digits at most; 0 of what is none.
func numberOf(namespace string) int {
	digits, ok := strings.CutPrefix(namespace, "vs")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n < 1 || n > 9999 || strconv.Itoa(n) != digits {
		return 0
	}
	return n
}

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
	switch {
	case vs.ID == 0:
		list = append(list, Problem{Path: "id", Err: fmt.Errorf("id is missing, or 0: it is 1 to %d", MaxID)})
	case vs.ID < 1 || vs.ID > MaxID:
		list = append(list, Problem{Path: "id", Err: fmt.Errorf("id %d is out of range: 1 to %d", vs.ID, MaxID)})
	}
	if err := vs.checkName(); err != nil {
		list = append(list, Problem{Path: "name", Err: err})
	}
	list = append(list, vs.Network.Validate()...)
	for _, p := range service.ValidateShare(vs.Share) {
		list = append(list, Problem{Path: p.Path, Err: fmt.Errorf("share %w", p.Err)})
	}
	for _, p := range slices.Concat(
		service.ValidateVolumes(vs.Volumes), service.ValidateFiles(vs.Files, vs.Services), service.Validate(vs.Services),
	) {
		field := p.Path[strings.LastIndexByte(p.Path, '.')+1:]
		list = append(list, Problem{Path: p.Path, Err: fmt.Errorf("%s %w", field, p.Err)})
	}
	list = append(list, vs.checkSupervisor()...)
	for _, p := range vs.Resources.Validate() {
		list = append(list, Problem{Path: p.Path, Err: p.Err})
	}
	for k, a := range vs.DNS.Servers {
		if !a.IsValid() || a.IsUnspecified() {
			list = append(list, Problem{Path: fmt.Sprintf("dns.servers[%d]", k), Err: fmt.Errorf("%s cannot be a name server", a)})
		}
	}
	for k, s := range vs.DNS.Search {
		if !isDomain(s) {
			list = append(list, Problem{Path: fmt.Sprintf("dns.search[%d]", k), Err: fmt.Errorf("%q is not a domain", s)})
		}
	}
	return list
}

// checkSupervisor refuses what a virtual server cannot have without an init of its own.
func (vs VirtualServer) checkSupervisor() (list []Problem) {
	switch vs.Supervisor {
	case "":
		return nil
	case Systemd:
	default:
		return []Problem{{Path: "supervisor", Err: fmt.Errorf("supervisor %q is unknown: it is %s, or left out", vs.Supervisor, Systemd)}}
	}
	for _, f := range []struct {
		path  string
		given bool
	}{
		{"dns", len(vs.DNS.Servers)+len(vs.DNS.Search) > 0},
		{"share", len(vs.Share) > 0},
		{"files", len(vs.Files) > 0},
		{"volumes", len(vs.Volumes) > 0},
		{"resources", !vs.Resources.Equal(service.Resources{})},
	} {
		if f.given {
			list = append(list, Problem{Path: f.path, Err: fmt.Errorf("%s is not to be had with supervisor: systemd", f.path)})
		}
	}
	for _, p := range units.Validate(vs.Services) {
		_, field, _ := strings.Cut(p.Path, ".")
		list = append(list, Problem{Path: p.Path, Err: fmt.Errorf("%s %w", field, p.Err)})
	}
	return list
}

// isLabel reports whether s is one label of a host name (RFC 1123, 2.1), of 1 to
// 63 letters, digits and hyphens inside.
func isLabel(s string) bool {
	if len(s) < 1 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !(r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	})
}

// isDomain reports whether s can be searched in. Names in the DNS may have
// underscores where host names have none.
func isDomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if !isLabel(strings.ReplaceAll(label, "_", "a")) {
			return false
		}
	}
	return true
}

// isNumber reports whether s looks like a virtual server's number: 8 or vs8.
func isNumber(s string) bool {
	s = strings.TrimPrefix(strings.ToLower(s), "vs")
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// checkName: a name stands for the virtual server wherever its number does, so
// it cannot look like another's.
func (vs VirtualServer) checkName() error {
	switch {
	case vs.Name == "" || vs.Name == vs.Namespace():
		return nil
	case !isLabel(vs.Name):
		return fmt.Errorf("name %q is not a host name: letters, digits and hyphens, at most 63", vs.Name)
	case isNumber(vs.Name):
		return fmt.Errorf("name %q looks like another virtual server's number", vs.Name)
	}
	return nil
}
