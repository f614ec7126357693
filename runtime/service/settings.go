package service

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Settings are how the processes of a service run: what they may do, and what
// the kernel tells processes apart by otherwise. The zero Settings are root
// without any capability, under the default filter of system calls.
type Settings struct {
	User  string `json:"user,omitempty" yaml:"user,omitempty"`   // a name or number; empty: root
	Group string `json:"group,omitempty" yaml:"group,omitempty"` // a name or number; empty: the user's

	// Capabilities are those that the processes may have (capabilities(7), as
	// NET_BIND_SERVICE), and sets of them by a daemon's name (see Presets).
	Capabilities []string `json:"capabilities,omitempty" yaml:"capabilities,omitempty"`
	// Syscalls is what the filter of system calls lets through: empty is all but
	// those that change namespaces, mounts, modules, keys or the clock, "all" is
	// everything.
	Syscalls string `json:"syscalls,omitempty" yaml:"syscalls,omitempty"`
	// ReadOnly lets the processes write only to what is Writable, their private
	// directories, and those that the virtual server has in memory.
	ReadOnly bool `json:"readOnly,omitempty" yaml:"readOnly,omitempty"`
	// Writable are files and directories that the processes may write to, as far as
	// their user may, though they are read-only otherwise: what the system's programs
	// are and go by, what sets the kernel in /proc and /sys, and with ReadOnly
	// everything. They must exist, and have no symlinks.
	Writable []string `json:"writable,omitempty" yaml:"writable,omitempty"`

	// UnsafeExports allows an NFS server to export a part of a filesystem: its clients
	// can then reach all of that (see checkExports).
	UnsafeExports bool `json:"unsafeExports,omitempty" yaml:"unsafeExports,omitempty"`

	Environment map[string]string `json:"environment,omitempty" yaml:"environment,omitempty"`
	Directory   string            `json:"directory,omitempty" yaml:"directory,omitempty"` // empty: /
	Umask       string            `json:"umask,omitempty" yaml:"umask,omitempty"`         // octal; empty: 022
	Limits      map[string]string `json:"limits,omitempty" yaml:"limits,omitempty"`       // setrlimit(2): nofile: 4096, or soft:hard
	Nice        int               `json:"nice,omitempty" yaml:"nice,omitempty"`           // -20 to 19
	OOMScore    int               `json:"oomScore,omitempty" yaml:"oomScore,omitempty"`   // -1000 (never) to 1000 (first)
	Resources   Resources         `json:"resources,omitzero" yaml:"resources,omitempty"`  // of all its processes together
}

// A Sandbox is what a service may do, with defaults and presets spelt out.
type Sandbox struct {
	User         string   `json:"user"`
	Group        string   `json:"group"` // empty: the user's
	Capabilities []string `json:"capabilities"`
	Syscalls     string   `json:"syscalls"` // filtered, or all
	ReadOnly     bool     `json:"readOnly"`
	Writable     []string `json:"writable"`
	Private      []string `json:"private"`
}

// Sandbox is what the service may do.
func (s Service) Sandbox() Sandbox {
	return Sandbox{
		User: or(s.User, "root"), Group: s.Group, Syscalls: or(s.Syscalls, "filtered"), ReadOnly: s.ReadOnly,
		Capabilities: append([]string{}, s.capabilities()...),
		Writable:     append([]string{}, s.Writable...),
		Private:      append([]string{}, s.Private...),
	}
}

// allSyscalls switches the filter off.
const allSyscalls = "all"

// Presets are what file servers were measured to need, by the daemon's name.
var Presets = map[string][]string{
	"nginx":   {"CHOWN", "NET_BIND_SERVICE", "SETGID", "SETUID"},
	"samba":   {"NET_BIND_SERVICE", "SETGID", "SETUID"},
	"ganesha": {"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "SETGID", "SETUID"},
	"rpcbind": {"NET_BIND_SERVICE", "SETGID", "SETUID"},
	"vsftpd":  {"NET_BIND_SERVICE", "SETGID", "SETUID", "SYS_CHROOT"},
	"sshd":    {"NET_BIND_SERVICE", "SETGID", "SETUID", "SYS_CHROOT"},
	"rsync":   {"NET_BIND_SERVICE", "SETGID", "SETUID", "SYS_CHROOT"},
}

// rlimits are the limits by their names in limits.conf(5).
var rlimits = map[string]int{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
	"fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK,
	"msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
	"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO,
	"sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

// capabilities are those that the processes may have, sorted.
func (s Settings) capabilities() []string {
	set := map[string]bool{}
	for _, word := range s.Capabilities {
		if preset, ok := Presets[word]; ok {
			for _, c := range preset {
				set[c] = true
			}
			continue
		}
		set[word] = true
	}
	return slices.Sorted(maps.Keys(set))
}

func (s Settings) validate(add func(path string, err error)) {
	for i, word := range s.Capabilities {
		if _, preset := Presets[word]; !preset {
			_, err := capabilityNamed(word)
			add(fmt.Sprintf("capabilities[%d]", i), err)
		}
	}
	if s.Syscalls != "" && s.Syscalls != allSyscalls {
		add("syscalls", fmt.Errorf("%q is neither empty nor %s", s.Syscalls, allSyscalls))
	}
	for i, p := range s.Writable {
		add(fmt.Sprintf("writable[%d]", i), checkWritable(p))
	}
	add("user", checkAccount(s.User))
	add("group", checkAccount(s.Group))
	for _, name := range slices.Sorted(maps.Keys(s.Environment)) {
		if name == "" || strings.Contains(name, "=") || checkText(name+s.Environment[name]) != nil {
			add("environment", fmt.Errorf("%q cannot be in an environment", name))
		}
	}
	if s.Directory != "" && (!path.IsAbs(s.Directory) || checkText(s.Directory) != nil) {
		add("directory", fmt.Errorf("%q is not an absolute path", s.Directory))
	}
	_, err := s.umask()
	add("umask", err)
	for _, name := range slices.Sorted(maps.Keys(s.Limits)) {
		_, _, err := s.limit(name)
		add("limits."+name, err)
	}
	s.Resources.validate(add)
	if s.Nice < -20 || s.Nice > 19 {
		add("nice", fmt.Errorf("%d is out of range: -20 to 19", s.Nice))
	}
	if s.OOMScore < -1000 || s.OOMScore > 1000 {
		add("oomScore", fmt.Errorf("%d is out of range: -1000 to 1000", s.OOMScore))
	}
}

func checkWritable(p string) error {
	switch {
	case checkText(p) != nil:
		return checkText(p)
	case !path.IsAbs(p):
		return fmt.Errorf("%q is not an absolute path", p)
	case path.Clean(p) != p:
		return fmt.Errorf("%q is to be written %q", p, path.Clean(p))
	case p == "/":
		return errors.New(`"/" cannot be writable as a whole: name directories in it`)
	}
	return nil
}

func checkAccount(name string) error {
	if strings.ContainsAny(name, ":\n") || checkText(name) != nil || len(name) > 256 {
		return fmt.Errorf("%q cannot be an account's name", name)
	}
	return nil
}

// umask is the mode that new files do not get.
func (s Settings) umask() (int, error) {
	if s.Umask == "" {
		return 0o022, nil
	}
	n, err := strconv.ParseUint(s.Umask, 8, 9)
	if err != nil {
		return 0, fmt.Errorf("%q is not an octal number up to 777", s.Umask)
	}
	return int(n), nil
}

// limit is one of setrlimit(2)'s: one number for both, or soft:hard.
func (s Settings) limit(name string) (resource int, r unix.Rlimit, err error) {
	resource, ok := rlimits[name]
	if !ok {
		return 0, r, fmt.Errorf("is unknown: it is one of %s", strings.Join(slices.Sorted(maps.Keys(rlimits)), ", "))
	}
	soft, hard, two := strings.Cut(s.Limits[name], ":")
	if !two {
		hard = soft
	}
	if r.Cur, err = limitNumber(soft); err == nil {
		r.Max, err = limitNumber(hard)
	}
	if err == nil && r.Cur > r.Max {
		err = errors.New("the soft limit is above the hard one")
	}
	return resource, r, err
}

func limitNumber(s string) (uint64, error) {
	if s == "unlimited" {
		return unix.RLIM_INFINITY, nil
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%q is neither a number nor unlimited", s)
	}
	return n, nil
}

func (s Settings) equal(o Settings) bool {
	return s.User == o.User && s.Group == o.Group && s.Syscalls == o.Syscalls && s.Directory == o.Directory &&
		s.Umask == o.Umask && s.ReadOnly == o.ReadOnly && s.Resources.Equal(o.Resources) && s.Nice == o.Nice && s.UnsafeExports == o.UnsafeExports && s.OOMScore == o.OOMScore &&
		slices.Equal(s.Writable, o.Writable) && slices.Equal(s.Capabilities, o.Capabilities) && maps.Equal(s.Environment, o.Environment) && maps.Equal(s.Limits, o.Limits)
}
