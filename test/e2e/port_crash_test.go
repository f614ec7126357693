package e2e_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const crashPort = "{name: bond0, mode: active-backup, members: [eth1, eth2]}"

// Killed at any moment, a command completes when it is run again, and the members get
// back what they had before the first.
func portCrash(t *testing.T, s *site) {
	giveOwn(t, s.Host)
	before := dump(t, s.Host)
	document := "ports: [" + crashPort + "]"
	changed := "ports: [{name: bond0, mode: balance-rr, members: [eth2, eth3], mtu: 1300}]"
	apply := strings.Fields("apply -f -")
	made := func() { s.must(t, s.VsrunIn(document, apply...)) }
	for _, c := range []struct {
		doc    string
		args   []string
		runs   int
		before func()
	}{
		{"", strings.Fields("port create bond0 --members eth1,eth2 --mode active-backup"), 6, func() {}},
		{"", strings.Fields("port destroy bond0"), 6, made},
		{changed, apply, 6, made},
	} {
		c.before()
		whole := crash(t, time.Minute, c.doc, c.args...)
		s.MustVsrun(t, "port", "destroy", "bond0")
		for k := range c.runs {
			c.before()
			crash(t, whole*time.Duration(k+1)/time.Duration(c.runs), c.doc, c.args...)
			if k%2 == 0 { // else whatever it left is given back at once
				s.must(t, s.VsrunIn(c.doc, c.args...))
				if r := s.Vsrun("diff"); r.Code != 0 {
					t.Errorf("%q, killed, and again: %v", c.args, r)
				}
			}
			s.MustVsrun(t, "port", "destroy", "bond0")
			mustBe(t, s.Host, before, "%q, killed and destroyed", c.args)
		}
		t.Logf("%q: takes %v, killed %d times on the way", c.args, whole.Round(time.Millisecond), c.runs)
	}
}

// Twice is the same as once, and so is at once.
func portAgain(t *testing.T, s *site) {
	create := strings.Fields("port create bond0 --members eth1,eth2 --mode active-backup")
	s.MustVsrun(t, create...)
	once, stored := dump(t, s.Host), storedFiles(t, s.Host)
	s.MustVsrun(t, create...)
	if d := cmp.Diff(once, dump(t, s.Host)); d != "" {
		t.Errorf("twice (-once +twice):\n%s", d)
	}
	if d := cmp.Diff(stored, storedFiles(t, s.Host)); d != "" {
		t.Errorf("twice, it is stored otherwise:\n%s", d)
	}
	for range 2 {
		s.MustVsrun(t, "port", "destroy", "bond0")
	}
	const n = 6
	for _, r := range atOnce(s.Host, n, func(int) []string { return create }) {
		if r.Code != 0 {
			t.Error(r)
		}
	}
	if got := s.port(t, "bond0"); got.State != "up" || len(got.Drift) > 0 {
		t.Errorf("%+v", got)
	}
	for _, r := range atOnce(s.Host, n, func(int) []string { return []string{"port", "destroy", "bond0"} }) {
		if r.Code != 0 {
			t.Error(r)
		}
	}
	// Rivals: each wants another one under the name, or with the member.
	won := 0
	for _, r := range atOnce(s.Host, n, func(k int) []string {
		name := []string{"bond0", "bond1"}[k%2]
		return []string{"port", "create", name, "--members", "eth1", "--mode", bondModes[k]}
	}) {
		switch {
		case r.Code == 0:
			won++
		case !strings.Contains(r.Stderr, "exists, and is different") && !strings.Contains(r.Stderr, "eth1 is a member of port bond"):
			t.Error(r)
		}
	}
	if won != 1 {
		t.Errorf("%d of %d rivals won", won, n)
	}
	if r := s.Vsrun("diff"); r.Code != 0 {
		t.Error(r)
	}
}

// What --dry-run prints, a shell does as well.
func portDryRun(t *testing.T, s *site) {
	giveOwn(t, s.Host)
	before := dump(t, s.Host)
	for _, tt := range []struct{ what, from, to string }{
		{"a bond", "", "{name: bond0, mode: active-backup, members: [eth1, eth2], primary: eth2, mtu: 1300, mac: \"02:00:5e:10:00:99\"}"},
		{"every option", "", "{name: bond0, mode: 802.3ad, members: [eth1, eth3], miimon: 50, upDelay: 100, downDelay: 50, lacpRate: fast, hashPolicy: encap3+4, minLinks: 2}"},
		{"watched by ARP", "", "{name: bond0, mode: active-backup, members: [eth1], arpInterval: 200, arpTargets: [192.0.2.1, 192.0.2.100], arpValidate: all, failOverMac: follow}"},
		{"an odd name", "", "{name: \"b$(0)\", mode: broadcast, members: [eth1]}"},
		{"a change", crashPort, "{name: bond0, mode: balance-alb, members: [eth2, eth3], primary: eth3}"},
	} {
		name := "bond0"
		if strings.Contains(tt.to, "b$(0)") {
			name = "b$(0)"
		}
		to := portDocument(t, tt.to)
		// By vsrun, then by a shell that is given the same start.
		var dumps, scripts []string
		away := ""
		for round := range 2 {
			if tt.from != "" {
				s.MustVsrun(t, "apply", "-f", portDocument(t, tt.from))
			}
			scripts = append(scripts, s.MustVsrun(t, "apply", "-f", to, "--dry-run"))
			if round == 0 {
				s.MustVsrun(t, "apply", "-f", to)
				away = s.MustVsrun(t, "port", "destroy", name, "--dry-run")
			} else {
				paste(t, s.Host, scripts[1])
				if r := s.Vsrun("diff", "-f", to); r.Code != 0 {
					t.Errorf("%s: %v", tt.what, r)
				}
			}
			dumps = append(dumps, dump(t, s.Host)+links(t, s, name))
			if round == 1 {
				paste(t, s.Host, away)
				mustBe(t, s.Host, before, "%s, taken away by a shell with\n%s", tt.what, away)
			}
			s.MustVsrun(t, "port", "destroy", name)
			mustBe(t, s.Host, before, "%s, destroyed", tt.what)
		}
		if d := cmp.Diff(scripts[0], scripts[1]); d != "" {
			t.Errorf("%s: another script (-first +second):\n%s", tt.what, d)
		}
		if d := cmp.Diff(dumps[0], dumps[1]); d != "" {
			t.Errorf("%s: vsrun (-) and the script (+) differ:\n%s\n%s", tt.what, d, scripts[1])
		}
	}
}

// links is what a bond's options are and who is in it.
func links(t *testing.T, s *site, name string) string {
	t.Helper()
	list := decoded[[]map[string]any](t, s.Run(t, "ip", "-d", "-j", "link", "show", "dev", name))
	for _, key := range []string{"ifindex", "operstate", "flags", "address"} {
		if !strings.HasPrefix(list[0]["address"].(string), "02:00:5e") || key != "address" {
			delete(list[0], key)
		}
	}
	data := list[0]["linkinfo"].(map[string]any)["info_data"].(map[string]any)
	delete(data, "active_slave")
	delete(data, "ad_info")
	b, err := json.MarshalIndent(list[0], "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n" + s.Run(t, "sh", "-c", "ip -o -br link show master '"+name+"' | cut -d' ' -f1 | sort")
}
