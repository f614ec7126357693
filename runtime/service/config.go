package service

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Config is what the init of a virtual server is told once, when it starts.
type Config struct {
	ID       int    `json:"id"`                 // number of the virtual server
	Hostname string `json:"hostname,omitempty"` // empty: "vs" and the ID
	NetnsDir string `json:"netnsDir"`           // where namespaces are published; hidden inside
	LogDir   string `json:"logDir"`             // made when absent; a file for each service and one for the init
	DNS      DNS    `json:"dns,omitzero"`       // zero: the host's resolv.conf

	// Share are files, sockets and directories below /run, /tmp, /var/tmp and
	// /dev that the virtual server sees though it has these directories for
	// itself. They must exist when the init starts. A file is the one that was
	// there then; a directory shows what becomes of it.
	Share []string `json:"share,omitempty"`

	// Volumes are handed over mounted, and are as they were when the init started.
	Volumes []Volume `json:"volumes,omitempty"`

	// PrivateDir is where private directories are kept, each under the path it
	// has inside. It is made when the first one is needed.
	PrivateDir string `json:"privateDir"`

	// Hide are directories that the virtual server does not see into, because
	// they are the host's, or hold what is other virtual servers'. LogDir,
	// PrivateDir and the socket may be there.
	Hide []string `json:"hide,omitempty"`
}

// Same reports whether both give a virtual server the same name, DNS, shares and
// volumes.
// The other fields say where things are, and an init goes on that has been told
// otherwise.
func (c Config) Same(o Config) bool {
	return c.hostname() == o.hostname() && slices.Equal(c.Share, o.Share) && slices.EqualFunc(c.Volumes, o.Volumes, Volume.same) &&
		slices.Equal(c.DNS.Servers, o.DNS.Servers) && slices.Equal(c.DNS.Search, o.DNS.Search)
}

// DNS says whom the virtual server asks for names.
type DNS struct {
	Servers []netip.Addr `json:"servers,omitempty" yaml:"servers,omitempty"`
	Search  []string     `json:"search,omitempty" yaml:"search,omitempty"`
}

func (d DNS) isZero() bool { return len(d.Servers) == 0 && len(d.Search) == 0 }

// resolvConf is the text of the resolv.conf that says so.
func (d DNS) resolvConf() string {
	var b strings.Builder
	b.WriteString("# made by vsrun\n")
	if len(d.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(d.Search, " "))
	}
	for _, a := range d.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	return b.String()
}

func (c Config) hostname() string {
	if c.Hostname != "" {
		return c.Hostname
	}
	return "vs" + strconv.Itoa(c.ID)
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() []Problem {
	var problems []Problem
	add := func(path string, wrong bool, why string) {
		if wrong {
			problems = append(problems, Problem{path, errors.New(why)})
		}
	}
	add("id", c.ID <= 0, "is not positive")
	add("hostname", len(c.Hostname) > 64, "is longer than 64 bytes")
	for _, dir := range []struct{ field, path string }{
		{"netnsDir", c.NetnsDir}, {"logDir", c.LogDir}, {"privateDir", c.PrivateDir},
	} {
		clean := path.IsAbs(dir.path) && path.Clean(dir.path) == dir.path
		add(dir.field, !clean, fmt.Sprintf("%q is not a clean absolute path", dir.path))
	}
	for i, dir := range c.Hide {
		good := path.IsAbs(dir) && path.Clean(dir) == dir && dir != "/"
		add(fmt.Sprintf("hide[%d]", i), !good, fmt.Sprintf("%q is not a clean absolute path", dir))
	}
	for i, a := range c.DNS.Servers {
		add(fmt.Sprintf("dns.servers[%d]", i), !a.IsValid(), "is no address")
	}
	for i, s := range c.DNS.Search {
		bad := s == "" || strings.ContainsAny(s, " \t\r\n\x00")
		add(fmt.Sprintf("dns.search[%d]", i), bad, fmt.Sprintf("%q is no domain", s))
	}
	return slices.Concat(problems, ValidateShare(c.Share), ValidateVolumes(c.Volumes))
}

// boot is what the starter writes into the init's configuration pipe.
type boot struct {
	Config Config `json:"config"`
	Socket string `json:"socket"`
	Host   uint64 `json:"host"`   // the starter's PID namespace, by its inode number
	Groups int    `json:"groups"` // how many directories the cgroup is that is handed over
}

func newBoot(cfg Config, socket string) (boot, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return boot{}, fmt.Errorf("cannot see the PID namespace: %w", err)
	}
	return boot{Config: cfg, Socket: socket, Host: st.Ino}, nil
}

// joined makes one error of all problems, nil of none.
func joined(problems []Problem) error {
	var errs []error
	for _, p := range problems {
		errs = append(errs, p)
	}
	return errors.Join(errs...)
}
