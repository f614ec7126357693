package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// differs is nil when what there is differs from what should be, and words tell it.
func (s *site) differs(words string) error {
	if r := s.Vsrun("diff", "8"); r.Code != 1 || !strings.Contains(r.Stdout, words) {
		return fmt.Errorf("differs by something else than %q: %v", words, r)
	}
	return nil
}

// refuses has a command fail with these words, a cure among them.
func (s *site) refuses(t *testing.T, args, words string) {
	t.Helper()
	if r := s.Vsrun(strings.Fields(args)...); r.Code == 0 || !strings.Contains(r.Stderr, words) || !strings.Contains(r.Stderr, "") {
		t.Errorf("%v\nnot %q", r, words)
	}
}

// heals has an enable mend what differs.
func (s *site) heals(t *testing.T, words string) {
	t.Helper()
	if err := s.differs(words); err != nil {
		t.Error(err)
	}
	s.MustVsrun(t, "enable", "8", "--no-probe")
	s.MustVsrun(t, "diff", "8")
}

// again takes the virtual server down and up, and away, with nothing left each time.
func (s *site) again(t *testing.T, address string) {
	t.Helper()
	for range 5 {
		s.MustVsrun(t, "disable", "8")
		for line := range strings.Lines(s.Leaks()) {
			if !strings.HasPrefix(line, "file ") { // the record, and the ledger
				t.Errorf("disabled, it leaves %s", line)
			}
		}
		s.MustVsrun(t, "enable", "8", "--no-probe")
	}
	if err := s.client.Ping(address); err != nil {
		t.Error(err)
	}
	s.MustVsrun(t, "destroy", "8")
	if leaks := s.Leaks(); leaks != "" {
		t.Errorf("destroyed, it leaves\n%s", leaks)
	}
}

// A macvlan in mode source hears those alone that it is told, and who they are can be
// changed while it is in use.
func TestSource(t *testing.T) {
	s := newSite(t)
	other := s.seg.Client("client2", "192.0.2.101/24")
	mac := func(c interface {
		Run(testing.TB, ...string) string
	}) string {
		return decoded[[]struct{ Address string }](t, c.Run(t, "ip", "-j", "link", "show", "dev", "eth0"))[0].Address
	}
	one, two := mac(s.client), mac(other)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--mode", "source", "--source", one)
	s.MustVsrun(t, "create", "9", "--no-probe", "--port", "eth1", "--address", "192.0.2.9/24") // beside others
	first := s.mac(t, "vs8", "eth0")
	if err := s.client.Ping("192.0.2.8"); err != nil {
		t.Error(err)
	}
	if err := reach(other, "192.0.2.8"); err == nil {
		t.Error("another one reaches it, too")
	}
	s.must(t, s.VsrunIn("{id: 8, interfaces: [{name: eth0, port: eth1, mode: source, sources: ['"+two+"', '"+one+"'], addresses: [192.0.2.8/24]}]}", "apply", "-f", "-"))
	soon(t, func() error { return other.Ping("192.0.2.8") }) // whom its own question had found to be nobody
	if now := s.mac(t, "vs8", "eth0"); now != first {
		t.Errorf("its MAC was %s, and is %s", first, now)
	}
	s.In("vs8").Run(t, "ip", "link", "set", "dev", "eth0", "type", "macvlan", "macaddr", "del", one)
	s.heals(t, "set the sources of eth0")
	if err := s.client.Ping("192.0.2.8"); err != nil {
		t.Error(err)
	}
	if got := s.MustVsrun(t, "show", "8"); !strings.Contains(got, "source") || !strings.Contains(got, two) {
		t.Error(got)
	}
	s.MustVsrun(t, "destroy", "9")
	s.again(t, "192.0.2.8")
}

// A macvlan in mode passthru has the port, and its MAC, for itself.
func TestPassthru(t *testing.T) {
	s := newSite(t, "eth1", "eth2")
	port := decoded[[]struct{ Address string }](t, s.Run(t, "ip", "-j", "link", "show", "dev", "eth1"))[0].Address
	s.MustVsrun(t, "create", "8", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64", "--mode", "passthru")
	for _, addr := range []string{"192.0.2.8", "2001:db8::8"} {
		if err := s.client.Ping(addr); err != nil {
			t.Error(err)
		}
	}
	if mac := s.mac(t, "vs8", "eth0"); mac != port || s.show(t, "8").Interfaces[0].MAC != port {
		t.Errorf("its MAC is %s, and the port's %s", mac, port)
	}
	s.MustVsrun(t, "diff", "8")
	s.refuses(t, "create 9 --port eth1 --address 192.0.2.9/24", "vs8 already has port eth1, in another way than macvlan in mode bridge")
	s.MustVsrun(t, "create", "9", "--port", "eth2", "--address", "192.0.2.9/24")
	s.refuses(t, "attach 8 --port eth2 --mode passthru", "vs9 already has port eth2, which a macvlan in mode passthru shares with nobody")
	s.refuses(t, "create 10 --port eth3 --mode passthru --mac 02:00:00:00:00:09", "mode passthru, which has the MAC of what it sits on")
	s.MustVsrun(t, "destroy", "9")

	s.In("vs8").Run(t, "ip", "link", "delete", "eth0")
	s.heals(t, "add macvlan eth0 on port eth1")
	// What others have it as, and back.
	for _, mode := range []string{"private", "passthru", "bridge", "passthru"} {
		s.must(t, s.VsrunIn("{id: 8, interfaces: [{name: eth0, port: eth1, mode: "+mode+", addresses: [192.0.2.8/24]}]}", "apply", "-f", "-"))
		if err := s.client.Ping("192.0.2.8"); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		s.MustVsrun(t, "diff", "8")
	}
	// The port is at once free for others.
	for range 5 {
		s.MustVsrun(t, "destroy", "8")
		s.MustVsrun(t, "create", "9", "--no-probe", "--port", "eth1", "--address", "192.0.2.9/24")
		s.MustVsrun(t, "destroy", "9")
		s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--mode", "passthru")
	}
	s.again(t, "192.0.2.8")
}

// Many of them are destroyed at once, and nothing is left of any either.
func TestKindsDepart(t *testing.T) {
	s := newSite(t, "eth1", "eth2")
	for range 5 {
		s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--mode", "passthru", "--address", "192.0.2.8/24")
		s.MustVsrun(t, "create", "9", "--no-probe", "--port", "eth2", "--address", "192.0.2.9/24")
		s.MustVsrun(t, "destroy", "8", "9")
		if leaks := s.Leaks(); leaks != "" {
			t.Errorf("it leaves\n%s", leaks)
		}
	}
}

// nic is a device of the host's, as it says of itself.
func (s *site) nic(t *testing.T, name string) string {
	t.Helper()
	type device struct {
		Ifname, Address, Ifalias string
		MTU                      int
		Altnames, Flags          []string
	}
	d := decoded[[]device](t, s.Run(t, "ip", "-j", "link", "show", "dev", name))[0]
	return fmt.Sprintf("%s %v %s mtu %d up %v alias %q", d.Ifname, d.Altnames, d.Address, d.MTU, strings.Contains(strings.Join(d.Flags, ","), "UP"), d.Ifalias)
}

// newDeviceSite is a site whose eth2 is given away; what the kernel makes anew of it with each
// move, its own kernel parameters, is put back at the end.
func newDeviceSite(t *testing.T) *site {
	t.Helper()
	s := newSite(t, "eth1", "eth2")
	t.Cleanup(func() { s.Run(t, "sysctl", "-qw", "net.ipv6.conf.eth2.accept_dad=0") })
	t.Cleanup(func() { s.MustVsrun(t, "destroy", "--all") })
	return s
}

// A whole device is moved in, and comes back as it was, whatever ends it there.
func TestDevice(t *testing.T) {
	s := newDeviceSite(t)
	s.Run(t, "ip", "link", "set", "dev", "eth2", "alias", "second floor, left")
	t.Cleanup(func() { s.Run(t, "ip", "link", "set", "dev", "eth2", "alias", "") })
	t.Cleanup(func() { s.Run(t, "ip", "link", "property", "del", "dev", "eth2", "altname", "enp3s0") })
	s.Run(t, "ip", "link", "property", "add", "dev", "eth2", "altname", "enp3s0")
	was := s.nic(t, "eth2")
	back := func(why string) {
		t.Helper()
		if now := s.nic(t, "eth2"); now != was {
			t.Errorf("%s: it was\n%s, and is\n%s", why, was, now)
		}
	}
	const doc = "{id: 8, interfaces: [{name: eth0, port: eth2, kind: device, mac: '02:00:00:00:00:08', mtu: 1400, addresses: [192.0.2.8/24], gateways: [192.0.2.1]}]}"
	s.must(t, s.VsrunIn(doc, "create", "-f", "-"))
	if err := s.client.Ping("192.0.2.8"); err != nil {
		t.Error(err)
	}
	if mac := s.mac(t, "vs8", "eth0"); mac != "02:00:00:00:00:08" {
		t.Error(mac)
	}
	if r := s.TryRun("ip", "link", "show", "dev", "eth2"); r.Code == 0 {
		t.Errorf("it is still on the host: %v", r)
	}
	s.MustVsrun(t, "diff", "8")
	s.refuses(t, "create 9 --port eth2 --address 192.0.2.9/24", "vs8 already has port eth2, which cannot be shared (kind device)")

	s.In("vs8").Run(t, "ip", "link", "set", "dev", "eth0", "mtu", "1300", "address", "02:00:00:00:00:99")
	s.heals(t, "set MAC 02:00:00:00:00:08 on eth0")
	s.MustVsrun(t, "disable", "8")
	back("disabled")
	s.MustVsrun(t, "enable", "8", "--no-probe")
	s.MustVsrun(t, "detach", "8", "eth0")
	back("detached")
	// Without a MAC it has its own, which a switch may be told too early: its port has just come up.
	s.MustVsrun(t, "attach", "8", "--no-probe", "--port", "eth2", "--kind", "device", "--address", "192.0.2.18/24")
	if err := s.client.Ping("192.0.2.18"); err != nil {
		t.Error(err)
	}
	s.must(t, s.VsrunIn("{id: 8, interfaces: [{name: eth0, port: eth1, addresses: [192.0.2.8/24]}]}", "apply", "-f", "-"))
	back("another port")
	s.must(t, s.VsrunIn(doc, "apply", "-f", "-"))
	s.MustVsrun(t, "diff", "8")
	s.MustVsrun(t, "create", "9", "--no-probe", "--port", "eth1", "--address", "192.0.2.9/24")
	s.MustVsrun(t, "destroy", "8", "9") // together
	back("destroyed with others")
	if leaks := s.Leaks(); strings.Contains(leaks, "eth0") || strings.Contains(leaks, "vs8") {
		t.Error(leaks)
	}
}

// What a device had counted on the host is not the virtual server's, in any of its lives.
func TestDeviceLedger(t *testing.T) {
	s := newDeviceSite(t)
	onHost := func() { // more than all that is sent inside
		t.Helper()
		s.MustVsrun(t, "create", "9", "--no-probe", "--port", "eth2", "--address", "192.0.2.9/24")
		transfer(t, s, "vs9", "192.0.2.9", 5*parcel)
		s.MustVsrun(t, "destroy", "9")
	}
	onHost()
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth2", "--kind", "device", "--address", "192.0.2.8/24")
	a := &audit{site: s, id: "8", ns: "vs8", addr: "192.0.2.8"}
	a.check(t, "create")
	for range 2 {
		a.send(t)
		a.check(t, "a transfer")
		a.MustVsrun(t, "disable", "8")
		a.check(t, "disable")
		a.MustVsrun(t, "enable", "8", "--no-probe")
		a.check(t, "enable")
	}
	a.MustVsrun(t, "detach", "8", "eth0")
	a.check(t, "detach")
	onHost()
	a.MustVsrun(t, "attach", "8", "--no-probe", "--port", "eth2", "--kind", "device", "--address", "192.0.2.8/24")
	a.check(t, "attach")
	a.send(t)
	a.check(t, "another transfer")
	a.expectGaps(t, "all of that", 0)
}

// What a service calls a device of the host's is left inside, and ends there.
func TestDevicePretended(t *testing.T) {
	s := newDeviceSite(t)
	was := s.nic(t, "eth2")
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth2", "--kind", "device", "--address", "192.0.2.8/24")
	in := s.In("vs8")
	pretend := func() {
		t.Helper()
		in.Run(t, "ip", "link", "add", "x", "type", "veth", "peer", "name", "y")
		in.Run(t, "ip", "link", "set", "dev", "x", "alias", "vsrun:vs8/x eth7 02:00:00:00:00:77 1500 up")
	}
	for _, end := range []string{"disable 8", "destroy 8"} {
		pretend()
		s.MustVsrun(t, strings.Fields(end)...)
		if r := s.TryRun("ip", "link", "show", "dev", "eth7"); r.Code == 0 {
			t.Errorf("%s: the host has it: %v", end, r)
		}
		if now := s.nic(t, "eth2"); now != was {
			t.Errorf("%s: it was\n%s, and is\n%s", end, was, now)
		}
		if end == "disable 8" {
			s.MustVsrun(t, "enable", "8", "--no-probe")
		}
	}
}

// What cannot be given away is left as it is.
func TestDeviceRefused(t *testing.T) {
	s := newSite(t, "eth1", "eth2")
	s.Run(t, "ip", "address", "add", "198.51.100.7/24", "dev", "eth1")
	t.Cleanup(func() { s.TryRun("ip", "address", "delete", "198.51.100.7/24", "dev", "eth1") })
	s.refuses(t, "create 8 --port eth1 --kind device", "the host has addresses on eth1: 198.51.100.7")
	s.Run(t, "ip", "link", "add", "link", "eth2", "name", "mv0", "type", "macvlan")
	s.refuses(t, "create 8 --port eth2 --kind device", "mv0 sits on eth2")
	s.Run(t, "ip", "link", "delete", "mv0")
	s.refuses(t, "create 8 --port eth9 --kind device", "no port eth9 on this host")
	s.refuses(t, "create 8 --port eth2 --vlan 10 --kind device", "is a whole device, and none of its VLANs")
	s.MustVsrun(t, "create", "9", "--no-probe", "--port", "eth2", "--address", "192.0.2.9/24")
	s.refuses(t, "create 8 --port eth2 --kind device", "vs9 already has port eth2, which cannot be shared (kind device)")
}

// A device that came back by itself, or was marked by somebody who was killed, is found: by an
// enable, by a destroy, and by gc.
func TestDeviceThatCameBack(t *testing.T) {
	s := newDeviceSite(t)
	was := s.nic(t, "eth2")
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth2", "--kind", "device", "--mtu", "1400", "--address", "192.0.2.8/24")
	mark := decoded[[]struct{ Ifalias string }](t, s.In("vs8").Run(t, "ip", "-j", "link", "show", "dev", "eth0"))[0].Ifalias
	// As the kernel does with a NIC whose namespace ends: its name inside, if it is free.
	lost := func() {
		t.Helper()
		s.In("vs8").Run(t, "ip", "link", "set", "dev", "eth0", "down", "netns", "1", "name", "dev7")
		s.Run(t, "ip", "netns", "delete", "vs8")
	}
	lost()
	s.MustVsrun(t, "enable", "8", "--no-probe")
	if err := s.client.Ping("192.0.2.8"); err != nil {
		t.Error(err)
	}
	s.MustVsrun(t, "diff", "8")
	lost()
	if r := s.Vsrun("gc"); r.Code != 0 || strings.Contains(r.Stdout, "dev7") {
		t.Errorf("it is wanted: %v", r)
	}
	s.MustVsrun(t, "disable", "8")
	if now := s.nic(t, "eth2"); now != was {
		t.Errorf("it was\n%s, and is\n%s", was, now)
	}
	s.MustVsrun(t, "destroy", "8")
	s.Run(t, "ip", "link", "set", "dev", "eth2", "alias", mark)
	if r := s.Vsrun("gc"); r.Code != 0 || !strings.Contains(r.Stdout, "make eth2 what it was") {
		t.Errorf("%v", r)
	}
	if now := s.nic(t, "eth2"); now != was {
		t.Errorf("it was\n%s, and is\n%s", was, now)
	}
}

// Whenever a command is killed that gives a device away or takes it back, it is not lost.
func TestDeviceAfterKills(t *testing.T) {
	s := newDeviceSite(t)
	was := s.nic(t, "eth2")
	killed := func(args string, within time.Duration) {
		t.Helper()
		c := exec.Command(filepath.Join(lab.Programs(t), "vsrun"), strings.Fields(args)...)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(rand.N(within), func() { c.Process.Kill() })
		c.Wait()
		kill.Stop()
	}
	const create = "create 8 --no-probe --port eth2 --kind device --mac 02:00:00:00:00:08 --mtu 1400 --address 192.0.2.8/24"
	begun := time.Now()
	s.MustVsrun(t, strings.Fields(create)...)
	created := time.Since(begun)
	for range 20 {
		killed("destroy 8", created)
		s.MustVsrun(t, "destroy", "8")
		if now := s.nic(t, "eth2"); now != was {
			t.Fatalf("it was\n%s, and is\n%s", was, now)
		}
		killed(create, created)
		s.MustVsrun(t, strings.Fields(create)...)
		s.MustVsrun(t, "diff", "8")
	}
}
