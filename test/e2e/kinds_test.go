package e2e_test

import (
	"fmt"
	"strings"
	"testing"
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
