package e2e_test

import (
	"strings"
	"testing"

	"github.com/vsrun/vsrun/test/lab"
)

// A kernel without bonds says so, and nothing is left: neither in the store, nor of
// what members had.
func TestPortWithoutBonding(t *testing.T) {
	lab.Require(t, "without:bond")
	h := newHost(t)
	h.Segment("eth1", "eth2")
	h.MustVsrun(t, "ls") // makes the state directory
	before, stored := h.Snapshot(), len(storedFiles(t, h))
	for _, args := range []string{
		"port create bond0 --members eth1,eth2 --mode active-backup",
		"apply -f " + portDocument(t, "{name: bond0, mode: 802.3ad, members: [eth1]}"),
	} {
		r := h.Vsrun(strings.Fields(args)...)
		const want = " port bond0: cannot add bond bond0: this kernel has no bonds\nhint: load it with `modprobe bonding`, or use a kernel with CONFIG_BONDING\n"
		if r.Code != 1 || !strings.HasSuffix(r.Stderr, want) {
			t.Errorf("%v\nwant %s", r, want)
		}
		if d := before.Diff(h.Snapshot()); d != "" {
			t.Errorf("it left\n%s", d)
		}
		if now := len(storedFiles(t, h)); now > stored+1 { // the lock
			t.Errorf("%d files are stored: %v", now, storedFiles(t, h))
		}
	}
	if r := h.Vsrun("port", "show", "bond0"); r.Code != 3 {
		t.Error(r)
	}
}
