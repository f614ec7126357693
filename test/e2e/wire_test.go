package e2e_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/test/lab"
)

// A site is a host with one port on a segment, and a client at the other end of
// the wire.
type site struct {
	*lab.Host
	seg    *lab.Segment
	client *lab.Client
}

// newSite makes a host with the ports given, all on one segment; eth1 if none
// is. Whatever virtual servers a test leaves are destroyed at its end.
func newSite(t *testing.T, ports ...string) *site {
	t.Helper()
	if len(ports) == 0 {
		ports = []string{"eth1"}
	}
	h := bareHost(t)
	seg := h.Segment(ports...)
	return &site{h, seg, seg.Client("client1", "192.0.2.100/24", "2001:db8::100/64")}
}

func bareHost(t *testing.T) *lab.Host {
	t.Helper()
	// The run directory stays, as packages make it; what is in it does not.
	const run = "/run/vsrun"
	if err := os.MkdirAll(run, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(run) })
	h := lab.New(t)
	h.Keep(filepath.Join(h.StateDir, "lock"))
	t.Cleanup(func() {
		if r := h.Vsrun("destroy", "--all", "--timeout", "1s"); r.Code != 0 {
			t.Error(r)
		}
	})
	return h
}

// reach is nil when the address answers an echo request.
func reach(c *lab.Client, addr string) error {
	if r := c.TryRun("ping", "-n", "-c", "1", "-W", "2", addr); r.Code != 0 {
		return fmt.Errorf("%v", r)
	}
	return nil
}

// shown is what show -o json says.
type shown struct {
	ID         int
	Name       string
	State      string
	Namespace  string
	Use        cgroup.Use
	Interfaces []struct {
		Name, Port, Kind, MAC string
		MTU                   int
		Up                    bool
		Addresses, Gateways   []string
	}
	Volumes  []struct{ Path, Size string }
	Services []shownService
	Drift    []string
}

type shownService struct {
	Name, State   string
	Pid, Restarts int
	Since         time.Time
	Health, Last  string
	Use           cgroup.Use
}

func (s *site) show(t *testing.T, id string) shown {
	t.Helper()
	return decoded[shown](t, s.MustVsrun(t, "show", id, "-o", "json"))
}

// mac is the MAC address of an interface as the kernel has it.
func (s *site) mac(t *testing.T, ns, dev string) string {
	t.Helper()
	links := decoded[[]struct{ Address string }](t, s.In(ns).Run(t, "ip", "-j", "link", "show", "dev", dev))
	return links[0].Address
}

func decoded[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// soon waits until holds is nil, 10 seconds at most.
func soon(t *testing.T, holds func() error) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("still, after 10 seconds: %v", err)
		}
	}
}

// listenIn listens inside the client, with plain TCP: Go's own choice, MPTCP, is
// another socket to the kernel.
func listenIn(t *testing.T, c *lab.Client, network, address string) net.Listener {
	t.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	var l net.Listener
	err := c.Do(func() (err error) {
		l, err = config.Listen(t.Context(), network, address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// answer has the namespace answer text to whoever connects to address.
func answer(t *testing.T, c *lab.Client, address, text string) {
	t.Helper()
	l := listenIn(t, c, "tcp", address)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			conn.Read(make([]byte, 4096)) // the request
			fmt.Fprintf(conn, "HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
			conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

func TestClientReachesTheRightServer(t *testing.T) {
	s := newSite(t)
	for _, id := range []string{"8", "9"} {
		s.MustVsrun(t, "create", id, "--port", "eth1", "--address", "192.0.2."+id+"/24", "--address", "2001:db8::"+id+"/64")
		answer(t, s.In("vs"+id), ":80", "I am "+id)
	}
	for _, id := range []string{"8", "9"} {
		for _, addr := range []string{"192.0.2." + id, "2001:db8::" + id} {
			if err := reach(s.client, addr); err != nil {
				t.Error(err)
			}
			if got, want := s.client.Neighbour(addr), s.mac(t, "vs"+id, "eth0"); got != want {
				t.Errorf("%s is at %s, want %s", addr, got, want)
			}
			got, err := s.client.HTTPGet("http://" + net.JoinHostPort(addr, "80") + "/")
			if err != nil || got != "I am "+id {
				t.Errorf("%s: %q, %v", addr, got, err)
			}
		}
	}
	// Macvlans of one port reach one another.
	for _, addr := range []string{"192.0.2.9", "2001:db8::9"} {
		if err := reach(s.In("vs8"), addr); err != nil {
			t.Error(err)
		}
	}
	s.MustVsrun(t, "disable", "8")
	for _, addr := range []string{"192.0.2.8", "2001:db8::8"} {
		if err := s.client.Silent(addr); err != nil {
			t.Error(err)
		}
	}
	if got, err := s.client.HTTPGet("http://192.0.2.9/"); got != "I am 9" {
		t.Errorf("the other one: %q, %v", got, err)
	}
}

// IPv6 addresses are no longer tentative when create returns, in whatever way
// they got there.
func TestIPv6IsUsableAtOnce(t *testing.T) {
	s := newSite(t)
	for _, flags := range [][]string{nil, {"--no-probe"}} {
		args := append([]string{"create", "8", "--port", "eth1", "--address", "2001:db8::8/64"}, flags...)
		s.MustVsrun(t, args...)
		began := time.Now()
		vs := s.In("vs8")
		err := vs.Do(func() error {
			l, err := net.Listen("tcp", "[2001:db8::8]:80")
			if err == nil {
				l.Close()
			}
			return err
		})
		if err != nil {
			t.Errorf("%v: cannot bind: %v", flags, err)
		}
		if r := s.client.TryRun("ping", "-n", "-c", "1", "-W", "1", "2001:db8::8"); r.Code != 0 {
			t.Error(flags, r)
		}
		t.Logf("create %v: bound and pinged %v after it returned", flags, time.Since(began).Round(time.Millisecond))
		if r := vs.TryRun("ping", "-n", "-c", "1", "-W", "1", "-I", "2001:db8::8", "2001:db8::100"); r.Code != 0 {
			t.Error(flags, r)
		}
		s.MustVsrun(t, "destroy", "8")
	}
}

// carries holds for frames that have an address in their payload.
func carries(addr string) func(lab.Frame) bool {
	b := netip.MustParseAddr(addr).AsSlice()
	return func(f lab.Frame) bool { return bytes.Contains(f.Payload, b) }
}

func not(holds func(lab.Frame) bool) func(lab.Frame) bool {
	return func(f lab.Frame) bool { return !holds(f) }
}

func TestProbesThenAnnounces(t *testing.T) {
	s := newSite(t)
	wire := s.client.Capture(t)
	s.MustVsrun(t, "create", "8", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64", "--address", "192.0.2.18/24")
	mac := s.mac(t, "vs8", "eth0")
	for _, addr := range []string{"192.0.2.8", "192.0.2.18", "2001:db8::8"} {
		if got := wire.Await(3, 3*time.Second, lab.Announces(addr)); len(got) != 3 {
			t.Errorf("%s is announced %d times, want 3: %v", addr, len(got), got)
		}
	}
	// Whatever else is on its way comes before the answer to this.
	if err := reach(s.client, "192.0.2.8"); err != nil {
		t.Error(err)
	}
	for _, addr := range []string{"192.0.2.8", "192.0.2.18", "2001:db8::8"} {
		all := wire.Frames(carries(addr))
		if len(all) < 6 {
			t.Fatalf("%s: only %v", addr, all)
		}
		for k, f := range all[:3] {
			if !lab.Probes(addr)(f) || f.Src.String() != mac {
				t.Errorf("frame %d with %s is no probe from %s: %v", k+1, addr, mac, f)
			}
		}
		announced := wire.Frames(lab.Announces(addr))
		if len(announced) != 3 {
			t.Errorf("%s is announced %d times, want 3: %v", addr, len(announced), announced)
		}
		for _, f := range announced {
			checkAnnouncement(t, f, mac)
		}
		t.Logf("%s: probes at 0, %v, %v, announced at %v", addr,
			all[1].Time.Sub(all[0].Time).Round(time.Millisecond), all[2].Time.Sub(all[0].Time).Round(time.Millisecond),
			announced[0].Time.Sub(all[0].Time).Round(time.Millisecond))
	}
	if v4 := wire.Frames(lab.Probes("192.0.2.8")); len(v4) != 3 {
		t.Errorf("%d ARP probes, want 3: %v", len(v4), v4)
	}
	if stray := wire.Frames(lab.From(mac), carries("192.0.2.100"), func(f lab.Frame) bool { return f.EtherType == unix.ETH_P_ARP && f.Payload[7] == 1 }); len(stray) > 1 {
		t.Errorf("it asks for others: %v", stray)
	}
}

// checkAnnouncement looks at what lab.Announces does not: whose MAC address is
// told, and whether it replaces what is known (RFC 4861, 4.4).
func checkAnnouncement(t *testing.T, f lab.Frame, mac string) {
	t.Helper()
	told, p := "", f.Payload
	switch f.EtherType {
	case unix.ETH_P_ARP:
		told = net.HardwareAddr(p[8:14]).String()
	case unix.ETH_P_IPV6:
		if p[44]&0x20 == 0 {
			t.Errorf("no override flag: %v", f)
		}
		if len(p) < 72 || p[64] != 2 || p[65] != 1 {
			t.Fatalf("no target address: %v", f)
		}
		told = net.HardwareAddr(p[66:72]).String()
	}
	if told != mac || f.Src.String() != mac {
		t.Errorf("%v tells %s, want %s", f, told, mac)
	}
}

func TestNoProbe(t *testing.T) {
	s := newSite(t)
	holder := s.seg.Client("holder", "192.0.2.8/24")
	wire := s.client.Capture(t)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64")
	wire.Await(3, 3*time.Second, lab.Announces("2001:db8::8"))
	if got := wire.Frames(lab.Probes("192.0.2.8")); len(got) != 0 {
		t.Errorf("told not to probe, it sent %v", got)
	}
	// The kernel asks once by itself, at about the same time.
	if got := wire.Frames(lab.Probes("2001:db8::8")); len(got) > 1 {
		t.Errorf("told not to probe, it sent %v", got)
	}
	if holder.MAC(t) == s.mac(t, "vs8", "eth0") {
		t.Error("two have one MAC address")
	}
}

func TestAddressInUseIsRefused(t *testing.T) {
	s := newSite(t)
	holder := s.seg.Client("holder", "192.0.2.8/24", "2001:db8::8/64")
	for _, addr := range []string{"192.0.2.8/24", "2001:db8::8/64"} {
		ip, _, _ := strings.Cut(addr, "/")
		r := s.Vsrun("create", "8", "--port", "eth1", "--address", "192.0.2.7/24", "--address", addr)
		want := fmt.Sprintf("%s is in use on the segment by %s\nhint: ", ip, holder.MAC(t))
		if r.Code != 1 || !strings.Contains(r.Stderr, want) || !strings.Contains(r.Stderr, "--no-probe") {
			t.Errorf("%v\nwant status 1 and %q", r, want)
		}
		if leaks := s.Leaks(); leaks != "" {
			t.Errorf("refused, it left\n%s", leaks)
		}
		if r := s.Vsrun("show", "8"); r.Code != 3 {
			t.Error(r)
		}
		if err := s.client.Silent("192.0.2.7"); err != nil {
			t.Error(err)
		}
	}
	// Enable probes again: somebody may have taken it meanwhile.
	s.MustVsrun(t, "create", "9", "--disabled", "--port", "eth1", "--address", "192.0.2.8/24")
	if r := s.Vsrun("enable", "9"); r.Code != 1 || !strings.Contains(r.Stderr, holder.MAC(t)) {
		t.Error(r)
	}
	if got := s.show(t, "9"); got.State != "disabled" {
		t.Errorf("after an enable that was refused it is %s", got.State)
	}
}

// Two that ask for one address at the same time see each other's question: not
// both may get it (RFC 5227, 2.1.1).
func TestTwoProbeForOneAddress(t *testing.T) {
	s := newSite(t, "eth1", "eth2")
	for _, addr := range []string{"192.0.2.8/24", "2001:db8::8/64"} {
		results := make([]lab.Result, 2)
		macs := make([]string, 2)
		done := make(chan struct{})
		for k := range results {
			// Another port, store and number: another host, as far as the two know.
			go func() {
				results[k] = s.Vsrun("create", fmt.Sprint(8+k), "--port", fmt.Sprint("eth", 1+k), "--address", addr,
					"--state-dir", filepath.Join(s.StateDir, fmt.Sprint("host", k)))
				macs[k] = derived(t, fmt.Sprint("vs", 8+k), "eth0")
				done <- struct{}{}
			}()
		}
		<-done
		<-done
		got := 0
		for k, r := range results {
			if r.Code == 0 {
				got++
			} else if !strings.Contains(r.Stderr, "is in use on the segment by "+macs[1-k]) {
				t.Errorf("%v\ndoes not name %s", r, macs[1-k])
			}
		}
		t.Logf("%s: %d of 2 got it", addr, got)
		if got > 1 {
			t.Errorf("both have %s", addr)
		}
		for k := range results {
			dir := filepath.Join(s.StateDir, fmt.Sprint("host", k))
			s.MustVsrun(t, "destroy", "--all", "--state-dir", dir)
			os.RemoveAll(dir)
		}
	}
}

// derived is the MAC address that an interface has to have on this machine: 46
// bits of a hash, locally administered.
func derived(t *testing.T, namespace, ifname string) string {
	t.Helper()
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("vsrun\x00" + strings.TrimSpace(string(id)) + "\x00" + namespace + "\x00" + ifname))
	sum[0] = sum[0]&^3 | sum[0]&2 | 2
	return net.HardwareAddr(sum[:6]).String()
}

func TestMACIsStable(t *testing.T) {
	s := newSite(t)
	const create = "create 8 --no-probe --port eth1 --address 192.0.2.8/24"
	s.MustVsrun(t, strings.Fields(create)...)
	want := derived(t, "vs8", "eth0")
	check := func(when string) {
		t.Helper()
		if got := s.mac(t, "vs8", "eth0"); got != want {
			t.Errorf("%s: MAC address %s, want %s", when, got, want)
		}
		if got := s.show(t, "8").Interfaces[0].MAC; got != want {
			t.Errorf("%s: show says %s, want %s", when, got, want)
		}
	}
	check("created")
	if hw, _ := net.ParseMAC(want); hw[0]&3 != 2 {
		t.Errorf("%s is not unicast and locally administered", want)
	}
	s.MustVsrun(t, "disable", "8")
	if got := s.show(t, "8").Interfaces[0].MAC; got != want {
		t.Errorf("disabled: show says %s, want %s", got, want)
	}
	s.MustVsrun(t, "enable", "8", "--no-probe")
	check("enabled again")
	s.MustVsrun(t, "destroy", "8")
	s.MustVsrun(t, strings.Fields(create)...)
	check("created again")
	s.MustVsrun(t, "attach", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.18/24")
	if got := s.mac(t, "vs8", "eth1"); got != derived(t, "vs8", "eth1") || got == want {
		t.Errorf("the second interface has %s", got)
	}
}

// udev and network managers live on two sources: link messages and uevents.
func TestHostHearsOfNoDevice(t *testing.T) {
	s := newSite(t)
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

func TestTwoSegments(t *testing.T) {
	s := newSite(t)
	other := s.Segment("eth2").Client("client2", "198.51.100.100/24", "2001:db8:2::100/64")
	s.MustVsrun(t, "create", "8", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64")
	s.MustVsrun(t, "attach", "8", "--port", "eth2", "--address", "198.51.100.8/24", "--address", "2001:db8:2::8/64")
	for _, c := range []struct {
		from      *lab.Client
		addr, dev string
	}{
		{s.client, "192.0.2.8", "eth0"}, {s.client, "2001:db8::8", "eth0"},
		{other, "198.51.100.8", "eth1"}, {other, "2001:db8:2::8", "eth1"},
	} {
		if err := reach(c.from, c.addr); err != nil {
			t.Error(err)
		}
		if got, want := c.from.Neighbour(c.addr), s.mac(t, "vs8", c.dev); got != want {
			t.Errorf("%s is at %s, want %s", c.addr, got, want)
		}
	}
	// Neither interface answers for the other one's address.
	s.client.Run(t, "ip", "route", "add", "198.51.100.0/24", "dev", "eth0")
	if err := s.client.Silent("198.51.100.8"); err != nil {
		t.Error(err)
	}
	s.MustVsrun(t, "detach", "8", "eth1")
	if err := other.Silent("198.51.100.8"); err != nil {
		t.Error(err)
	}
	if err := reach(s.client, "192.0.2.8"); err != nil {
		t.Error(err)
	}
}

func TestTwoInterfacesOnOneSubnet(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64")
	s.MustVsrun(t, "attach", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.18/24", "--address", "2001:db8::18/64")
	wire := s.client.Capture(t)
	s.client.FlushNeighbours(t)
	for _, c := range []struct{ addr, dev, other string }{
		{"192.0.2.8", "eth0", "eth1"}, {"192.0.2.18", "eth1", "eth0"},
		{"2001:db8::8", "eth0", "eth1"}, {"2001:db8::18", "eth1", "eth0"},
	} {
		if err := reach(s.client, c.addr); err != nil {
			t.Error(err)
		}
		if got, want := s.client.Neighbour(c.addr), s.mac(t, "vs8", c.dev); got != want {
			t.Errorf("%s is at %s, want %s of %s", c.addr, got, want, c.dev)
		}
		tells := func(f lab.Frame) bool { // an ARP reply, or a solicited advertisement
			p := f.Payload
			return f.EtherType == unix.ETH_P_ARP && p[7] == 2 && netip.AddrFrom4([4]byte(p[14:18])).String() == c.addr ||
				f.EtherType == unix.ETH_P_IPV6 && len(p) > 64 && p[6] == unix.IPPROTO_ICMPV6 && p[40] == 136 &&
					netip.AddrFrom16([16]byte(p[48:64])).String() == c.addr
		}
		if got := wire.Frames(tells, lab.From(s.mac(t, "vs8", c.dev)), not(lab.Announces(c.addr))); len(got) == 0 {
			t.Errorf("%s does not answer for %s", c.dev, c.addr)
		}
		if got := wire.Frames(tells, lab.From(s.mac(t, "vs8", c.other))); len(got) != 0 {
			t.Errorf("%s answers for %s: %v", c.other, c.addr, got)
		}
	}
}

// Two routers lead to another segment: one is the default gateway, a static
// route goes by the other.
func TestRoutesCarryTraffic(t *testing.T) {
	s := newSite(t, "eth1", "eth3")
	beyond := s.Segment("eth2")
	far1 := beyond.Client("far1", "198.51.100.100/24", "2001:db8:2::100/64")
	far2 := beyond.Client("far2", "203.0.113.100/24")
	for _, r := range []struct{ id, near, near6, far, far6 string }{
		{"1", "192.0.2.1/24", "2001:db8::1/64", "198.51.100.1/24", "2001:db8:2::1/64"},
		{"2", "192.0.2.2/24", "2001:db8::2/64", "203.0.113.2/24", "2001:db8:3::2/64"},
	} {
		s.MustVsrun(t, "create", r.id, "--no-probe", "--port", "eth3", "--address", r.near, "--address", r.near6)
		s.MustVsrun(t, "attach", r.id, "--no-probe", "--port", "eth2", "--address", r.far, "--address", r.far6)
		s.In("vs"+r.id).Run(t, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	}
	far1.Run(t, "ip", "route", "add", "192.0.2.0/24", "via", "198.51.100.1")
	far1.Run(t, "ip", "route", "add", "2001:db8::/64", "via", "2001:db8:2::1")
	far2.Run(t, "ip", "route", "add", "192.0.2.0/24", "via", "203.0.113.2")
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64",
		"--gateway", "192.0.2.1", "--gateway", "2001:db8::1", "--route", "203.0.113.0/24 via 192.0.2.2 metric 50")
	forwarded := func(id, group, name string) int64 {
		return readStats(t, s.Host, id)[0].MIB[group][name]
	}
	for _, c := range []struct{ addr, by, group, name string }{
		{"198.51.100.100", "1", "Ip", "ForwDatagrams"},
		{"203.0.113.100", "2", "Ip", "ForwDatagrams"},
		{"2001:db8:2::100", "1", "Ip6", "OutForwDatagrams"},
	} {
		before := forwarded(c.by, c.group, c.name)
		if err := reach(s.In("vs8"), c.addr); err != nil {
			t.Error(err)
		}
		if forwarded(c.by, c.group, c.name) == before {
			t.Errorf("vs%s has forwarded nothing to %s", c.by, c.addr)
		}
	}
}

func TestMTU(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64", "--mtu", "1400")
	s.MustVsrun(t, "create", "9", "--no-probe", "--port", "eth1", "--address", "192.0.2.9/24")
	for _, c := range []struct {
		vs, to string
		size   int // of the packet
		passes bool
	}{
		{"vs8", "192.0.2.100", 1400, true},
		{"vs8", "192.0.2.100", 1401, false},
		{"vs8", "2001:db8::100", 1400, true},
		{"vs8", "2001:db8::100", 1401, false},
		{"vs9", "192.0.2.100", 1500, true},
	} {
		head := 28
		if strings.Contains(c.to, ":") {
			head = 48
		}
		r := s.In(c.vs).TryRun("ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", fmt.Sprint(c.size-head), c.to)
		if (r.Code == 0) != c.passes {
			t.Errorf("%d bytes, want %v: %v", c.size, c.passes, r)
		}
		if !c.passes && !strings.Contains(strings.ToLower(r.Stdout+r.Stderr), "message too long") {
			t.Errorf("%d bytes: %v", c.size, r)
		}
	}
	if got := s.show(t, "8").Interfaces[0].MTU; got != 1400 {
		t.Errorf("show says MTU %d", got)
	}
}

func TestAddressesSurviveLinkDown(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64",
		"--gateway", "192.0.2.1", "--gateway", "2001:db8::1")
	s.In("vs8").Run(t, "ip", "link", "set", "eth0", "down")
	if got := s.show(t, "8"); got.State != "degraded" || got.Interfaces[0].Up {
		t.Errorf("its link is down, and show says %+v", got)
	}
	s.In("vs8").Run(t, "ip", "link", "set", "eth0", "up")
	for _, addr := range []string{"192.0.2.8", "2001:db8::8"} {
		if err := reach(s.client, addr); err != nil {
			t.Error(err)
		}
	}
	// The kernel drops the routes by a gateway; enable puts them back.
	s.MustVsrun(t, "enable", "8")
	if got := s.show(t, "8"); got.State != "enabled" {
		t.Errorf("after enable: %+v", got)
	}
	// The cable does no more than that.
	s.seg.SetCarrier(t, "eth1", false)
	s.seg.SetCarrier(t, "eth1", true)
	for _, addr := range []string{"192.0.2.8", "2001:db8::8"} {
		soon(t, func() error { return reach(s.client, addr) }) // the kernel notices a carrier within a second
	}
	if got := s.show(t, "8"); got.State != "enabled" {
		t.Errorf("after the cable: %+v", got)
	}
}
