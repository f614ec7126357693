package e2e_test

import (
	"strings"
	"testing"
)

// Whom on the same port a macvlan reaches is its mode's to say; the wire all of them reach.
func TestModes(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "9", "--no-probe", "--port", "eth1", "--address", "192.0.2.9/24")
	for _, c := range []struct {
		mode    string
		reaches bool
	}{{"private", false}, {"bridge", true}, {"vepa", false}} { // the lab's switch sends nothing back
		s.must(t, s.VsrunIn("{id: 8, interfaces: [{name: eth0, port: eth1, mode: "+c.mode+", addresses: [192.0.2.8/24]}]}", "apply", "-f", "-"))
		if got := s.In("vs8").Run(t, "ip", "-d", "link", "show", "eth0"); !strings.Contains(got, "macvlan mode "+c.mode) {
			t.Errorf("%s: it is\n%s", c.mode, got)
		}
		if err := reach(s.client, "192.0.2.8"); err != nil {
			t.Errorf("%s: %v", c.mode, err)
		}
		if err := reach(s.In("vs8"), "192.0.2.9"); (err == nil) != c.reaches {
			t.Errorf("%s: %v", c.mode, err)
		}
		if r := s.Vsrun("diff", "8"); r.Code != 0 {
			t.Error(r)
		}
	}
	r := s.VsrunIn("{id: 9, interfaces: [{name: eth0, port: eth1, mode: bridge, addresses: [192.0.2.9/24]}]}", "apply", "-f", "-")
	if r.Code != 0 || !strings.Contains(r.Stdout, "unchanged") {
		t.Errorf("a default that is written out: %v", r)
	}
}
