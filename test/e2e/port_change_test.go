package e2e_test

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// applyPorts applies a document with these ports.
func applyPorts(t *testing.T, s *site, ports ...string) string {
	t.Helper()
	return s.MustVsrun(t, "apply", "-f", portDocument(t, ports...))
}

func portDocument(t *testing.T, ports ...string) string {
	t.Helper()
	return writeDocument(t, "ports:\n- "+strings.Join(ports, "\n- ")+"\n")
}

// An echo is a TCP connection from a client to a virtual server.
type echo struct {
	conn net.Conn
	n    int
}

func dialEcho(t *testing.T, from, to *lab.Client, address string) *echo {
	t.Helper()
	l := listenIn(t, to, "tcp", address)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if conn, err := l.Accept(); err == nil {
			io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn}) // no splice: its pipes stay
			conn.Close()
		}
	}()
	conn, err := from.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); l.Close(); <-done })
	return &echo{conn: conn}
}

// goesOn sends a line and wants it back.
func (e *echo) goesOn() error {
	e.n++
	line := fmt.Sprintf("line %d\n", e.n)
	e.conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(e.conn, line); err != nil {
		return err
	}
	b := make([]byte, len(line))
	if _, err := io.ReadFull(e.conn, b); err != nil || string(b) != line {
		return fmt.Errorf("the connection answers %q, %v", b, err)
	}
	return nil
}

// Whatever changes in a bond, who is connected to a virtual server on it stays so.
func portLiveChange(t *testing.T, s *site) {
	const ab = "{name: bond0, mode: active-backup, members: [eth1, eth2]"
	steps := []struct{ what, port, members string }{
		{"a member more", "{name: bond0, mode: active-backup, members: [eth1, eth2, eth3]}", "eth1:up,eth2:backup,eth3:backup"},
		{"the active member less", "{name: bond0, mode: active-backup, members: [eth2, eth3]}", "eth2:up,eth3:backup"},
		{"options", "{name: bond0, mode: active-backup, members: [eth2, eth3], miimon: 50, upDelay: 100, primary: eth3, primaryReselect: failure}", ""},
		{"watched by ARP", "{name: bond0, mode: active-backup, members: [eth2, eth3], arpInterval: 100, arpTargets: [192.0.2.100]}", ""},
		{"by carrier again", ab + "}", ""},
		{"what takes the members out", ab + ", failOverMac: active}", ""},
		{"another mode", "{name: bond0, mode: balance-rr, members: [eth1, eth2]}", "eth1:up,eth2:up"},
		{"and another", "{name: bond0, mode: 802.3ad, members: [eth1, eth2], lacpRate: fast, hashPolicy: layer3+4, minLinks: 1}", ""},
		{"and back", ab + "}", ""},
	}
	applyPorts(t, s, ab+"}")
	s.addVS(t, 8, "--port", "bond0", "--no-probe")
	tcp := dialEcho(t, s.client, s.In("vs8"), "192.0.2.8:7")
	for _, step := range steps {
		if out := applyPorts(t, s, step.port); out != "port bond0 changed\n" {
			t.Errorf("%s: %s", step.what, out)
		}
		began := time.Now()
		if err := tcp.goesOn(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		t.Logf("%s: the connection went on after %v", step.what, time.Since(began).Round(time.Millisecond))
		if step.members != "" {
			s.awaitMembers(t, "bond0", step.members)
		}
		if r := s.Vsrun("diff"); r.Code != 0 {
			t.Errorf("%s: %v", step.what, r)
		}
	}
	if out := applyPorts(t, s, ab+"}"); out != "port bond0 unchanged\n" {
		t.Error(out)
	}
}

// A member that leaves takes its MAC along: the bond does not keep it.
func portReplacedMembers(t *testing.T, s *site) {
	giveOwn(t, s.Host)
	before := dump(t, s.Host)
	own := map[string]string{}
	for _, p := range []string{"eth1", "eth2", "eth3"} {
		own[p] = macOf(t, s.Host, p)
	}
	applyPorts(t, s, "{name: bond0, mode: active-backup, members: [eth1]}")
	s.addVS(t, 8, "--port", "bond0", "--no-probe")
	tcp := dialEcho(t, s.client, s.In("vs8"), "192.0.2.8:7")
	for _, step := range []struct{ members, mac string }{
		{"eth1, eth3", own["eth1"]},
		{"eth3", own["eth3"]}, // all others out
		{"eth2", own["eth2"]}, // by none of those before
	} {
		applyPorts(t, s, "{name: bond0, mode: active-backup, members: ["+step.members+"]}")
		if got := macOf(t, s.Host, "bond0"); got != step.mac {
			t.Errorf("of %s the bond has %s, want %s (all: %v)", step.members, got, step.mac, own)
		}
		for p, mac := range own {
			if !strings.Contains(step.members, p) && macOf(t, s.Host, p) != mac {
				t.Errorf("of %s: %s has %s, and had %s", step.members, p, macOf(t, s.Host, p), mac)
			}
		}
		if err := tcp.goesOn(); err != nil {
			t.Errorf("%s: %v", step.members, err)
		}
	}
	s.MustVsrun(t, "destroy", "8")
	s.MustVsrun(t, "port", "destroy", "bond0")
	mustBe(t, s.Host, before, "destroyed")
}

func macOf(t *testing.T, h *lab.Host, dev string) string {
	t.Helper()
	return decoded[[]struct{ Address string }](t, h.Run(t, "ip", "-j", "link", "show", "dev", dev))[0].Address
}

// A member that vanishes is missing, and is taken in again under its name.
func portVanishedMember(t *testing.T, s *site) {
	const doc = "{name: bond0, mode: active-backup, members: [eth1, eth2]}"
	for _, mend := range []string{"enable", "apply"} {
		applyPorts(t, s, doc)
		s.addVS(t, 8, "--port", "bond0", "--no-probe")
		putBack := s.seg.Remove(t, "eth2")
		if out := s.MustVsrun(t, "port", "ls"); !strings.Contains(out, "bond0  degraded  active-backup  eth1:up,eth2:missing") {
			t.Error(out)
		}
		if r := s.Vsrun("diff"); r.Code != 1 || r.Stdout != "port bond0: member eth2 is not on this host\n" {
			t.Error(r)
		}
		s.MustVsrun(t, "enable", "8", "--no-probe")
		putBack()
		if r := s.Vsrun("diff"); r.Code != 1 || !strings.Contains(r.Stdout, "port bond0: add eth2 to bond0\n") {
			t.Error(r)
		}
		if mend == "apply" {
			applyPorts(t, s, doc)
		} else {
			s.MustVsrun(t, "enable", "8", "--no-probe")
		}
		s.awaitMembers(t, "bond0", "eth1:up,eth2:backup")
		if err := reach(s.client, "192.0.2.8"); err != nil {
			t.Error(err)
		}
		s.MustVsrun(t, "destroy", "8")
	}
	// All of them.
	putBack := []func(){s.seg.Remove(t, "eth1"), s.seg.Remove(t, "eth2")}
	if got := s.port(t, "bond0"); got.State != "down" || got.members() != "eth1:missing,eth2:missing" {
		t.Errorf("%+v", got)
	}
	for _, f := range putBack {
		f()
	}
	applyPorts(t, s, doc)
	s.awaitMembers(t, "bond0", "eth1:up,eth2:backup")
	// One that is gone for good does not keep the port from being destroyed.
	back := s.seg.Remove(t, "eth1")
	s.MustVsrun(t, "port", "destroy", "bond0")
	back()
}

// What somebody does by hand is named, and mended.
func portDrift(t *testing.T, s *site) {
	lab.Require(t, "kind:vlan")
	const doc = "{name: bond0, mode: active-backup, members: [eth1, eth2], primary: eth1, mtu: 1400}"
	giveOwn(t, s.Host)
	before := dump(t, s.Host)
	applyPorts(t, s, doc)
	s.addVS(t, 8, "--port", "bond0", "--no-probe")
	s.addVS(t, 9, "--port", "bond0", "--vlan", "10", "--no-probe")
	for k, tt := range []struct {
		hand []string
		want []string
		vs9  bool // it is broken, too
	}{
		{[]string{"link set dev eth2 nomaster"}, []string{"add eth2 to bond0"}, false},
		{[]string{"link set dev eth1 nomaster", "link set dev eth1 up"}, []string{"take down eth1", "add eth1 to bond0"}, false},
		{[]string{"link set dev bond0 type bond miimon 20"}, []string{"set miimon 100 on bond0"}, false},
		{[]string{"link set dev bond0 type bond primary eth2 num_grat_arp 1"}, []string{"set num_grat_arp 3 on bond0", "set primary eth1 on bond0"}, false},
		{[]string{"link set dev bond0 mtu 1500"}, []string{"set mtu 1400 on bond0"}, false},
		{[]string{"link set dev bond0 down"}, []string{"bring up bond0"}, false},
		{[]string{"link set dev bond0 alias mine"}, []string{"mark bond0 as vsrun:port"}, false},
		{[]string{"link del dev bond0"}, []string{"add bond bond0", "add eth1 to bond0", "add eth2 to bond0", "bring up bond0"}, true},
	} {
		script(t, s.Host, tt.hand...)
		r := s.Vsrun("diff")
		if r.Code != 1 {
			t.Errorf("after %q: %v", tt.hand, r)
		}
		var drift []string
		for line := range strings.Lines(r.Stdout) {
			if d, ok := strings.CutPrefix(line, "port bond0: "); ok {
				drift = append(drift, strings.TrimSpace(d))
			}
		}
		for _, want := range tt.want {
			if !slices.Contains(drift, want) {
				t.Errorf("after %q: no %q in %q", tt.hand, want, drift)
			}
		}
		if k > 0 {
		} else if got := s.port(t, "bond0"); !slices.Equal(got.Drift, drift) || got.State != "degraded" {
			t.Errorf("after %q diff says %q, show %+v", tt.hand, drift, got)
		}
		s.MustVsrun(t, "enable", "8", "--no-probe")
		if tt.vs9 {
			s.MustVsrun(t, "enable", "9", "--no-probe")
		}
		if r := s.Vsrun("diff"); r.Code != 0 {
			t.Errorf("mended after %q: %v", tt.hand, r)
		}
		if err := reach(s.client, "192.0.2.8"); err != nil {
			t.Errorf("mended after %q: %v", tt.hand, err)
		}
	}
	s.MustVsrun(t, "destroy", "--all")
	// Given back, whatever is there still.
	script(t, s.Host, "link del dev bond0")
	s.MustVsrun(t, "port", "destroy", "bond0")
	mustBe(t, s.Host, before, "destroyed")
}

func portMTU(t *testing.T, s *site) {
	t.Cleanup(func() { script(t, s.Host, "link set dev eth1 mtu 1500", "link set dev eth2 mtu 1500") })
	script(t, s.Host, "link set dev eth1 mtu 1450", "link set dev eth2 mtu 1400")
	create := []string{"port", "create", "bond0", "--members", "eth1,eth2", "--mode", "active-backup"}
	s.MustVsrun(t, create...)
	if got := s.port(t, "bond0"); got.MTU != 1400 {
		t.Errorf("of members with 1450 and 1400 the bond has %d", got.MTU)
	}
	r := s.Vsrun("create", "8", "--port", "bond0", "--mtu", "1401", "--address", "192.0.2.8/24")
	if r.Code != 1 || !strings.Contains(r.Stderr, "mtu 1401 of eth0 is above 1400, the mtu of port bond0\nhint: ") {
		t.Error(r)
	}
	s.MustVsrun(t, "port", "destroy", "bond0")
	s.MustVsrun(t, append(create, "--mtu", "1600")...)
	s.addVS(t, 8, "--port", "bond0", "--no-probe", "--mtu", "1600")
	links := s.Run(t, "ip", "-o", "link", "show")
	if strings.Count(links, "mtu 1600") != 3 {
		t.Errorf("not the bond and both members have 1600: %s", links)
	}
	s.MustVsrun(t, "destroy", "8")
	s.MustVsrun(t, "port", "destroy", "bond0")
	if links := s.Run(t, "ip", "-o", "link", "show"); !strings.Contains(links, "mtu 1450") || !strings.Contains(links, "mtu 1400") {
		t.Errorf("the members have not got theirs back: %s", links)
	}
}

func portMAC(t *testing.T, s *site) {
	const mac = "02:00:5e:10:00:99"
	first := macOf(t, s.Host, "eth2")
	s.MustVsrun(t, "port", "create", "bond0", "--members", "eth2,eth1", "--mode", "active-backup")
	if got := s.port(t, "bond0").MAC; got != first {
		t.Errorf("it has %s, and its first member %s", got, first)
	}
	s.MustVsrun(t, "port", "destroy", "bond0")
	doc := func(members string) string {
		return "{name: bond0, mode: active-backup, members: [" + members + "], mac: \"" + mac + "\"}"
	}
	check := func(when string) {
		t.Helper()
		if got := s.port(t, "bond0"); got.MAC != mac || len(got.Drift) > 0 {
			t.Errorf("%s: %+v", when, got)
		}
	}
	applyPorts(t, s, doc("eth1, eth2"))
	check("created")
	applyPorts(t, s, doc("eth3"))
	check("all members replaced")
	script(t, s.Host, "link set dev eth3 nomaster")
	applyPorts(t, s, doc("eth3"))
	check("all members were out")
	applyPorts(t, s, strings.Replace(doc("eth3"), "active-backup", "balance-xor", 1))
	check("in another mode")
	for _, p := range []string{"eth1", "eth2"} {
		if got := macOf(t, s.Host, p); got == mac {
			t.Errorf("%s, given back, has the bond's MAC", p)
		}
	}
}

// A reboot takes the bond, and leaves the record.
func portAfterReboot(t *testing.T, s *site) {
	giveOwn(t, s.Host)
	before := dump(t, s.Host)
	s.MustVsrun(t, "port", "create", "bond0", "--members", "eth1,eth2", "--mode", "balance-rr")
	s.addVS(t, 8, "--port", "bond0", "--no-probe")
	s.In("vs8").Run(t, "ip", "link", "del", "eth0")
	s.Run(t, "ip", "netns", "del", "vs8")
	// What the system's own configuration does at boot.
	script(t, s.Host, append([]string{"link del dev bond0", "link set dev eth1 up"}, ownAddresses...)...)
	if r := s.Vsrun("diff"); r.Code != 1 || !strings.Contains(r.Stdout, "port bond0: add bond bond0\n") {
		t.Error(r)
	}
	s.MustVsrun(t, "enable", "--all", "--no-probe")
	if err := reach(s.client, "192.0.2.8"); err != nil {
		t.Error(err)
	}
	if got := s.port(t, "bond0"); got.State != "up" || got.members() != "eth1:up,eth2:up" {
		t.Errorf("%+v", got)
	}
	s.MustVsrun(t, "destroy", "8")
	s.MustVsrun(t, "port", "destroy", "bond0")
	mustBe(t, s.Host, before, "destroyed")
}
