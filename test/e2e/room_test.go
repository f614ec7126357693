package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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
