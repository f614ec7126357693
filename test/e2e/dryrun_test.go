package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/test/lab"
)

// oddPort is a name that the kernel allows.
const oddPort = "odd&name;#(1)"

// dryRunDocuments are virtual servers that differ in all that the plan of one
// can differ in. They are
// on the ports eth1, eth2 and oddPort.
var dryRunDocuments = []struct{ name, doc string }{
	{"loopback alone", ``},
	{"no address", `
interfaces:
- {name: eth0, port: eth1}`},
	{"one IPv4 address", `
interfaces:
- {name: eth0, port: eth1, addresses: [192.0.2.8/24]}`},
	{"IPv4 without broadcast", `
interfaces:
- {name: eth0, port: eth1, addresses: [192.0.2.8/31, 198.51.100.8/32]}`},
	{"one IPv6 address", `
interfaces:
- {name: eth0, port: eth1, addresses: ["2001:db8::8/64"]}`},
	{"both families with gateways", `
interfaces:
- {name: eth0, port: eth1, addresses: [192.0.2.8/24, "2001:db8::8/64"], gateways: [192.0.2.1, "2001:db8::1"]}`},
	{"several addresses of one network", `
interfaces:
- {name: eth0, port: eth1, addresses: [192.0.2.8/24, 192.0.2.18/24, 192.0.2.28/28, "2001:db8::8/64", "2001:db8::18/128"]}`},
	{"several interfaces, each with gateways", `
interfaces:
- {name: eth0, port: eth1, addresses: [192.0.2.8/24, "2001:db8::8/64"], gateways: [192.0.2.1, "2001:db8::1"]}
- {name: eth1, port: eth1, addresses: [198.51.100.8/24, "2001:db8:1::8/64"], gateways: [198.51.100.1, "fe80::1"]}
- {name: eth2, port: eth2, addresses: [203.0.113.8/24], gateways: [203.0.113.1]}`},
	{"routes with metric, table and realm", `
interfaces:
- {name: eth0, port: eth1, addresses: [192.0.2.8/24, "2001:db8::8/64"]}
routes:
- {to: 198.51.100.0/24, via: 192.0.2.7, metric: 50}
- {to: 198.51.100.0/24, via: 192.0.2.6, metric: 60}
- {to: 203.0.113.0/24, via: 192.0.2.7, table: 100, realm: 5}
- {to: 203.0.113.9/32, dev: eth0}
- {to: 0.0.0.0/0, via: 192.0.2.1, table: 4294967295}
- {to: "2001:db8:2::/64", via: "2001:db8::7", metric: 50}
- {to: "2001:db8:3::/64", via: "fe80::7", dev: eth0, table: 100}
- {to: "::/0", via: "2001:db8::1", table: 1000}
- {to: "2001:db8:4::/64", via: "2001:db8::7", metric: 1024}`},
	{"tables, realms and metrics of interfaces", `
interfaces:
- {name: eth0, port: eth1, addresses: [192.0.2.8/24, "2001:db8::8/64"], gateways: [192.0.2.1, "2001:db8::1"], metric: 50, realm: 8, ra: true, mode: private}
- {name: "it's", port: eth2, ra: true, addresses: [198.51.100.8/24, "2001:db8:1::8/64"], gateways: [198.51.100.1], table: 101}
routes:
- {to: 203.0.113.0/24, via: 198.51.100.7, src: 198.51.100.8}
- {to: "2001:db8:2::/64", via: "2001:db8::7", src: "2001:db8::8"}`},
	{"mtu and mac", `
interfaces:
- {name: eth0, port: eth1, mtu: 1280, mac: 02:00:5e:10:00:08, addresses: ["2001:db8::8/64"]}
- {name: eth1, port: eth1, mtu: 68, mac: 02-00-5E-10-00-09}`},
	{"odd names", `
name: a-9
interfaces:
- {name: "$HOME", port: "odd&name;#(1)", addresses: [192.0.2.8/24]}
- {name: "it's", port: eth1, addresses: [198.51.100.8/24]}
- {name: '"x";true', port: eth1}
- {name: "a\\b*?~1", port: eth1}
- {name: "größe→", port: eth1, addresses: ["2001:db8::8/64"]}
- {name: "123456789012345", port: eth2}
- {name: "eth1@x", port: eth2}
- {name: "a=b+c,d", port: eth2, addresses: [203.0.113.8/24]}`},
}

// TestDryRun pastes what --dry-run prints into a shell: it makes the virtual
// server that vsrun itself makes, and vsrun knows it for its own.
func TestDryRun(t *testing.T) {
	h := newHost(t)
	h.Segment("eth1", "eth2")
	h.Run(t, "ip", "link", "add", "name", oddPort, "up", "type", "bridge")
	t.Cleanup(func() { h.Run(t, "ip", "link", "del", "dev", oddPort) })
	for _, dir := range []string{h.NetnsDir, filepath.Join(t.TempDir(), "name spaces")} {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Setenv("VSRUN_NETNS_DIR", dir)
			var documents, disabled []string
			for k, c := range dryRunDocuments {
				documents = append(documents, writeDocument(t, numbered(k+1, c.doc)))
				disabled = append(disabled, writeDocument(t, numbered(k+1, "disabled: true")))
			}
			scripts := dryRuns(t, h, "create", documents)
			for _, document := range documents {
				h.MustVsrun(t, "create", "-f", document, "--no-probe")
			}
			want := netStates(t, dir)
			h.MustVsrun(t, "destroy", "--all")
			for _, script := range scripts {
				paste(t, h, script)
			}
			got := netStates(t, dir)
			for k, c := range dryRunDocuments {
				if diff := cmp.Diff(want[k], got[k]); diff != "" {
					t.Errorf("%s: vsrun (-) and the script (+) differ:\n%s\n%s", c.name, diff, scripts[k])
				}
				mustNotDiffer(t, h, documents[k])
				h.MustVsrun(t, "create", "-f", documents[k], "--no-probe")
			}
			if diff := cmp.Diff(got, netStates(t, dir)); diff != "" {
				t.Errorf("vsrun has changed what the scripts made:\n%s", diff)
			}
			for _, script := range dryRuns(t, h, "apply", disabled) {
				paste(t, h, script)
			}
			if left, _ := filepath.Glob(dir + "/vs*"); len(left) > 0 {
				t.Errorf("the scripts of what is disabled have left %v", left)
			}
			h.MustVsrun(t, "destroy", "--all")
			if dir != h.NetnsDir {
				h.Run(t, "umount", dir) // a directory like that lasts until the next start
			}
		})
	}
}

// TestDryRunOfChanges pastes the dry runs of what changes a virtual server that
// is there.
func TestDryRunOfChanges(t *testing.T) {
	h := newHost(t)
	h.Segment("eth1", "eth2")
	const doc = `
interfaces:
- {name: eth0, port: eth1, addresses: [192.0.2.8/24, "2001:db8::8/64"], gateways: [192.0.2.1]}
- {name: lan, port: eth2, addresses: [198.51.100.8/24, 198.51.100.18/24]}
routes:
- {to: 203.0.113.0/24, via: 198.51.100.1}
`
	cases := []struct{ name, old, new string }{
		{"nothing", "", ""},
		{"an address more", "192.0.2.8/24,", "192.0.2.8/24, 192.0.2.9/24,"},
		{"another address", "192.0.2.8/24", "192.0.2.9/24"},
		{"an address less", "198.51.100.8/24, ", ""},
		{"another prefix length", "192.0.2.8/24", "192.0.2.8/25"},
		{"another gateway", "192.0.2.1]", `192.0.2.2, "2001:db8::1"]`},
		{"another route", "via: 198.51.100.1", "via: 198.51.100.2, metric: 7"},
		{"another port", "lan, port: eth2", "lan, port: eth1"},
		{"another mac and mtu", "lan, port: eth2", "lan, mac: 02:00:5e:10:00:08, mtu: 1400, port: eth2"},
		{"another name inside", "name: lan", "name: wan"},
	}
	var before, after []string
	for k, c := range cases {
		before = append(before, writeDocument(t, numbered(k+1, doc)))
		after = append(after, writeDocument(t, numbered(k+1, strings.Replace(doc, c.old, c.new, 1))))
		h.MustVsrun(t, "create", "-f", before[k], "--no-probe")
	}
	scripts := dryRuns(t, h, "apply", after)
	for _, document := range after {
		h.MustVsrun(t, "apply", "-f", document, "--no-probe")
	}
	want := netStates(t, h.NetnsDir)
	h.MustVsrun(t, "destroy", "--all")
	for k := range cases {
		h.MustVsrun(t, "create", "-f", before[k], "--no-probe")
		paste(t, h, scripts[k])
	}
	got := netStates(t, h.NetnsDir)
	for k, c := range cases {
		if diff := cmp.Diff(want[k], got[k]); diff != "" {
			t.Errorf("%s: vsrun (-) and the script (+) differ:\n%s\n%s", c.name, diff, scripts[k])
		}
		mustNotDiffer(t, h, after[k])
	}
	h.MustVsrun(t, "destroy", "--all")
}

// numbered is a document as vs k's, with addresses that no other number has.
func numbered(k int, doc string) string {
	n := strconv.Itoa(k)
	return "id: " + n + "\n" + strings.NewReplacer(
		"192.0.2.", "192.0."+n+".",
		"198.51.100.", "198.51."+n+".",
		"203.0.113.", "203.0."+n+".",
		"2001:db8:", "2001:db8:"+n+":",
	).Replace(doc)
}

// netStates is the state of vs1, vs2 and so on.
func netStates(t *testing.T, dir string) []string {
	t.Helper()
	var states []string
	for {
		path := fmt.Sprintf("%s/vs%d", dir, len(states)+1)
		if _, err := os.Stat(path); err != nil {
			return states
		}
		states = append(states, lab.NetState(t, path))
	}
}

// mustNotDiffer asks vsrun whether all is as a document says.
func mustNotDiffer(t *testing.T, h *lab.Host, document string) {
	t.Helper()
	if r := h.Vsrun("diff", "-f", document); r.Code != 0 || r.Stdout != "" {
		t.Error(r)
	}
}

func TestDryRunOfAttach(t *testing.T) {
	h := newHost(t)
	h.Segment("eth1", "eth2")
	h.MustVsrun(t, "create", "8", "--port", "eth1", "--address", "192.0.2.8/24", "--no-probe")
	attach := []string{"attach", "8", "--port", "eth2", "--ifname", "lan", "--mtu", "1400", "--address", "198.51.100.8/24",
		"--address", "2001:db8::8/64", "--gateway", "2001:db8::1", "--route", "203.0.113.0/24 via 198.51.100.1 table 7"}
	before := h.Snapshot()
	script := h.MustVsrun(t, append(attach, "--dry-run")...)
	if changes := before.Diff(h.Snapshot()); changes != "" {
		t.Errorf("the dry run has changed the host:\n%s", changes)
	}
	paste(t, h, script)
	got := lab.NetState(t, "vs8")
	// It is ours, but not yet wanted.
	if r := h.Vsrun("diff", "8"); r.Code != 1 || !strings.Contains(r.Stdout, "vs8: delete interface lan\n") {
		t.Errorf("after %s\n%v", script, r)
	}
	h.MustVsrun(t, "enable", "8")
	h.MustVsrun(t, append(attach, "--no-probe")...)
	if diff := cmp.Diff(lab.NetState(t, "vs8"), got); diff != "" {
		t.Errorf("vsrun (-) and the script (+) differ:\n%s\n%s", diff, script)
	}
	h.MustVsrun(t, "destroy", "8")
}

// dryRuns runs vsrun with --dry-run for each document, and returns what it
// printed. Nothing may have changed.
func dryRuns(t *testing.T, h *lab.Host, verb string, documents []string) []string {
	t.Helper()
	before, stored := h.Snapshot(), storedFiles(t, h)
	var scripts []string
	for _, document := range documents {
		scripts = append(scripts, h.MustVsrun(t, verb, "-f", document, "--dry-run"))
	}
	if changes := before.Diff(h.Snapshot()); changes != "" {
		t.Errorf("a dry run has changed the host:\n%s", changes)
	}
	if diff := cmp.Diff(stored, storedFiles(t, h)); diff != "" {
		t.Errorf("a dry run has changed the state directory:\n%s", diff)
	}
	return scripts
}

// paste runs a script as somebody does who pastes it into a root shell.
func paste(t *testing.T, h *lab.Host, script string) {
	t.Helper()
	if r := h.TryRun("sh", "-ec", script); r.Code != 0 {
		t.Fatalf("%v", r)
	}
}

func writeDocument(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), fmt.Sprintf("%d.yaml", len(text)))
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
