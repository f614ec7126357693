package runtime

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vsrun/vsrun/plumbing"
)

const everyPort = `ports:
  - name: bond0
    mode: active-backup
    members: [eth1, eth2]
    miimon: 50
    upDelay: 100
    downDelay: 150
    primary: eth1
    primaryReselect: better
    failOverMac: none
    mtu: 9000
    mac: 02:00:5e:10:00:99
  - name: bond1
    mode: 802.3ad
    members: [eth3, eth4]
    hashPolicy: layer3+4
    lacpRate: fast
    minLinks: 2
  - {name: bond2, mode: balance-rr, members: [eth5], arpInterval: 200, arpTargets: [192.0.2.1, 192.0.2.2], arpValidate: all}
`

func portsOf(t testing.TB, text string) []plumbing.Bond {
	t.Helper()
	docs, err := ReadDocuments(strings.NewReader(text), "f")
	if err != nil {
		t.Fatal(err)
	}
	return docs.Ports
}

// recordOf is what is kept of a port whose members had much.
func recordOf(b plumbing.Bond) portRecord {
	return portRecord{Bond: b, Before: map[string]plumbing.Before{
		"eth1": {Up: true, Addresses: []plumbing.OwnAddress{
			{Prefix: netip.MustParsePrefix("192.0.2.1/24"), Broadcast: netip.MustParseAddr("192.0.2.255"), Label: "eth1:a"},
			{Prefix: netip.MustParsePrefix("203.0.113.1/32"), Peer: netip.MustParsePrefix("203.0.113.2/30"), Scope: 253, NoPrefixRoute: true},
			{Prefix: netip.MustParsePrefix("2001:db8::1/64"), NoDAD: true},
		}},
		"eth2": {},
	}}
}

var comparePorts = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}

// What is stored is read again, all of it.
func TestPortRecord(t *testing.T) {
	s := OpenStore(t.TempDir())
	ports := portsOf(t, everyPort)
	for _, b := range ports {
		want := recordOf(b)
		if err := s.savePort(want); err != nil {
			t.Fatal(err)
		}
		got, err := s.loadPort(b.Name)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, comparePorts); d != "" {
			t.Errorf("saved and loaded (-want +got):\n%s", d)
		}
		if !sameBond(want.Bond, got.Bond) {
			t.Errorf("%s is another one, loaded", b.Name)
		}
	}
	names, err := s.Ports()
	if err != nil || !slices.Equal(names, []string{"bond0", "bond1", "bond2"}) {
		t.Errorf("%v, %v", names, err)
	}
	if list, err := s.List(); len(list) != 0 || err != nil {
		t.Errorf("ports are listed as virtual servers: %v, %v", list, err)
	}
	docs, err := s.All()
	if d := cmp.Diff(ports, docs.Ports, comparePorts); err != nil || d != "" {
		t.Errorf("%v, all (-want +got):\n%s", err, d)
	}
	if _, err := s.loadPort("bond3"); !errors.Is(err, ErrNoPort) || err.Error() != "no such port: bond3" {
		t.Errorf("got %v", err)
	}
}

// A record that is no whole one is refused, by name, and left as it is.
func TestHostilePortRecords(t *testing.T) {
	s := OpenStore(t.TempDir())
	const good = `{"name":"bond0","mode":"balance-rr","members":["eth1"]}`
	for _, tt := range []struct{ text, want string }{
		{"", "EOF"},
		{"{", "unexpected EOF"},
		{"null", "a port has no name"},
		{"[]", "cannot unmarshal array"},
		{good + good, "something follows the record"},
		{good + "}", "something follows the record"},
		{strings.Replace(good, "bond0", "bond1", 1), "it is the record of bond1"},
		{strings.Replace(good, "balance-rr", "8", 1), `mode "8" is unknown`},
		{strings.Replace(good, "eth1", "../eth1", 1), "cannot be a device's name"},
		{strings.Replace(good, `"members"`, `"colour":"red","members"`, 1), `unknown field "colour"`},
		{strings.Replace(good, `"eth1"`, `"eth1","eth1"`, 1), "eth1 is there twice"},
		{good[:len(good)-1] + `,"before":{"eth1":{"addresses":[{"prefix":"192.0.2.1"}]}}}`, "no '/'"},
		{good[:len(good)-1] + `,"before":{"eth1":{"addresses":[{}]}}}`, "eth1 has had an impossible address"},
		{good[:len(good)-1] + `,"before":{"eth1":{"addresses":[{"prefix":"192.0.2.1/24","broadcast":"2001:db8::1"}]}}}`, "eth1 has had an impossible address"},
		{good[:len(good)-1] + `,"before":{"../x":{}}}`, "cannot be a device's name"},
		{good[:len(good)-1] + `,"mac":"01:00:5e:00:00:01"}`, "multicast"},
	} {
		if err := os.WriteFile(s.portPath("bond0"), []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s.loadPort("bond0")
		var refused *plumbing.Refusal
		if !errors.As(err, &refused) || !strings.HasPrefix(err.Error(), "cannot use the record "+s.portPath("bond0")+": ") ||
			!strings.Contains(err.Error(), tt.want) || !strings.Contains(refused.Hint(), "left as it is") {
			t.Errorf("%s\ngives %v, not %q", tt.text, err, tt.want)
		}
		if left, _ := os.ReadFile(s.portPath("bond0")); string(left) != tt.text {
			t.Errorf("it was %q, and is %q", tt.text, left)
		}
		if _, err := s.All(); err == nil {
			t.Errorf("%s: all are listed", tt.text)
		}
	}
	// However much of it a crash has left.
	whole, _ := json.MarshalIndent(recordOf(portsOf(t, everyPort)[0]), "", "  ")
	for n := range len(whole) - 1 {
		os.WriteFile(s.portPath("bond0"), whole[:n], 0o600)
		if p, err := s.loadPort("bond0"); err == nil {
			t.Fatalf("%d of %d bytes are %+v", n, len(whole), p)
		}
	}
}

// Names from outside never lead out of the store.
func TestPortNamesArePlaces(t *testing.T) {
	dir := t.TempDir()
	s := OpenStore(filepath.Join(dir, "state"))
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(dir, "x.json")
	if err := os.WriteFile(outside, []byte(`{"name":"x","mode":"balance-rr","members":["eth1"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".", "..", "/../../x", "../x", "a/../../../x", "x\x00", "\n", strings.Repeat("a", 16), "lo"} {
		if p, err := s.loadPort(name); err == nil || errors.Is(err, ErrNoPort) {
			t.Errorf("%q gives %+v, %v", name, p, err)
		}
	}
	for _, name := range []string{"port-.json", ".port-bond0.json.new", "port-bond0.json~", "port-bond0", "vs8.json", "xport-a.json"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := s.Ports(); len(names) != 0 || err != nil {
		t.Errorf("%q, %v", names, err)
	}
}

func TestPortDocuments(t *testing.T) {
	// Beside virtual servers, in whatever order.
	docs, err := ReadDocuments(strings.NewReader("id: 8\n---\n"+everyPort+"---\nid: 9\n---\nports:\n- {name: bond9, mode: broadcast, members: [eth9]}\n"), "f")
	if err != nil || len(docs.Servers) != 2 || len(docs.Ports) != 4 || docs.Ports[3].Name != "bond9" {
		t.Errorf("%+v, %v", docs, err)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"everything wrong, at once", "ports:\n- name: a/b\n  mode: fast\n  members: [eth1, eth1]\n- name: bond1\n  mode: balance-rr\n  members: []\n  primary: eth1\n  mtu: 60\n",
			"f:2:9: \"a/b\" cannot be a device's name\n" +
				"f:3:9: mode \"fast\" is unknown: it is balance-rr, active-backup, balance-xor, broadcast, 802.3ad, balance-tlb, balance-alb\n" +
				"f:4:19: member eth1 is there twice\n" +
				"f:7:12: bond bond1 has no members\n" +
				"f:8:12: mode balance-rr knows no primary\n" +
				"f:9:8: mtu 60 is out of range: 68 to 65535"},
		{"fields", "ports:\n- {name: bond0, mode: balance-rr, members: eth1, colour: red, miimon: x, mac: 02:00, arpTargets: [here]}\n",
			"f:2:44: a list is expected here\nf:2:50: unknown field colour\nf:2:71: x is not a whole number\n" +
				"f:2:79: \"02:00\" is not a MAC address such as 02:00:5e:10:00:08\nf:2:99: here is not an IP address"},
		{"no list", "ports: bond0\n", "f:1:8: a list is expected here"},
		{"a word in the list", "ports:\n- bond0\n", "f:2:3: a port's fields are expected here"},
		{"a field beside it", "ports: []\nid: 8\n", "f:2:1: unknown field id"},
		{"no ports", "ports: []\n", "f: there is no virtual server in it"},
		{"twice", "ports:\n- {name: bond0, mode: balance-rr, members: [eth1]}\n- {name: bond0, mode: balance-rr, members: [eth2]}\n",
			"f:3:10: port bond0 is there twice"},
		{"one member in two", "ports:\n- {name: bond0, mode: balance-rr, members: [eth1]}\n- {name: bond1, mode: balance-rr, members: [eth2, eth1]}\n",
			"f:3:51: eth1 is a member of port bond0, too"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			docs, err := ReadDocuments(strings.NewReader(tt.text), "f")
			if err == nil {
				t.Fatalf("read as %+v", docs)
			}
			if d := cmp.Diff(tt.want, err.Error()); d != "" {
				t.Errorf("the errors (-want +got):\n%s", d)
			}
		})
	}
}

func FuzzPortDocuments(f *testing.F) {
	f.Add(everyPort)
	f.Add("ports: [{name: bond0, members: [eth1], mode: balance-rr}]\n---\nid: 8\n")
	f.Add("ports: &a [*a]")
	f.Add("ports: [{arpTargets: [192.0.2.1, ''], arpInterval: -1, before: {}}]")
	f.Fuzz(func(t *testing.T, text string) {
		docs, err := ReadDocuments(strings.NewReader(text), "f")
		if err != nil {
			return
		}
		s := OpenStore(t.TempDir())
		for _, b := range docs.Ports { // what is accepted can be stored
			if err := s.savePort(recordOf(b)); err != nil {
				t.Fatal(err)
			}
			if got, err := s.loadPort(b.Name); err != nil || !sameBond(got.Bond, b) {
				t.Errorf("stored as %+v, %v", got, err)
			}
		}
	})
}

// What is remembered is how a member was first, and for as long as it is to be
// given back.
func TestPlanPortRemembers(t *testing.T) {
	bond := plumbing.Bond{Name: "bond0", Mode: plumbing.BalanceRR, Members: []string{"eth1", "eth2"}}
	nic := func(name string, up bool) plumbing.Member {
		return plumbing.Member{Port: plumbing.Port{Name: name, MTU: 1500, Up: up}}
	}
	p := portRecord{Bond: bond}
	if _, err := planPort(&p, plumbing.BondState{Members: []plumbing.Member{nic("eth1", true), nic("eth2", false)}}); err != nil {
		t.Fatal(err)
	}
	want := map[string]plumbing.Before{"eth1": {Up: true}, "eth2": {}}
	if d := cmp.Diff(want, p.Before); d != "" {
		t.Errorf("first (-want +got):\n%s", d)
	}
	// Again after a crash: eth1 has been taken down meanwhile, eth2 has gone.
	if _, err := planPort(&p, plumbing.BondState{Members: []plumbing.Member{nic("eth1", false)}}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, p.Before); d != "" {
		t.Errorf("again (-want +got):\n%s", d)
	}
	p.Members = []string{"eth2"}
	p.forget()
	if d := cmp.Diff(map[string]plumbing.Before{"eth2": {}}, p.Before); d != "" {
		t.Errorf("without eth1 (-want +got):\n%s", d)
	}
	// One that has never been there is a mistake.
	p.Members = []string{"eth2", "eth9"}
	if _, err := planPort(&p, plumbing.BondState{}); err == nil || err.Error() != "no device eth9 on this host" {
		t.Errorf("got %v", err)
	}
}
