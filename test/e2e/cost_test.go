package e2e_test

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/vsrun/vsrun/test/fault"
	"github.com/vsrun/vsrun/test/lab"
)

// A cost is what a command asks of the kernel. Time is not asserted anywhere: this is
// what it is made of. docs/cost.md says what each is for.
type cost struct {
	fsync    int
	visits   int // of a thread to a namespace and back: setns, and unshare where it is made
	sends    int // of netlink requests
	messages int // in them
	files    int // opened
	others   int // more files for each other virtual server
}

// Each figure is the most that it may be. One that has become much less is to be written
// down here, so that it stays so.
func TestCost(t *testing.T) {
	const create = "create 8 --no-probe --port eth1 --address 192.0.2.8/24 --gateway 192.0.2.1"
	const others = 5
	h := newSite(t)
	for round := range 2 {
		for _, tt := range []struct {
			args string
			want cost
		}{
			// Record and ledger with their directories, and the ledger's own in the state
			// directory; made, left and entered for sysctls; the port and its addresses are
			// looked at, then: loopback, the link, its index, its mark, up, address and route,
			// announcement; 20 sysctls.
			{create, cost{fsync: 5, visits: 4, sends: 9, messages: 11, files: 56, others: 1}},
			// The namespace is entered for a socket and to look; port and its addresses;
			// links, addresses, rules and routes; 21 sysctls; a cgroup that an init could have
			// left. Nothing is written; the directory is synced, for who wrote the record may have
			// died before.
			{"enable 8 --no-probe", cost{fsync: 1, visits: 4, sends: 6, messages: 6, files: 39}},
			// The record twice: what a document is compared with may have other devices.
			{"diff 8", cost{fsync: 0, visits: 4, sends: 6, messages: 6, files: 37}},
			// Record and ledger with their directories.
			{"disable 8", cost{fsync: 4, visits: 6, sends: 5, messages: 5, files: 45}},
			{"enable 8 --no-probe", cost{fsync: 4, visits: 4, sends: 9, messages: 11, files: 57, others: 1}},
			// The record and its directory, which a second time is for the record that is gone.
			{"destroy 8", cost{fsync: 3, visits: 4, sends: 5, messages: 5, files: 32}},
		} {
			tt.want.files += round * others * tt.want.others
			got := costOf(t, tt.args)
			switch {
			case got.exceeds(tt.want, 0):
				t.Errorf("%s: %+v, and may be %+v", tt.args, got, tt.want)
			case tt.want.exceeds(got, 15):
				t.Errorf("%s: %+v is less than %+v: write it down", tt.args, got, tt.want)
			}
		}
		for k := range others * (1 - round) {
			h.MustVsrun(t, "create", strconv.Itoa(100+k), "--disabled")
		}
	}
}

// What is said to be as it should be is on the disk, though who stored it was killed before
// its own sync: one sync for each command, not for each virtual server.
func TestUnchangedIsSynced(t *testing.T) {
	h := newSite(t)
	for id := range 3 {
		h.MustVsrun(t, "create", strconv.Itoa(8+id))
	}
	document := writeDocument(t, "{id: 8}\n---\n{id: 9}\n")
	for _, args := range []string{"create 8", "enable 8", "enable --all", "apply -f " + document} {
		if got := costOf(t, args).fsync; got != 1 {
			t.Errorf("%s syncs %d times", args, got)
		}
	}
}

// exceeds reports whether any figure is higher by more than allowed.
func (c cost) exceeds(o cost, allowed int) bool {
	return c.fsync > o.fsync+allowed || c.visits > o.visits+allowed || c.sends > o.sends+allowed ||
		c.messages > o.messages+allowed || c.files > o.files+allowed
}

func costOf(t *testing.T, args string) (c cost) {
	t.Helper()
	argv := append([]string{filepath.Join(lab.Programs(t), "vsrun")}, strings.Fields(args)...)
	var trial fault.Trial
	trial.Begin(fault.Fault{})
	p, err := trial.Start("", argv...)
	if err != nil {
		t.Fatal(err)
	}
	if r := p.Wait(); r.Code != 0 {
		t.Fatalf("%s: exit status %d\n%s", args, r.Code, r.Output)
	}
	calls, _ := trial.End()
	for _, call := range calls {
		name, _, _ := strings.Cut(strings.TrimPrefix(call.Kind, "vsrun: "), " ")
		switch {
		case call.Message:
			c.messages++
		case name == "sendto":
			c.sends++
		case name == "fsync":
			c.fsync++
		case name == "setns", name == "unshare":
			c.visits++
		case name == "openat":
			c.files++
		}
	}
	return c
}
