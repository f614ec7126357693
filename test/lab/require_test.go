package lab_test

import (
	"strings"
	"testing"

	"github.com/vsrun/vsrun/test/lab"
)

func TestRequire(t *testing.T) {
	for _, c := range []struct {
		name, required string
		skips, fails   string // what the message has
	}{
		{name: "ip"},
		{name: "kind:macvlan"},
		{name: "kind:bridge"},
		{name: "kind:nonsense", skips: "no nonsense devices"},
		{name: "linux:2.6"},
		{name: "linux:99.0", skips: "this kernel is "},
		{name: "linux:99.0", required: "linux:all", fails: "this kernel is "},
		{name: "no-such-command", skips: "MISSING no-such-command"},
		{name: "no-such-command", required: "samba,root", skips: "MISSING"},
		{name: "no-such-command", required: "samba,no-such-command", fails: "VSRUN_REQUIRE forbids"},
		{name: "no-such-command", required: "all", fails: "MISSING no-such-command"},
		{name: "no-such-command", required: "all,-no-such-command", skips: "MISSING"},
		{name: "kind:nonsense", required: "all", skips: "MISSING"},
		{name: "kind:nonsense", required: "kind:all", fails: "MISSING kind:nonsense"},
		{name: "controller:nonsense", required: "all,kind:all", skips: "MISSING"},
		{name: "controller:nonsense", required: "controller:all", fails: "MISSING controller:nonsense"},
	} {
		t.Setenv("VSRUN_REQUIRE", c.required)
		r := &recorder{TB: t}
		r.play(func() { lab.Require(r, c.name) })
		skips, fails := strings.Join(r.skips, ""), strings.Join(r.errors, "")
		if !strings.Contains(skips, c.skips) || (skips == "") != (c.skips == "") ||
			!strings.Contains(fails, c.fails) || (fails == "") != (c.fails == "") {
			t.Errorf("Require(%q) with VSRUN_REQUIRE=%q: skips %q, fails %q", c.name, c.required, skips, fails)
		}
	}
}

func TestNeedRoot(t *testing.T) {
	t.Setenv("VSRUN_REQUIRE", "")
	r := &recorder{TB: t}
	r.play(func() { lab.NeedRoot(r, "it wants to be somebody else") })
	if skipped := len(r.skips) == 1; skipped != lab.SingleUser() {
		t.Errorf("in a host with a single user: %v, skips: %q", lab.SingleUser(), r.skips)
	}
}
