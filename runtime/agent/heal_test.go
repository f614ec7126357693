package agent_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/runtime/agent"
	"github.com/vsrun/vsrun/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// A daemon is a vsd that runs, and what it tells.
type daemon struct {
	*lab.Host
	cmd    *exec.Cmd
	log    *bytes.Buffer
	events chan agent.Event
}

func startVSD(t testing.TB, h *lab.Host) *daemon {
	t.Helper()
	d := &daemon{h, exec.Command(filepath.Join(lab.Programs(t), "vsd")), new(bytes.Buffer), make(chan agent.Event, 10000)}
	d.cmd.Stderr = d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	heard := make(chan error, 1)
	t.Cleanup(func() {
		cancel()
		d.signal(syscall.SIGTERM)
		if err := d.cmd.Wait(); err != nil && d.cmd.ProcessState.ExitCode() >= 0 { // killed by the test
			t.Errorf("vsd: %v\n%s", err, d.log)
		}
		<-heard
		if t.Failed() {
			t.Logf("vsd wrote:\n%s", d.log)
		}
	})
	go func() {
		for {
			err := agent.Events(ctx, h.RunDir, true, func(e agent.Event) error { d.events <- e; return nil })
			if ctx.Err() != nil {
				heard <- err
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	return d
}

// await waits for an event that fits.
func (d *daemon) await(t testing.TB, what string, fits func(agent.Event) bool) agent.Event {
	t.Helper()
	var others []string
	for late := time.After(10 * time.Second); ; {
		select {
		case e := <-d.events:
			if fits(e) {
				return e
			}
			others = append(others, e.Subject()+": "+e.String())
		case <-late:
			t.Fatalf("no event %s, but\n%s\nand it differs:\n%s", what, strings.Join(others, "\n"), d.Vsrun("diff").Stdout)
		}
	}
}

// awaitAll waits for an event of each subject, in whatever order.
func (d *daemon) awaitAll(t testing.TB, event string, subjects ...string) {
	t.Helper()
	for len(subjects) > 0 {
		e := d.await(t, "of "+strings.Join(subjects, ", "), func(e agent.Event) bool {
			return e.Event == event && slices.Contains(subjects, e.Subject())
		})
		subjects = slices.DeleteFunc(subjects, func(s string) bool { return s == e.Subject() })
	}
}

func about(subject, event string) func(agent.Event) bool {
	return func(e agent.Event) bool { return e.Subject() == subject && e.Event == event }
}

// whole waits until nothing differs.
func (d *daemon) whole(t testing.TB) {
	t.Helper()
	var r lab.Result
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if r = d.Vsrun("diff"); r.Code == 0 && r.Stdout == "" {
			return
		}
	}
	t.Errorf("it still differs: %v", r)
}

func (d *daemon) signal(s syscall.Signal) { d.cmd.Process.Signal(s) }

// asleep has vsd do nothing while fn runs.
func (d *daemon) asleep(fn func()) {
	d.signal(syscall.SIGSTOP)
	defer d.signal(syscall.SIGCONT)
	fn()
}

const document = `
id: 8
interfaces: [{name: eth0, port: eth1, addresses: [192.0.2.8/24, "2001:db8::8/64"], gateways: [192.0.2.1], table: 101}]
routes: [{to: 198.51.100.0/24, via: 192.0.2.7, metric: 50}]
services: [{name: one, command: [sleep, "100000"]}]
---
id: 9
interfaces: [{name: eth0, port: eth1, addresses: [192.0.2.9/24, 192.0.2.19/24], gateways: [192.0.2.1], table: 109, realm: 9, ra: true}]
`

// A kind of drift: by what hand it comes, and what vsrun diff says of it.
type drift struct {
	name, subject, says string
	hand                func(testing.TB, *site)
}

// A site has a port with vs8, vs9 and a client on it.
type site struct {
	*lab.Host
	segment *lab.Segment
	client  *lab.Client
}

// newHost has a run directory that stays, as packages make it.
func newHost(t testing.TB) *lab.Host {
	t.Helper()
	const run = "/run/vsrun"
	if err := os.MkdirAll(run, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(run) })
	h := lab.New(t)
	h.Keep(filepath.Join(h.StateDir, "ledger.json")) // the host's totals outlive virtual servers
	return h
}

func newSite(t testing.TB) *site {
	t.Helper()
	h := newHost(t)
	s := &site{Host: h}
	h.Together(func() {
		s.segment = h.Segment("eth1")
		s.client = s.segment.Client("client1", "192.0.2.100/24", "2001:db8::100/64")
	})
	s.apply(t, document)
	return s
}

// apply makes the virtual servers of a document, until the end of the test.
func (s *site) apply(t testing.TB, document string) {
	t.Helper()
	if r := s.VsrunIn(document, "apply", "--no-probe", "-f", "-"); r.Code != 0 {
		t.Fatal(r)
	}
	t.Cleanup(func() { s.MustVsrun(t, "destroy", "--all") })
}

// ip is a hand that runs iproute2.
func ip(lines ...string) func(testing.TB, *site) {
	return func(t testing.TB, s *site) {
		t.Helper()
		for _, line := range lines {
			s.Run(t, append([]string{"ip"}, strings.Fields(line)...)...)
		}
	}
}

// sysctl sets one in a namespace, "" for the host.
func sysctl(ns, setting string) func(testing.TB, *site) {
	return func(t testing.TB, s *site) {
		t.Helper()
		if ns == "" {
			s.Run(t, "sysctl", "-qw", setting)
			return
		}
		ip("netns exec "+ns+" sysctl -qw "+setting)(t, s)
	}
}

var drifts = []drift{
	{"address", "vs8", "add address 192.0.2.8/24 on eth0", ip("-n vs8 address delete 192.0.2.8/24 dev eth0")},
	{"IPv6 address", "vs8", "add address 2001:db8::8/64 on eth0", ip("-n vs8 address delete 2001:db8::8/64 dev eth0")},
	{"primary address", "vs9", "make 192.0.2.9/24 the primary address on eth0",
		ip("-n vs9 address delete 192.0.2.9/24 dev eth0", "-n vs9 address add 192.0.2.9/24 dev eth0")},
	{"rule", "vs8", "add rule from 192.0.2.8/32 lookup 101 priority 1180", ip("-n vs8 rule delete priority 1180")},
	{"IPv6 rule", "vs8", "add rule to 2001:db8::/64 lookup 101 priority 1181", ip("-n vs8 -6 rule delete priority 1181")},
	{"default route", "vs8", "add route default via 192.0.2.1 dev eth0", ip("-n vs8 route delete default")},
	{"route", "vs8", "add route 198.51.100.0/24 via 192.0.2.7 dev eth0 metric 50", ip("-n vs8 route delete 198.51.100.0/24 metric 50")},
	{"changed route", "vs8", "replace route 198.51.100.0/24 via 192.0.2.7 dev eth0 metric 50",
		ip("-n vs8 route replace 198.51.100.0/24 via 192.0.2.9 metric 50 proto 118")},
	{"main rule", "vs8", "restore IPv4 rule lookup 254 priority 32766", ip("-n vs8 rule delete pref 32766")},
	{"local rule", "vs8", "restore IPv4 rule lookup 255 priority 0", ip("-n vs8 rule delete pref 0")},
	{"IPv6 main rule", "vs8", "restore IPv6 rule lookup 254 priority 32766", ip("-n vs8 -6 rule delete pref 32766")},
	{"table's gateway", "vs9", "add route default via 192.0.2.1 dev eth0 table 109", ip("-n vs9 route delete default table 109")},
	{"table's subnet", "vs9", "add route 192.0.2.0/24 dev eth0 src 192.0.2.9 table 109", ip("-n vs9 route delete 192.0.2.0/24 table 109")},
	{"realm", "vs9", "add rule from 192.0.2.9/32 lookup 109 priority 1180 realms 9",
		ip("-n vs9 rule delete from 192.0.2.9/32 pref 1180", "-n vs9 rule add from 192.0.2.9/32 lookup 109 pref 1180 protocol 118")},
	{"mtu", "vs8", "set mtu 1500 on eth0", ip("-n vs8 link set dev eth0 mtu 1400")},
	{"link down", "vs8", "bring up eth0", ip("-n vs8 link set dev eth0 down")},
	{"loopback down", "vs8", "bring up lo", ip("-n vs8 link set dev lo down")},
	{"deleted link", "vs8", "add macvlan eth0 on port eth1", ip("-n vs8 link delete dev eth0")},
	{"renamed link", "vs8", "delete interface lan0", ip("-n vs8 link set dev eth0 down", "-n vs8 link set dev eth0 name lan0", "-n vs8 link set dev lan0 up")},
	{"changed MAC", "vs8", "delete interface eth0", ip("-n vs8 link set dev eth0 address 02:00:00:00:00:99")},
	{"mark", "vs8", "mark eth0 as vsrun:vs8/eth0", func(t testing.TB, s *site) { s.Run(t, "ip", "-n", "vs8", "link", "set", "dev", "eth0", "alias", "") }},
	{"forwarding", "vs8", "set net.ipv4.ip_forward=0", sysctl("vs8", "net.ipv4.ip_forward=1")},
	{"filter", "vs8", "set net.ipv4.conf.all.rp_filter=2", sysctl("vs8", "net.ipv4.conf.all.rp_filter=1")},
	{"IPv6 forwarding", "vs8", "set net.ipv6.conf.all.forwarding=0", sysctl("vs8", "net.ipv6.conf.all.forwarding=1")},
	{"what the kernel does not tell", "vs8", "set net.ipv4.conf.all.arp_ignore=1", sysctl("vs8", "net.ipv4.conf.all.arp_ignore=0")},
	{"IPv6 default", "vs9", "set net.ipv6.conf.default.accept_ra=0", sysctl("vs9", "net.ipv6.conf.default.accept_ra=1")},
	{"heeding of routers", "vs9", "delete interface eth0", sysctl("vs9", "net/ipv6/conf/eth0/accept_ra=0")},
	{"routers' gateway", "vs9", "set net/ipv6/conf/eth0/accept_ra_defrtr=1", sysctl("vs9", "net/ipv6/conf/eth0/accept_ra_defrtr=0")},
	{"name with an init", "vs8", "publish the namespace again", ip("netns delete vs8")},
	{"name without one", "vs9", "make the namespace", ip("netns delete vs9")},
	{"killed init", "vs8", "start service one", func(t testing.TB, _ *site) { kill(t, "vs-init\x00vs8\x00") }},
	{"half an apply", "vs9", "give back what an apply took that did not end", func(t testing.TB, s *site) {
		record := filepath.Join(s.StateDir, "vs9.json")
		text, err := os.ReadFile(record)
		if err == nil {
			err = os.WriteFile(record, bytes.Replace(text, []byte("{"), slices.Concat([]byte(`{"before": `), text, []byte(",")), 1), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}},
	{"port's mtu", "vs8", "set mtu 1500 on eth0", ip("link set dev eth1 mtu 1400", "link set dev eth1 mtu 1500")},
	{"port made again", "vs9", "add macvlan eth0 on port eth1", func(t testing.TB, s *site) { s.segment.Remove(t, "eth1")() }},
}

// onPorts are the kinds of drift of what is on the host.
var onPorts = []drift{
	{"VLAN's filter", "vs8", "set net.ipv4.conf.vsvlan10.rp_filter=1 net.ipv6.conf.vsvlan10.disable_ipv6=1", sysctl("", "net.ipv4.conf.vsvlan10.rp_filter=0")},
	{"VLAN deleted", "vs8", "add vlan 10 on bond0", ip("link delete dev vsvlan10")},
	{"bond's option", "port bond0", "set miimon 100 on bond0", ip("link set dev bond0 type bond miimon 20")},
	{"bond's member out", "port bond0", "add eth2 to bond0", ip("link set dev eth2 nomaster")},
	{"bond deleted", "port bond0", "add bond bond0", ip("link delete dev bond0")},
}

const portsDocument = `
ports: [{name: bond0, mode: active-backup, members: [eth2, eth3]}]
---
id: 8
interfaces: [{name: eth0, port: bond0, vlan: 10, addresses: [192.0.2.8/24]}]
`

// Each kind of drift is named by vsrun diff, and mended by vsd within a second.
func TestHeals(t *testing.T) {
	s := newSite(t)
	for _, one := range drifts {
		t.Run(one.name, func(t *testing.T) { one.heals(t, s) })
	}
}

// limit sets one for vs8, or a service of it, in the first of the files that there is.
func limit(below, value string, files ...string) func(testing.TB, *site) {
	return func(t testing.TB, _ *site) {
		t.Helper()
		for _, dir := range cgroup.Find().Dirs("vs8") {
			if filepath.Base(dir) != below {
				continue
			}
			for _, file := range files {
				f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
				if err != nil {
					continue
				}
				defer f.Close()
				if _, err := f.WriteString(value); err != nil {
					t.Error(err)
				}
				return
			}
		}
		t.Errorf("%s has none of %q", below, files)
	}
}

func newLimited(t testing.TB) *site {
	t.Helper()
	lab.Require(t, "controller:memory", "controller:pids", "controller:cpu")
	s := &site{Host: newHost(t)}
	s.apply(t, `
id: 8
resources: {cpu: 150%}
services: [{name: one, command: [sleep, "100000"], resources: {memory: 64M, cpu: 33%, tasks: 20}}]
`)
	return s
}

var onLimits = []drift{
	{"memory of a service", "vs8", "set the limit of memory of service one", limit("one.service", "33554432", "memory.max", "memory.limit_in_bytes")},
	{"tasks of a service", "vs8", "set the limit of tasks of service one", limit("one.service", "max", "pids.max")},
	{"memory of all", "vs8", "set the limit of memory", limit("vs8", "134217728", "memory.max", "memory.limit_in_bytes")},
	{"tasks of all", "vs8", "set the limit of tasks", limit("vs8", "7", "pids.max")},
}

// Limits that somebody has written into cgroups, also those that nobody had asked for, are
// taken back; a service that was started anew has none but its own.
func TestHealsLimits(t *testing.T) {
	s := newLimited(t)
	for _, one := range onLimits {
		t.Run(one.name, func(t *testing.T) { one.heals(t, s) })
	}
	d := startVSD(t, s.Host)
	d.whole(t)
	s.MustVsrun(t, "service", "restart", "8", "one")
	d.whole(t)
	onLimits[0].hand(t, s)
	d.await(t, "of a service that was started anew", about("vs8", agent.Mended))
	d.whole(t)
}

func TestHealsPorts(t *testing.T) {
	lab.Require(t, "kind:bond", "kind:vlan")
	h := newHost(t)
	s := &site{Host: h, segment: h.Segment("eth2", "eth3")}
	t.Cleanup(func() { s.MustVsrun(t, "port", "destroy", "bond0") })
	s.apply(t, portsDocument)
	for _, one := range onPorts {
		t.Run(one.name, func(t *testing.T) { one.heals(t, s) })
	}

	d := startVSD(t, s.Host)
	putBack := s.segment.Remove(t, "eth3")
	e := d.await(t, "of a member that is away", about("port bond0", agent.Waits))
	if e.String() != "cannot be mended now: member eth3 is not on this host" {
		t.Errorf("it says %q", e)
	}
	d.asleep(putBack)
	d.await(t, "of a member that is back", about("port bond0", agent.Mended))
	d.whole(t)
}

// What a killed destruction has left of a port vsd does not bring back. gc removes it, and
// no bond that another state directory has.
func TestHalfDestroyedPort(t *testing.T) {
	lab.Require(t, "kind:bond")
	h := newHost(t)
	s := &site{Host: h, segment: h.Segment("eth2", "eth3")}
	s.MustVsrun(t, "port", "create", "bond0", "--mode", "active-backup", "--members", "eth2,eth3")
	d := startVSD(t, s.Host)
	d.whole(t)
	record := filepath.Join(h.StateDir, "port-bond0.json")
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	d.asleep(func() {
		s.Run(t, "ip", "link", "set", "dev", "eth3", "nomaster")
		if err := os.WriteFile(record, bytes.Replace(text, []byte("{"), []byte(`{"leaving": true,`), 1), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	const says = "it is half destroyed: vsrun port destroy bond0 does the rest"
	e := d.await(t, "of half a port", about("port bond0", agent.Waits))
	if e.String() != "cannot be mended now: "+says {
		t.Errorf("it says %q", e)
	}
	if r := s.Vsrun("diff"); r.Code != 1 || r.Stdout != "port bond0: "+says+"\n" {
		t.Error(r)
	}
	elsewhere := filepath.Join(h.StateDir, "elsewhere")
	s.MustVsrun(t, "create", "9", "--disabled", "--state-dir", elsewhere)
	want := "vsrun: left alone: bond bond0: " + elsewhere + " has no port of that name, so it may be another state directory's; to remove it: ip link delete dev bond0\n"
	if r := s.Vsrun("gc", "--state-dir", elsewhere); r.Stdout != "nothing to remove\n" || r.Stderr != want {
		t.Error(r)
	}
	s.MustVsrun(t, "destroy", "9", "--state-dir", elsewhere)
	if err := os.RemoveAll(elsewhere); err != nil {
		t.Fatal(err)
	}
	if out := s.MustVsrun(t, "gc"); out != "removed port bond0, half destroyed\n" {
		t.Errorf("gc prints %q", out)
	}
	d.whole(t)
	if out := s.MustVsrun(t, "port", "ls", "-o", "json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("there is %s", out)
	}
}

// heals breaks it while vsd sleeps, so that it can be named, and has vsd hear of it then.
func (one drift) heals(t *testing.T, s *site) {
	d := startVSD(t, s.Host)
	var look time.Duration
	d.asleep(func() {
		one.hand(t, s)
		begin := time.Now()
		if r := s.Vsrun("diff"); r.Code != 1 || !strings.Contains(r.Stdout, one.subject+": "+one.says+"\n") {
			t.Errorf("%v\nwant %s: %s", r, one.subject, one.says)
		}
		look = time.Since(begin)
	})
	begin := time.Now()
	took := d.await(t, "of "+one.name, about(one.subject, agent.Mended)).Time.Sub(begin)
	t.Logf("mended after %v", took)
	if took > max(time.Second, 10*look) { // where all is slow, so is this
		t.Errorf("it took %v, where vsrun diff takes %v", took, look)
	}
	d.whole(t)
}

// kill kills the process whose command line begins so.
func kill(t testing.TB, command string) {
	t.Helper()
	list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range list {
		if text, _ := os.ReadFile(file); strings.HasPrefix(string(text), command) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			syscall.Kill(pid, syscall.SIGKILL)
			return
		}
	}
	t.Fatalf("no process %q", command)
}
