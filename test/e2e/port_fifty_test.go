package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/test/lab"
)

// fiftyCommands are drawn from, about a virtual server ID that is put AT a place.
var fiftyCommands = []string{
	"create ID --no-probe --address 198.51.100.ID/24 AT", "create ID --no-probe --address 198.51.100.ID/24 AT",
	"create ID --no-probe --address 198.51.100.ID/24 AT", "attach ID --no-probe --ifname lan AT", "detach ID lan",
	"enable ID --no-probe", "disable ID", "destroy ID", "diff",
	"port create bond0 --members eth1,eth2 --mode active-backup", "port destroy bond0",
	"port create bond1 --members eth3 --mode balance-rr", "port destroy bond1",
}

var fiftyPlaces = []string{"--port bond0", "--port bond0 --vlan 10", "--port bond0 --vlan 20", "--port bond1 --vlan 10", "--port eth3 --vlan 10"}

// fiftyRefusals are how a command may end because of what another one does, or with status 3
// where there is no such virtual server.
var fiftyRefusals = []string{"is in use", "is different", "is there twice", "is a member of", "no port bond"}

// Fifty do what they like with virtual servers, and with the bonds and VLANs below them. Each
// succeeds or is refused. Then all is as asked for, and the host has no VLAN device but those
// that somebody uses: made once, gone with the last.
func portFifty(t *testing.T, s *site) {
	lab.Require(t, "kind:vlan")
	before := dump(t, s.Host)
	s.MustVsrun(t, strings.Fields("port create bond0 --members eth1,eth2 --mode active-backup")...)
	results := make([]lab.Result, 50)
	var all sync.WaitGroup
	for k := range results {
		words := strings.NewReplacer("ID", fmt.Sprint(1+rand.IntN(6)), "AT", fiftyPlaces[rand.IntN(len(fiftyPlaces))])
		line := words.Replace(fiftyCommands[rand.IntN(len(fiftyCommands))])
		all.Go(func() { results[k] = s.Vsrun(strings.Fields(line)...) })
	}
	all.Wait()
	succeeded, what := 0, ""
	for _, r := range results {
		what += fmt.Sprintln(r)
		if r.Code == 0 {
			succeeded++
		} else if r.Code != 3 && !strings.HasPrefix(r.String(), "$ vsrun diff") &&
			!slices.ContainsFunc(fiftyRefusals, func(words string) bool { return strings.Contains(r.Stderr, words) }) {
			t.Error(r)
		}
	}
	t.Logf("%d of %d commands succeeded", succeeded, len(results))
	for _, args := range []string{"diff", "gc --dry-run"} {
		if r := s.Vsrun(strings.Fields(args)...); r.Code != 0 || r.Stdout != "" && r.Stdout != "nothing to remove\n" {
			t.Error(r)
		}
	}
	for left := s.vlansOfUsers(t); len(left) > 0; left = s.vlansOfUsers(t) {
		s.MustVsrun(t, "destroy", left[rand.IntN(len(left))])
	}
	cleanPorts(t, s.Host)
	mustBe(t, s.Host, before, "all destroyed")
	if t.Failed() {
		t.Log(what)
	}
}

// vlansOfUsers compares the host's VLAN devices with what virtual servers are on, and returns
// their numbers.
func (s *site) vlansOfUsers(t *testing.T) (ids []string) {
	t.Helper()
	var want, have []string
	for _, vs := range decoded[[]struct {
		ID         int
		State      string
		Interfaces []struct {
			Port string
			VLAN any
		}
	}](t, s.MustVsrun(t, "ls", "-o", "json")) {
		ids = append(ids, fmt.Sprint(vs.ID))
		for _, i := range vs.Interfaces {
			if i.VLAN != nil && vs.State == "enabled" {
				want = append(want, fmt.Sprintf("%s.%v", i.Port, i.VLAN))
			}
		}
	}
	slices.Sort(want)
	for _, d := range decoded[[]device](t, s.Run(t, "ip", "-d", "-j", "link", "show", "type", "vlan")) {
		have = append(have, fmt.Sprintf("%s.%d", d.Link, d.Linkinfo.Info_data.ID))
	}
	slices.Sort(have)
	t.Logf("%d virtual servers, VLAN devices %v", len(ids), have)
	if diff := cmp.Diff(slices.Compact(want), have); diff != "" {
		t.Errorf("VLAN devices, used (-) and there (+):\n%s", diff)
	}
	return ids
}
