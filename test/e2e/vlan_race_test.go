package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// inParallel runs command lines at once.
func (s *vlanSite) inParallel(lines ...string) []lab.Result {
	results := make([]lab.Result, len(lines))
	var all sync.WaitGroup
	for k, line := range lines {
		all.Go(func() { results[k] = s.Vsrun(strings.Fields(line)...) })
	}
	all.Wait()
	return results
}

// Eight that come at once make one device for each port, and the last of eight that
// leave at once takes it away.
func vlanAtOnce(t *testing.T, s *vlanSite) {
	var create, destroy []string
	for id := 1; id <= 8; id++ {
		port := "eth0"
		if id > 5 {
			port = longPort
		}
		create = append(create, fmt.Sprintf("create %d --port %s --vlan 10 --address 192.0.2.%[1]d/24", id, port))
		destroy = append(destroy, fmt.Sprintf("destroy %d", id))
	}
	for _, r := range s.inParallel(create...) {
		s.must(t, r)
	}
	if got := s.ours(t); len(got) != 2 {
		t.Errorf("the host has %q of ours, want one for each port", got)
	}
	for on, ids := range map[string]string{"10": "1 2 3 4 5", "far": "6 7 8"} {
		if r := s.on[on].TryRun("sh", "-c", "for id in "+ids+"; do ping -n -c 1 -W 2 192.0.2.$id || exit 1; done"); r.Code != 0 {
			t.Error(r)
		}
	}
	if r := s.Vsrun("diff"); r.Code != 0 {
		t.Error(r)
	}
	for _, r := range s.inParallel(destroy...) {
		s.must(t, r)
	}
	s.mustHave(t, "all gone")
}

// Fifty do what they like at once, and the device is there as long as anybody needs it.
func vlanFifty(t *testing.T, s *vlanSite) {
	c := &crowd{site: s.site, on: "--port eth0 --vlan 10", field: "port: eth0, vlan: 10", servers: 8}
	c.run(t, 50, 1)
	c.check(t)
	s.vsrun(t, "destroy --all")
	s.mustHave(t, "all gone")
}

// The last one leaves while the first one comes, over and over.
func vlanComeAndGo(t *testing.T, s *vlanSite) {
	const rounds = 15 // of each
	var all sync.WaitGroup
	for _, id := range []string{"8", "9"} {
		all.Go(func() {
			for k := range rounds {
				for _, line := range []string{"create " + id + " --no-probe --port eth0 --vlan 10 --address 192.0.2." + id + "/24", "destroy " + id} {
					if r := s.Vsrun(strings.Fields(line)...); r.Code != 0 {
						t.Errorf("round %d: %v", k, r)
						return
					}
					there := s.In("vs"+id).Do(func() error { _, err := net.InterfaceByName("eth0"); return err }) == nil
					if there != strings.HasPrefix(line, "create") {
						t.Errorf("round %d, after %s: its interface is there: %v", k, line, there)
					}
				}
			}
		})
	}
	all.Wait()
	s.mustHave(t, "both gone")
	t.Logf("%d rounds of each", rounds)
}

// Killed at any moment, the same again completes, another one finds nothing in its way,
// and in the end nothing is left.
func vlanKilled(t *testing.T, s *vlanSite) {
	const where = " --no-probe --port eth0 --vlan 100.10 --address 192.0.2."
	create := "create 8" + where + "8/24"
	whole := map[string]time.Duration{}
	for _, line := range []string{create, "destroy 8"} {
		whole[line] = crash(t, time.Minute, "", strings.Fields(line)...)
	}
	const kills = 6
	var delays []time.Duration
	for k := range kills {
		made := whole[create] * time.Duration(k+1) / kills
		made -= time.Duration(rand.Int64N(int64(whole[create]) / kills))
		delays = append(delays, made)
		crash(t, made, "", strings.Fields(create)...)
		// Whatever it left is of use to the next one: the same or another.
		id := []string{"8", "9"}[k%2]
		s.vsrun(t, "create "+id+where+id+"/24")
		if err := reach(s.on["100.10"], "192.0.2."+id); err != nil {
			t.Errorf("killed after %v: %v", made, err)
		}
		if r := s.Vsrun("diff", id); r.Code != 0 {
			t.Errorf("killed after %v: %v", made, r)
		}
		s.vsrun(t, create)
		gone := whole["destroy 8"] * time.Duration(k+1) / kills
		delays = append(delays, gone)
		crash(t, gone, "", "destroy", "8")
		s.vsrun(t, "destroy 8")
		s.vsrun(t, "destroy 9")
		s.mustHave(t, fmt.Sprintf("killed after %v and %v, and destroyed", made, gone))
	}
	slices.Sort(delays)
	t.Logf("create takes %v, destroy %v; killed %d times, after %v to %v", whole[create].Round(time.Millisecond),
		whole["destroy 8"].Round(time.Millisecond), len(delays), delays[0].Round(time.Millisecond), delays[len(delays)-1].Round(time.Millisecond))
}
