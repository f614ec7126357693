package service

import (
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/vsrun/vsrun/nsutil/cgroup"
)

// Resources are what a service, or a virtual server as a whole, may use. Empty is
// no limit.
type Resources struct {
	Memory string   `json:"memory,omitempty" yaml:"memory,omitempty"` // bytes, or with K, M, G or T; 1M at least
	CPU    string   `json:"cpu,omitempty" yaml:"cpu,omitempty"`       // of one processor: 50%, 200%
	Tasks  int      `json:"tasks,omitempty" yaml:"tasks,omitempty"`   // processes and threads
	IO     []IORate `json:"io,omitempty" yaml:"io,omitempty"`
}

// An IORate is how much may be read from, and written to, the disk that a path is
// on.
type IORate struct {
	Path     string `json:"path,omitempty" yaml:"path,omitempty"`         // a file, directory or block device
	Read     string `json:"read,omitempty" yaml:"read,omitempty"`         // bytes a second, or with K, M, G or T
	Write    string `json:"write,omitempty" yaml:"write,omitempty"`       // likewise
	ReadOps  int    `json:"readOps,omitempty" yaml:"readOps,omitempty"`   // operations a second, below 2^32-1
	WriteOps int    `json:"writeOps,omitempty" yaml:"writeOps,omitempty"` // likewise
}

// Equal reports whether both are the same limits.
func (r Resources) Equal(o Resources) bool {
	return r.Memory == o.Memory && r.CPU == o.CPU && r.Tasks == o.Tasks && slices.Equal(r.IO, o.IO)
}

// limits are these for the kernel. Paths are looked up where the caller is.
func (r Resources) limits() (l cgroup.Limits, err error) {
	l.Memory, _ = parseBytes(r.Memory)
	l.CPU, _ = parsePercent(r.CPU)
	l.Tasks = r.Tasks
	for _, io := range r.IO {
		one := cgroup.IO{ReadOps: int64(io.ReadOps), WriteOps: int64(io.WriteOps)}
		one.ReadBytes, _ = parseBytes(io.Read)
		one.WriteBytes, _ = parseBytes(io.Write)
		if one.Device, err = cgroup.Device(io.Path); err != nil {
			return l, fmt.Errorf("cannot limit io: %w", err)
		}
		if k := slices.IndexFunc(l.IO, func(io cgroup.IO) bool { return io.Device == one.Device }); k >= 0 {
			l.IO[k] = l.IO[k].Both(one) // the kernel has one limit for a disk
			continue
		}
		l.IO = append(l.IO, one)
	}
	return l, nil
}

func (r Resources) apply(g *cgroup.Group) error {
	l, err := r.limits()
	if err != nil {
		return err
	}
	return g.Limit(l)
}

// Differing are the controllers by which other limits are set than these; none when it cannot
// be told, as without a disk that one is about.
func (r Resources) Differing(have cgroup.Limits) []string {
	want, err := r.limits()
	if err != nil {
		return nil
	}
	return want.Differing(have)
}

// Limit sets what all processes of a virtual server together may use, those that
// run included. It has no cgroup as long as nothing was started in it.
func Limit(id int, r Resources) error {
	g := cgroup.Find().Open(cgroup.Name(id))
	defer g.Close()
	return r.apply(g)
}

// leastMemory is what the smallest program needs, with what the kernel keeps for it.
const leastMemory = 1 << 20

// Validate reports everything that is wrong with them.
func (r Resources) Validate() []Problem {
	var problems []Problem
	r.validate(func(path string, err error) {
		if err != nil {
			problems = append(problems, Problem{path, err})
		}
	})
	return problems
}

func (r Resources) validate(add func(path string, err error)) {
	memory, err := parseBytes(r.Memory)
	if err == nil && r.Memory != "" && memory < leastMemory {
		err = fmt.Errorf("%q is %d bytes, in which nothing can run: at least 1M, with the unit", r.Memory, memory)
	}
	add("resources.memory", err)
	_, err = parsePercent(r.CPU)
	add("resources.cpu", err)
	if r.Tasks < 0 || r.Tasks > 4<<20 {
		add("resources.tasks", fmt.Errorf("%d is out of range: 1 to %d", r.Tasks, 4<<20))
	}
	for i, io := range r.IO {
		io.validate(func(field string, err error) { add(fmt.Sprintf("resources.io[%d].%s", i, field), err) })
	}
}

func (io IORate) validate(add func(field string, err error)) {
	if !path.IsAbs(io.Path) || checkText(io.Path) != nil {
		add("path", fmt.Errorf("%q is not an absolute path", io.Path))
	}
	_, err := parseBytes(io.Read)
	add("read", err)
	_, err = parseBytes(io.Write)
	add("write", err)
	for _, ops := range []int{io.ReadOps, io.WriteOps} {
		if ops < 0 || ops >= math.MaxUint32 {
			add("readOps", fmt.Errorf("%d, here or in writeOps, is out of range: 1 to %d", ops, math.MaxUint32-1))
		}
	}
	if (io == IORate{Path: io.Path}) {
		add("read", errors.New("is missing, as are write, readOps and writeOps"))
	}
}

func parseBytes(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	digits := strings.TrimRight(s, "KMGT")
	shift := 0
	if unit := s[len(digits):]; len(unit) == 1 {
		shift = 10 * (1 + strings.Index("KMGT", unit))
	} else if unit != "" {
		digits = ""
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 1 || n<<shift>>shift != n {
		return 0, fmt.Errorf("%q is no amount of bytes: a number, or one with K, M, G or T", s)
	}
	return n << shift, nil
}

func parsePercent(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	digits, ok := strings.CutSuffix(s, "%")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n < 1 || n > 100*1024 {
		return 0, fmt.Errorf("%q is no share of processors such as 50%% or 200%%", s)
	}
	return n, nil
}
