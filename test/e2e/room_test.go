package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/test/fault"
	"github.com/vsrun/vsrun/test/lab"
)

const roomBefore = `
{id: 8, name: left, interfaces: [{name: eth0, port: eth1, realm: 8, addresses: [192.0.2.8/24, 198.51.100.8/24, "2001:db8::8/64"], gateways: [192.0.2.1]}],
  routes: [{to: 203.0.113.0/24, via: 192.0.2.7}]}
---
{id: 9, name: right, interfaces: [{name: eth0, port: eth1, realm: 9, mac: "02:00:00:00:00:09", addresses: [192.0.2.9/24]}]}
`

// What virtual servers take from each other in one apply, in either order: each asks whether
// it is free, and it is by then.
func TestHandOver(t *testing.T) {
	s := newSite(t)
	for name, after := range map[string]string{
		"addresses swapped": `
{id: 8, name: left, interfaces: [{name: eth0, port: eth1, addresses: [192.0.2.9/24, 198.51.100.8/24, "2001:db8::8/64"], gateways: [192.0.2.1]}],
  routes: [{to: 203.0.113.0/24, via: 192.0.2.7}]}
---
{id: 9, name: right, interfaces: [{name: eth0, port: eth1, mac: "02:00:00:00:00:09", addresses: [192.0.2.8/24]}]}`,
		"all that there is swapped": `
{id: 8, name: right, interfaces: [{name: eth0, port: eth1, mac: "02:00:00:00:00:09", addresses: [192.0.2.9/24]}]}
---
{id: 9, name: left, interfaces: [{name: eth0, port: eth1, addresses: [192.0.2.8/24, 198.51.100.8/24, "2001:db8::8/64"], gateways: [192.0.2.1]}]}`,
		"realms swapped": `
{id: 8, name: left, interfaces: [{name: eth0, port: eth1, realm: 9, addresses: [192.0.2.8/24, 198.51.100.8/24, "2001:db8::8/64"], gateways: [192.0.2.1]}],
  routes: [{to: 203.0.113.0/24, via: 192.0.2.7}]}
---
{id: 9, name: right, interfaces: [{name: eth0, port: eth1, realm: 8, mac: "02:00:00:00:00:09", addresses: [192.0.2.9/24]}]}`,
		"handed on to a new one, which is the first": `
{id: 7, interfaces: [{name: eth0, port: eth1, addresses: ["2001:db8::8/64", 192.0.2.9/24]}]}
---
{id: 8, name: left, interfaces: [{name: eth0, port: eth1, addresses: [192.0.2.8/24]}]}
---
{id: 9, name: right, interfaces: [{name: eth0, port: eth1, addresses: [192.0.2.10/24]}]}`,
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			t.Cleanup(func() { s.MustVsrun(t, "destroy", "--all") })
			begin := func() {
				s.MustVsrun(t, "destroy", "--all")
				s.must(t, s.VsrunIn(roomBefore, "apply", "--no-probe", "-f", "-"))
			}
			begin()
			script := s.VsrunIn(after, "apply", "--dry-run", "-f", "-")
			s.must(t, script)
			before := dump(t, s.Host)
			s.must(t, s.VsrunIn(after, "apply", "-f", "-"))
			if r := s.Vsrun("diff"); r.Code != 0 {
				t.Errorf("it differs: %v", r)
			}
			applied := dump(t, s.Host)
			begin()
			if d := cmp.Diff(before, dump(t, s.Host)); d != "" {
				t.Fatalf("the beginning is another:\n%s", d)
			}
			paste(t, s.Host, script.Stdout)
			if d := cmp.Diff(applied, dump(t, s.Host)); d != "" {
				t.Errorf("pasted (-applied +pasted):\n%s\nby\n%s", d, script.Stdout)
			}
			s.must(t, s.VsrunIn(after, "apply", "-f", "-")) // which knows of them then
		})
	}
}

// When one cannot become what it is to be, all that was given up comes back.
func TestHandOverRefused(t *testing.T) {
	s := newSite(t)
	t.Cleanup(func() { s.MustVsrun(t, "destroy", "--all") })
	s.must(t, s.VsrunIn(roomBefore, "apply", "--no-probe", "-f", "-"))
	before, stored := dump(t, s.Host), storedFiles(t, s.Host)
	r := s.VsrunIn(`
{id: 8, name: left, interfaces: [{name: eth0, port: eth7, addresses: [192.0.2.9/24]}]}
---
{id: 9, name: right, interfaces: [{name: eth0, port: eth7, addresses: [192.0.2.8/24]}]}`, "apply", "-f", "-")
	if r.Code != 1 || !strings.Contains(r.Stderr, "no port eth7 on this host") {
		t.Error(r)
	}
	r = s.VsrunIn(`
{id: 8, name: left, interfaces: [{name: eth0, port: eth1, mtu: 9000, addresses: [192.0.2.9/24]}]}
---
{id: 9, name: right, interfaces: [{name: eth0, port: eth1, addresses: [192.0.2.8/24]}]}`, "apply", "-f", "-")
	if r.Code != 1 || !strings.Contains(r.Stderr, "cannot apply vs9 (right): vs8 (left) already has address 192.0.2.8 on port eth1") {
		t.Error(r)
	}
	if d := cmp.Diff(before, dump(t, s.Host)); d != "" {
		t.Errorf("refused (-before +after):\n%s", d)
	}
	if d := cmp.Diff(stored, storedFiles(t, s.Host)); d != "" {
		t.Errorf("it is stored otherwise:\n%s", d)
	}
}

// What another one has taken while a change was under way that fails is not taken back.
func TestGoBackAmongOthers(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24")
	change := writeDocument(t, `
id: 8
interfaces: [{name: eth0, port: eth1, addresses: [192.0.2.9/24]}]
services: [{name: never, command: [sleep, "1000"], ready: {command: ["false"], timeout: 3s}}]
`)
	p := s.Start(t, filepath.Join(lab.Programs(t), "vsrun"), "apply", "--no-probe", "-f", change)
	awaitLong(t, func() error {
		record, err := os.ReadFile(filepath.Join(s.StateDir, "vs8.json"))
		if err == nil && !strings.Contains(string(record), "192.0.2.9/24") {
			err = fmt.Errorf("the change is not stored:\n%s", record)
		}
		return err
	})
	s.MustVsrun(t, "create", "10", "--disabled", "--port", "eth1", "--address", "192.0.2.8/24")
	<-p.Done()
	if r := p.Stop(); r.Code != 1 || !strings.Contains(r.Stdout, "cannot go back to what was: vs10 already has address 192.0.2.8") {
		t.Error(r)
	}
	s.MustVsrun(t, "enable", "10")
	if shown := s.MustVsrun(t, "show", "8"); strings.Contains(shown, "192.0.2.8/24") {
		t.Errorf("two have the address:\n%s", shown)
	}
}

const roomAfter = `
{id: 8, name: right, interfaces: [{name: eth0, port: eth1, addresses: [192.0.2.9/24]}]}
---
{id: 9, name: left, interfaces: [{name: eth0, port: eth1, mac: "02:00:00:00:00:09", addresses: [192.0.2.8/24]}]}
---
{id: 7, interfaces: [{name: eth0, port: eth1, addresses: [192.0.2.7/24]}]}
`

// Wherever an apply is killed that hands something over, each is what it was to be before, or
// is to be now, or vsrun diff tells what it lacks. A boot gives back what is free, and has
// each on the network with what it has.
func TestHandOverKilled(t *testing.T) {
	s := newSite(t)
	argv := []string{filepath.Join(lab.Programs(t), "vsrun"), "apply", "--no-probe", "-f", "-"}
	apply := func(trial *fault.Trial) lab.Result {
		p, err := trial.Start(roomAfter, argv...)
		if err != nil {
			t.Fatal(err)
		}
		r := p.Wait()
		return lab.Result{Stdout: r.Output, Code: r.Code}
	}
	begin := func(f fault.Fault) *fault.Trial {
		s.MustVsrun(t, "destroy", "--all")
		s.must(t, s.VsrunIn(roomBefore, "apply", "--no-probe", "-f", "-"))
		trial := new(fault.Trial)
		trial.Begin(f)
		return trial
	}
	trial := begin(fault.Fault{})
	s.must(t, apply(trial))
	calls, _ := trial.End()
	calls = slices.DeleteFunc(calls, func(c fault.Call) bool {
		return c.Message || !regexp.MustCompile(`renameat .*/vs\d\.json$|sendto`).MatchString(c.Words)
	})
	const tries = 12
	told := 0
	for k := range tries {
		call := calls[k*len(calls)/tries]
		trial := begin(fault.Fault{Call: call})
		apply(trial)
		if _, struck := trial.End(); !struck {
			t.Logf("killed nowhere: %v", call)
			continue
		}
		drift := s.Vsrun("diff").Stdout
		s.Run(t, "sh", "-ec", "for ns in $(ip netns list | cut -d' ' -f1); do ip netns del $ns; done") // the power is cut
		r := s.Vsrun("boot")
		if r.Code != 0 {
			t.Errorf("killed at %v: %v", call, r)
		}
		for id, whole := range map[string][]string{
			"8": {"192.0.2.8/24,198.51.100.8/24,2001:db8::8/64", "192.0.2.9/24"},
			"9": {"192.0.2.9/24", "192.0.2.8/24"},
		} {
			shown := s.show(t, id)
			has := strings.Join(shown.Interfaces[0].Addresses, ",")
			if len(shown.Drift) == 1 && strings.Contains(shown.Drift[0], "an apply that took something from it did not end: ") {
				told++ // and has what is left
				s.MustVsrun(t, "attach", id, "--no-probe", "--port", "eth1", "--address", "198.51.100.10"+id+"/24")
			} else if len(shown.Drift) > 0 || !slices.Contains(whole, has) {
				t.Errorf("killed at %v, vs%s has %s, and differs in %q\n%s%v", call, id, has, shown.Drift, drift, r)
			}
		}
		s.must(t, s.VsrunIn(roomAfter, "apply", "--no-probe", "-f", "-"))
		if r := s.Vsrun("diff"); r.Code != 0 {
			t.Errorf("killed at %v, and applied again: %v", call, r)
		}
	}
	t.Logf("what another one had was told %d times", told)
}

// The dry run lists in the order in which it is done: first those that need nobody else.
func TestHandOverOrder(t *testing.T) {
	s := newSite(t)
	s.must(t, s.VsrunIn(roomBefore, "apply", "--no-probe", "-f", "-"))
	script := s.VsrunIn(roomAfter, "apply", "--dry-run", "-f", "-")
	s.must(t, script)
	s.must(t, s.VsrunIn(roomAfter, "apply", "--no-probe", "-f", "-"))
	var stored, listed []string
	for _, file := range []string{"vs7", "vs8", "vs9"} {
		listed = append(listed, fmt.Sprintf("%06d %s", strings.LastIndex(script.Stdout, file), file))
		fi, err := os.Stat(filepath.Join(s.StateDir, file+".json"))
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, fmt.Sprintf("%d %s", fi.ModTime().UnixNano(), file))
	}
	names := func(list []string) (names string) {
		for _, one := range slices.Sorted(slices.Values(list)) {
			names += one[strings.IndexByte(one, ' '):]
		}
		return names
	}
	if names(listed) != names(stored) {
		t.Errorf("listed:%s, done:%s\n%s", names(listed), names(stored), script.Stdout)
	}
}
