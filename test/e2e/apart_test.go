package e2e_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

// udev and network managers live on two sources: link messages and uevents.
func TestHostHearsOfNoDevice(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--port", "eth1") // loads the modules, which is an event each
	s.MustVsrun(t, "destroy", "8")
	uevents := listenUevents(t)
	monitor := s.Start(t, "ip", "-o", "monitor", "link")
	sentinel(t, s, "before", monitor, uevents)
	for range 3 {
		s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64")
		s.MustVsrun(t, "disable", "8")
		s.MustVsrun(t, "enable", "8", "--no-probe")
		s.MustVsrun(t, "destroy", "8")
	}
	sentinel(t, s, "after", monitor, uevents)
	var told []string
	for line := range strings.Lines(monitor.Output()) {
		// That the port has one more or less on it, the kernel tells of the port
		// (net/core/dev.c, NETDEV_CHANGEUPPER).
		port := strings.Contains(line, ": eth1@") && !strings.Contains(line, "Deleted")
		if !port && !strings.Contains(line, "before") && !strings.Contains(line, "after") {
			told = append(told, line)
		}
	}
	if len(told) > 0 {
		t.Errorf("`ip monitor link` hears of it:\n%s", strings.Join(told, ""))
	}
	for _, e := range uevents() {
		if !strings.Contains(e, "before") && !strings.Contains(e, "after") {
			t.Errorf("udev hears of it: %q", e)
		}
	}
}

// sentinel makes a device of that name come and go, and waits until the
// listeners have heard both.
func sentinel(t *testing.T, s *site, name string, monitor *lab.Process, uevents func() []string) {
	t.Helper()
	soon(t, func() error { // until the monitor listens at all
		s.Run(t, "ip", "link", "add", name, "type", "bridge")
		s.Run(t, "ip", "link", "del", name)
		heard := func(text, what string) bool { return strings.Contains(text, what) && strings.Contains(text, name) }
		for _, e := range uevents() {
			if heard(e, "remove@") && slices.ContainsFunc(strings.Split(monitor.Output(), "\n"), func(l string) bool { return heard(l, "Deleted") }) {
				return nil
			}
		}
		return fmt.Errorf("nobody heard of %s: %q", name, monitor.Output())
	})
}

// listenUevents returns what gives all uevents of the host so far.
func listenUevents(t *testing.T) func() []string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		t.Fatal(err)
	}
	var all []string
	return func() []string {
		buf := make([]byte, 1<<14)
		for {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return all
			}
			all = append(all, strings.ReplaceAll(string(buf[:n]), "\x00", " "))
		}
	}
}

func TestServersAreIsolated(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64")
	s.MustVsrun(t, "create", "9", "--no-probe", "--port", "eth1", "--address", "198.51.100.9/24", "--route", "203.0.113.0/24 via 198.51.100.7")
	s.Run(t, "ip", "neigh", "add", "192.0.2.200", "lladdr", "02:00:00:00:02:00", "dev", "eth1")
	t.Cleanup(func() { s.Run(t, "ip", "neigh", "del", "192.0.2.200", "dev", "eth1") })
	s.In("vs9").Run(t, "ip", "neigh", "add", "198.51.100.201", "lladdr", "02:00:00:00:02:01", "dev", "eth0")
	host := s.In("../../proc/1/ns/net")
	for _, l := range []net.Listener{
		listenIn(t, host, "tcp", ":1808"), listenIn(t, host, "unix", "@secret-host"),
		listenIn(t, s.In("vs9"), "tcp", ":1909"), listenIn(t, s.In("vs9"), "unix", "@secret-vs9"),
		listenIn(t, s.In("vs8"), "tcp", ":1888"), listenIn(t, s.In("vs8"), "unix", "@own-vs8"),
	} {
		defer l.Close()
	}
	s.MustVsrun(t, "service", "add", "9", "secret", "--", "sleep", "100000009")
	s.MustVsrun(t, "service", "add", "8", "own", "--", "sleep", "100000008")
	stranger := s.Start(t, "sleep", "100000000")

	look := func(argv ...string) string {
		t.Helper()
		return s.MustVsrun(t, append([]string{"exec", "8", "--"}, argv...)...)
	}
	for _, c := range []struct{ cmd, has string }{
		{"ip -o link", "eth0"},
		{"ip -o address", "192.0.2.8/24"},
		{"ip route show table all", "192.0.2.0/24"},
		{"ip -6 route show table all", "2001:db8::/64"},
		{"ip neigh show nud all", ""},
		{"ss -tanH", ":1888"},
		{"ss -xaH", "@own-vs8"},
		{"ls /sys/class/net", "eth0"},
		{"ls /sys/devices/virtual/net", "eth0"},
		{"cat /proc/net/dev /proc/net/route /proc/net/arp /proc/net/ipv6_route /proc/net/if_inet6", "eth0"},
		{"cat /proc/net/tcp /proc/net/tcp6 /proc/net/unix", "@own-vs8"},
		{"cat /proc/[0-9]*/cmdline", "100000008"},
		{"find /run /tmp /var/tmp /dev/shm", "/dev/shm"},
	} {
		got := look("sh", "-c", c.cmd)
		if !strings.Contains(got, c.has) {
			t.Errorf("%s lacks %q:\n%s", c.cmd, c.has, got)
		}
		// 1808 and 1909 as /proc/net/tcp writes them are 0710 and 0775.
		for _, secret := range []string{"eth1", "198.51.100", "203.0.113", "192.0.2.200", "02:00:00:00:02",
			":1808", ":1909", ":0710 ", ":0775 ", "secret", "100000009", "100000000", "client1", "vs9"} {
			if strings.Contains(got, secret) {
				t.Errorf("%s shows %q:\n%s", c.cmd, secret, got)
			}
		}
	}
	// The bonding module has a file of its own there, for this namespace's bonds.
	if got, want := strings.Fields(strings.TrimPrefix(look("ls", "/sys/class/net"), "bonding_masters\n")), []string{"eth0", "lo"}; !slices.Equal(got, want) {
		t.Errorf("devices in /sys: %v, want %v", got, want)
	}
	for _, name := range []string{"@secret-host", "@secret-vs9"} {
		err := s.In("vs8").Do(func() error {
			conn, err := net.Dial("unix", name)
			if err == nil {
				conn.Close()
			}
			return err
		})
		if err == nil {
			t.Errorf("vs8 connects to %s", name)
		}
	}
	if r := s.Vsrun("exec", "8", "--", "sh", "-c", fmt.Sprintf("kill -0 %d", stranger.Pid())); r.Code == 0 {
		t.Error("a process of the host can be signalled")
	}
	if got := look("hostname"); got != "vs8\n" {
		t.Errorf("its host name is %q", got)
	}
	// A namespace that is published while this one runs stays out of sight too.
	s.MustVsrun(t, "create", "10")
	if got := look("ls", "-A", "/run"); got != "" {
		t.Errorf("it sees namespaces: %s", got)
	}
}
