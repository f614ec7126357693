package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// nsDir holds the namespaces of switches and clients, where `ip netns` and the
// programs under test do not look.
const nsDir = labDir + "/net"

// A Segment is an Ethernet segment: a switch that some ports of the host and
// some clients are plugged into.
type Segment struct {
	h *Host
	// path of the namespace in which the switch is a bridge; each of its own
	// ports there has the name of what is plugged in.
	path string
}

// Segment makes ports on the host, up and without addresses but the link-local
// one, all plugged into one new switch.
func (h *Host) Segment(ports ...string) *Segment {
	h.t.Helper()
	s := &Segment{h, filepath.Join(nsDir, "switch-"+strings.Join(ports, "-"))}
	h.build(
		func() error {
			if err := s.make(); err != nil {
				return err
			}
			for _, port := range ports {
				if err := s.plug(port); err != nil {
					return err
				}
			}
			return s.awaitForwarding(ports...)
		},
		func() error {
			var errs []error
			for _, port := range ports {
				errs = append(errs, deleteLink(port))
			}
			return errors.Join(append(errs, dropNamespace(s.path))...)
		})
	return s
}

// make makes the switch: a bridge that forwards at once, everything that it
// has not learned to everybody, and says nothing itself.
func (s *Segment) make() error {
	if err := newNamespace(s.path); err != nil {
		return err
	}
	return batch(s.path,
		"sysctl net.ipv6.conf.default.disable_ipv6=1",
		"link add name switch type bridge forward_delay 0 mcast_snooping 0",
		"link set dev switch up")
}

// hostNetns is the host's namespace in iproute2's words: that of its PID 1.
const hostNetns = "1"

var cables atomic.Int32

// cable makes a device whose other end is in another namespace. Were their indexes the
// same there, as small ones often are, the kernel would take it for a device that sits on
// no other, and notice its carrier up to a second later (linkwatch_urgent_event() in
// net/core/link_watch.c): a switch forwards nothing until then.
func cable(name, peer, ns string) string {
	return fmt.Sprintf("link add name %s index %d type veth peer name %s netns %s", name, 1<<20+cables.Add(1), peer, ns)
}

// plug makes a port on the host and plugs it in.
func (s *Segment) plug(port string) error {
	if err := batch(s.path, cable(port, port, hostNetns), "link set dev "+port+" master switch up"); err != nil {
		return err
	}
	// Its link-local address is there at once, not after a second.
	if err := batch("", "sysctl net.ipv6.conf."+port+".accept_dad=0", "link set dev "+port+" up"); err != nil {
		return err
	}
	return awaitLinkLocal(port)
}

// SetCarrier pulls the cable out of a port of the host, or puts it back.
func (s *Segment) SetCarrier(t testing.TB, port string, on bool) {
	t.Helper()
	state := map[bool]string{true: "up", false: "down"}[on]
	must(t, inside(s.path, "ip", "link", "set", "dev", port, state))
}

// awaitLinkLocal waits for the address that the kernel gives a port when it
// has noticed the carrier. What follows finds the port settled.
func awaitLinkLocal(port string) error {
	if off, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + port + "/disable_ipv6"); err != nil || off[0] == '1' {
		return nil
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if hasLinkLocal(port) {
			return nil
		}
	}
	return fmt.Errorf("%s has had no link-local address for 10 seconds", port)
}

// hasLinkLocal looks into if_inet6: address, index, prefix length, scope,
// flags, name.
func hasLinkLocal(port string) bool {
	const scopeLink = "20"
	all, _ := os.ReadFile("/proc/net/if_inet6")
	for line := range strings.Lines(string(all)) {
		if f := strings.Fields(line); len(f) == 6 && f[3] == scopeLink && f[5] == port {
			return true
		}
	}
	return false
}

// batch runs lines of `ip -batch` in a namespace; a line that starts with
// sysctl sets one instead, unless this kernel lacks it. Sysctls come first.
func batch(ns string, lines ...string) error {
	var sets, ips string
	for _, l := range lines {
		if set, ok := strings.CutPrefix(l, "sysctl "); ok {
			name, value, _ := strings.Cut(set, "=")
			path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
			sets += fmt.Sprintf("test ! -e %s || echo %s > %s\n", path, value, path)
		} else {
			ips += l + "\n"
		}
	}
	script, argv := ips, []string{"ip", "-batch", "-"}
	if sets != "" {
		script, argv = sets+"exec ip -batch - <<END\n"+ips+"END\n", []string{"sh", "-es"}
	}
	if r := run(script, enter(ns, argv)...); r.Code != 0 {
		return fmt.Errorf("%v\n%s", r, script)
	}
	return nil
}

// newNamespace makes a network namespace with loopback up, published at path.
func newNamespace(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0)
	if err != nil {
		return err
	}
	f.Close()
	if r := run("", "unshare", "--net="+path, "ip", "link", "set", "lo", "up"); r.Code != 0 {
		return errors.New(r.String())
	}
	return nil
}

func dropNamespace(path string) error {
	if r := run("", "umount", path); r.Code != 0 {
		return errors.New(r.String())
	}
	return os.Remove(path)
}
