package plumbing

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A sysctl is a kernel parameter of a network namespace and its value.
type sysctl struct{ key, value string }

// serverSysctls is how a server with several interfaces wants its namespace;
// Documentation/networking/ip-sysctl.rst has each. Settings for all interfaces
// are written to "all" where the kernel takes the larger or either value, else
// to "default" too, before any interface is there. IPv4's start as copies of
// the host's, so even the kernel's own defaults are written. Those of one directory follow
// each other (see sysctlDir).
var serverSysctls = slices.Concat(firstSysctls, ip6Sysctls)

// firstSysctls are set before any link is there.
var firstSysctls = []sysctl{
	// A server, not a router.
	{"net.ipv4.ip_forward", "0"},
	// Two interfaces on one subnet: each answers for its own addresses only.
	{"net.ipv4.conf.all.arp_ignore", "1"},
	{"net.ipv4.conf.all.arp_announce", "2"},
	// Strict filtering drops what comes in by an interface that the route back
	// does not leave by; loose (RFC 3704, 2.4) is for multi-homed hosts.
	{"net.ipv4.conf.all.rp_filter", "2"},
	{"net.ipv4.conf.all.accept_redirects", "0"},
	{"net.ipv4.conf.all.accept_source_route", "0"},
	// A primary address that goes takes its secondaries along otherwise.
	{"net.ipv4.conf.all.promote_secondaries", "1"},
	// The kernel announces addresses when it is told to (see announce), and by
	// itself after a link's or a bond's change.
	{"net.ipv4.conf.all.arp_notify", "1"},
	{"net.ipv4.conf.default.accept_redirects", "0"},
	// What an administrator may have switched off for the host.
	{"net.ipv6.conf.default.disable_ipv6", "0"},
	// Addresses and routes are the document's, not a router's.
	{"net.ipv6.conf.default.accept_ra", "0"},
	{"net.ipv6.conf.default.autoconf", "0"},
	{"net.ipv6.conf.default.accept_redirects", "0"},
	// Link-local addresses, and those of a router's prefix, derive from the MAC, as
	// it was each time (EUI-64), and there are no others beside them (RFC 8981).
	{"net.ipv6.conf.default.addr_gen_mode", "0"},
	{"net.ipv6.conf.default.use_tempaddr", "0"},
	{"net.ipv6.conf.all.forwarding", "0"},
	{"net.ipv6.conf.all.disable_ipv6", "0"},
	// IPv6 addresses survive link down and up, as IPv4's do.
	{"net.ipv6.conf.all.keep_addr_on_down", "1"},
	// The link-local address too is usable at once, while duplicate detection is
	// still running (RFC 4429).
	{"net.ipv6.conf.all.optimistic_dad", "1"},
	{"net.ipv6.conf.all.use_optimistic", "1"},
}

// ip6Sysctls are for who has IPv6 addresses to announce, when the links are up: by then the
// kernel would announce the link-local address of each, for which nobody waits, and every
// neighbour on the port would get a copy.
var ip6Sysctls = []sysctl{{"net.ipv6.conf.all.ndisc_notify", "1"}}

// raSysctls have an interface heed what routers say, and give itself addresses by it, or
// not; and let one be its default gateway, or not. With slashes a key may have a name with
// dots in it (sysctl(8)).
func raSysctls(dev string, on, gateway bool) []sysctl {
	return []sysctl{raSysctl(dev, "autoconf", on), raSysctl(dev, raGateway, gateway), raSysctl(dev, raItself, on)}
}

const (
	raItself  = "accept_ra"
	raGateway = "accept_ra_defrtr"
)

func raSysctl(dev, name string, on bool) sysctl {
	return sysctl{"net/ipv6/conf/" + dev + "/" + name, map[bool]string{false: "0", true: "1"}[on]}
}

func (c sysctl) path() string {
	if strings.Contains(c.key, "/") {
		return "/proc/sys/" + c.key
	}
	return "/proc/sys/" + strings.ReplaceAll(c.key, ".", "/")
}

// write sets it in the calling thread's network namespace.
func (c sysctl) write() error {
	var d sysctlDir
	defer d.close()
	return d.write(c)
}

// read is the value in the calling thread's network namespace; "" when the
// kernel does not have it.
func (c sysctl) read() (string, error) {
	var d sysctlDir
	defer d.close()
	return d.read(c)
}

// A sysctlDir is the directory of the parameter that was read or written last: most of the
// time goes by on the way there, and each namespace has twenty. Package os would make each
// file known to the runtime's poller, too.
type sysctlDir struct {
	proc *procfs
	path string
	fd   int
}

func (d *sysctlDir) open(c sysctl, flags int) (fd int, err error) {
	dir, file := filepath.Split(c.path())
	if dir != d.path {
		if d.path != "" {
			unix.Close(d.fd)
			d.path = ""
		}
		if d.proc == nil {
			d.proc = visitProcfs()
		}
		if d.fd, err = d.proc.open(dir); err != nil {
			return -1, err
		}
		d.path = dir
	}
	return unix.Openat(d.fd, file, flags|unix.O_CLOEXEC, 0)
}

func (d *sysctlDir) close() {
	if d.path != "" {
		unix.Close(d.fd)
	}
	if d.proc != nil {
		d.proc.giveBack()
	}
	*d = sysctlDir{}
}

func (d *sysctlDir) write(c sysctl) error {
	fd, err := d.open(c, unix.O_WRONLY)
	if err == nil {
		_, err = unix.Write(fd, []byte(c.value))
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.key, err)
	}
	return nil
}

func (d *sysctlDir) read(c sysctl) (string, error) {
	fd, err := d.open(c, unix.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", c.key, err)
	}
	defer unix.Close(fd)
	var text [64]byte // all of them are numbers
	n, err := unix.Read(fd, text[:])
	if err != nil {
		return "", fmt.Errorf("%s: %w", c.key, err)
	}
	return strings.TrimSpace(string(text[:n])), nil
}

// offered reports whether this kernel has the parameter.
func (f Features) offered(c sysctl) bool {
	switch {
	case !strings.HasPrefix(c.key, "net.ipv6."):
		return true
	case strings.HasSuffix(c.key, "optimistic_dad"), strings.HasSuffix(c.key, "use_optimistic"):
		return f.OptimisticDAD
	}
	return f.IPv6
}
