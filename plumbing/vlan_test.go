package plumbing

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseVLAN(t *testing.T) {
	for _, tt := range []struct {
		text string
		want VLAN
		err  string
	}{
		{text: "1", want: VLAN{1}},
		{text: "10", want: VLAN{10}},
		{text: "4094", want: VLAN{4094}},
		{text: "0010", want: VLAN{10}}, // nobody means 8
		{text: "100.10", want: VLAN{100, 10}},
		{text: "4094.4094", want: VLAN{4094, 4094}},
		{text: "0", err: "vlan 0 is out of range: 1 to 4094"},
		{text: "4095", err: "vlan 4095 is out of range: 1 to 4094"},
		{text: "10.0", err: "vlan 0 is out of range: 1 to 4094"},
		{text: "4095.10", err: "vlan 4095 is out of range: 1 to 4094"},
		{text: "1.2.3", err: "vlan 1.2.3 has 3 tags: at most 2"},
		{text: "", err: `"" is not a VLAN such as 10, or 100.10 for one inside another`},
		{text: "x", err: `"x" is not a VLAN such as 10, or 100.10 for one inside another`},
		{text: "10.", err: `"10." is not a VLAN such as 10, or 100.10 for one inside another`},
		{text: ".10", err: `".10" is not a VLAN such as 10, or 100.10 for one inside another`},
		{text: "10,20", err: `"10,20" is not a VLAN such as 10, or 100.10 for one inside another`},
		{text: "+10", err: `"+10" is not a VLAN such as 10, or 100.10 for one inside another`},
		{text: "-1", err: `"-1" is not a VLAN such as 10, or 100.10 for one inside another`},
		{text: " 10", err: `" 10" is not a VLAN such as 10, or 100.10 for one inside another`},
		{text: "0x10", err: `"0x10" is not a VLAN such as 10, or 100.10 for one inside another`},
		{text: "99999999999999999999", err: `"99999999999999999999" is not a VLAN such as 10, or 100.10 for one inside another`},
	} {
		got, err := ParseVLAN(tt.text)
		switch {
		case tt.err == "" && (err != nil || !slices.Equal(got, tt.want)):
			t.Errorf("%q: %v, %v, want %v", tt.text, got, err, tt.want)
		case tt.err != "" && (err == nil || err.Error() != tt.err):
			t.Errorf("%q: error %v, want %s", tt.text, err, tt.err)
		}
	}
}

func FuzzParseVLAN(f *testing.F) {
	for _, seed := range []string{"10", "100.10", "4095", "1.2.3", "-1", "", "."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseVLAN(text)
		if err != nil {
			return
		}
		if n := len(v); n < 1 || n > maxTags {
			t.Fatalf("%q is %d tags", text, n)
		}
		if again, err := ParseVLAN(v.String()); err != nil || !slices.Equal(v, again) {
			t.Errorf("%q is %v, and that is %v, %v", text, v, again, err)
		}
		b, err := json.Marshal(v)
		var again VLAN
		if err == nil {
			err = json.Unmarshal(b, &again)
		}
		if err != nil || !slices.Equal(v, again) {
			t.Errorf("%v is %s, and that is %v, %v", v, b, again, err)
		}
	})
}

func TestVLANJSON(t *testing.T) {
	for _, tt := range []struct {
		text string
		want VLAN
		back string // what it is written as; "" for an error
	}{
		{"10", VLAN{10}, "10"},
		{"[10]", VLAN{10}, "10"},
		{"[100,10]", VLAN{100, 10}, "[100,10]"},
		{"null", nil, "null"},
		{"[]", VLAN{}, "null"},
		{"0", VLAN{0}, "0"}, // Validate's to refuse
		{"[1,2,3]", VLAN{1, 2, 3}, "[1,2,3]"},
		{`"10"`, nil, ""},
		{"10.5", nil, ""},
		{"100.10", nil, ""}, // a number with a fraction: nobody could tell 100.1 from 100.10
		{"[[10]]", nil, ""},
		{`["10"]`, nil, ""},
		{"{}", nil, ""},
		{"true", nil, ""},
		{"99999999999999999999", nil, ""},
	} {
		var got VLAN
		err := json.Unmarshal([]byte(tt.text), &got)
		if tt.back == "" {
			if err == nil || err.Error() != "a VLAN is a number, or a list of two: the outer and the inner" {
				t.Errorf("%s is %v, %v", tt.text, got, err)
			}
			continue
		}
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s is %v, %v, want %v", tt.text, got, err, tt.want)
		}
		if b, err := json.Marshal(got); err != nil || string(b) != tt.back {
			t.Errorf("%s is written as %s, %v", tt.text, b, err)
		}
	}
	// No VLAN is not written at all, and does not show in a record from before.
	if b, _ := json.Marshal(Interface{Name: "eth0", Port: "eth1", VLAN: VLAN{}}); string(b) != `{"name":"eth0","port":"eth1"}` {
		t.Errorf("without a VLAN: %s", b)
	}
}

// on is an interface on a VLAN of eth1.
func on(kind Kind, ids ...int) Interface {
	return Interface{Name: "eth0", Port: "eth1", VLAN: ids, Kind: kind}
}

func TestLowers(t *testing.T) {
	for _, tt := range []struct {
		of            Interface
		devices       string // on the host
		base, segment string
		words         string
		inside        string // the tag of what is inside
	}{
		{on(""), "", "eth1", "eth1", "port eth1", ""},
		{on("", 10), "10: eth1/10 on eth1", "eth1/10", "eth1/10", "vlan 10 of port eth1", ""},
		{on(Macvlan, 100, 10), "100 (802.1ad): eth1/ad100 on eth1; 10: eth1/ad100/10 on eth1/ad100",
			"eth1/ad100/10", "eth1/ad100/10", "vlan 100.10 of port eth1", ""},
		{on(Vlan, 10), "", "eth1", "eth1/10", "vlan 10 of port eth1", "protocol 802.1Q id 10"},
		{on(Vlan, 100, 10), "100 (802.1ad): eth1/ad100 on eth1", "eth1/ad100", "eth1/ad100/10",
			"vlan 100.10 of port eth1", "protocol 802.1Q id 10"},
	} {
		var devices []string
		for _, l := range tt.of.lowers() {
			devices = append(devices, fmt.Sprintf("%s: %s on %s", l.tag, l.path, l.on))
		}
		if got := strings.Join(devices, "; "); got != tt.devices {
			t.Errorf("%s %s: devices %q, want %q", tt.of.Kind, tt.of.VLAN, got, tt.devices)
		}
		if tt.of.base() != tt.base || tt.of.Segment() != tt.segment || tt.of.On() != tt.words {
			t.Errorf("%s %s: on %q, segment %q, said as %q", tt.of.Kind, tt.of.VLAN, tt.of.base(), tt.of.Segment(), tt.of.On())
		}
		inside := ""
		if tag := tt.of.innermost(); tag.id != 0 {
			inside = tag.words()
		}
		if inside != tt.inside {
			t.Errorf("%s %s: inside is %q, want %q", tt.of.Kind, tt.of.VLAN, inside, tt.inside)
		}
		if n := (Network{Interfaces: []Interface{on(""), tt.of}}); n.UsesVLAN() != (tt.devices != "") {
			t.Errorf("%s %s: UsesVLAN is %v", tt.of.Kind, tt.of.VLAN, n.UsesVLAN())
		}
	}
}

func TestExcludes(t *testing.T) {
	eth2 := on(Vlan, 10)
	eth2.Port = "eth2"
	for _, tt := range []struct {
		name string
		a, b Interface
		want bool
	}{
		{"macvlans share", on("", 10), on("", 10), false},
		{"one has it alone", on(Vlan, 10), on("", 10), true},
		{"both want it alone", on(Vlan, 10), on(Vlan, 10), true},
		{"another VLAN", on(Vlan, 10), on(Vlan, 11), false},
		{"another port", on(Vlan, 10), eth2, false},
		{"the port itself", on(Vlan, 10), on(""), false},
		// 802.1ad and 802.1Q have numbers of their own.
		{"the outer one's number", on(Vlan, 100), on("", 100, 10), false},
		{"an inner one alone, others beside it", on(Vlan, 100, 10), on("", 100, 11), false},
		{"an inner one alone, twice", on(Vlan, 100, 10), on("", 100, 10), true},
	} {
		if tt.a.Excludes(tt.b) != tt.want || tt.b.Excludes(tt.a) != tt.want {
			t.Errorf("%s: %v and %v", tt.name, tt.a.Excludes(tt.b), tt.b.Excludes(tt.a))
		}
	}
}

// The kernel's limits are IFNAMSIZ and ALTIFNAMSIZ, each with the NUL. The same VLAN on
// any number of ports has as many names.
func TestNamesOfVLANs(t *testing.T) {
	names, altnames := map[string]string{}, map[string]string{}
	taken := func(name string) bool { return names[name] != "" }
	use := func(port string, v VLAN) {
		for _, l := range lowers(port, v) {
			if altnames[l.altname()] == l.path {
				continue // shared with another VLAN inside it
			}
			name := vlanName(l.id, taken)
			if len(name) > 15 || checkDevice(name) != nil {
				t.Errorf("%s is named %q", l.path, name)
			}
			if len(l.altname()) > 127 || strings.ContainsAny(l.altname(), "/ ") || altnames[l.altname()] != "" {
				t.Errorf("%s has the second name %q, which %q has", l.path, l.altname(), altnames[l.altname()])
			}
			names[name], altnames[l.altname()] = l.path, l.path
		}
	}
	for k := range 300 {
		port := fmt.Sprintf("a-port-of-15-%02x", k)[:15-len(fmt.Sprint(k))] + fmt.Sprint(k)
		if len(port) != 15 {
			t.Fatal(port)
		}
		for _, v := range []VLAN{{4094}, {4094, 4094}, {4094, 1}, {1}, {10, 4094}} {
			use(port, v)
		}
	}
	for _, want := range []string{"vsvlan1", "vsvlan10", "vsvlan4094", "vsvlan4094-2", "vsvlan4094-1200"} {
		if names[want] == "" {
			t.Errorf("nothing is named %s", want)
		}
	}
	longest := lowers("a-port-of-15-by", VLAN{4094, 4094})[1].altname()
	if longest != "vsrun-a-port-of-15-by.ad4094.4094" || len(longest) != 33 {
		t.Errorf("the longest second name is %s", longest)
	}
	// Short of 10,000 ports with one VLAN, a name fits.
	last := vlanName(4094, func(name string) bool { return name != "vsvlan4094-9999" })
	if len(last) != 15 {
		t.Errorf("%s", last)
	}
}

// names by which another device of the host goes are left alone, whoever made it.
func TestVLANNameIsFree(t *testing.T) {
	have := absent()
	have.HostNames = []string{"eth1", "vsvlan10", "vsvlan10-2"}
	have.Ports["eth2/10"] = Port{Name: "vsvlan10-3", Ours: true} // as of this plan
	_, plan := withVLANs(Network{Interfaces: []Interface{on("", 10)}}, have)
	if got := plan[0].(onHost).Step.(addVLAN).dev; got != "vsvlan10-4" {
		t.Errorf("it is to be %s", got)
	}
}

func TestValidateVLAN(t *testing.T) {
	two := func(a, b Interface) Network {
		b.Name = "lan"
		return Network{Interfaces: []Interface{a, b}}
	}
	for _, tt := range []struct {
		name     string
		network  Network
		problems string // a line each
	}{
		{"the bounds", two(on("", 1), on(Vlan, 4094, 4094)), ""},
		{"two interfaces on one", two(on("", 10), on(Macvlan, 10)), ""},
		{"beyond them", two(on("", 0), on(Vlan, 4095)), `
interfaces[0].vlan: vlan 0 is out of range: 1 to 4094
interfaces[1].vlan: vlan 4095 is out of range: 1 to 4094`},
		{"the inner one", two(on("", 100, 4095), on("", -1, 10)), `
interfaces[0].vlan: vlan 4095 is out of range: 1 to 4094
interfaces[1].vlan: vlan -1 is out of range: 1 to 4094`},
		{"three tags", two(on("", 1, 2, 3), on("")), `
interfaces[0].vlan: vlan 1.2.3 has 3 tags: at most 2`},
		{"kind vlan of nothing", two(on(Vlan), on("")), `
interfaces[0].vlan: interface eth0 is of kind vlan and has no vlan`},
		{"kind vlan, and shared", two(on(Vlan, 10), on("", 10)), `
interfaces[1].port: interface eth0 already has vlan 10 of port eth1, which cannot be shared (kind vlan)`},
		{"kind vlan twice", two(on(Vlan, 100, 10), on(Vlan, 100, 10)), `
interfaces[1].port: interface eth0 already has vlan 100.10 of port eth1, which cannot be shared (kind vlan)`},
		{"kind vlan, and the port", two(on(Vlan, 10), on("")), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got strings.Builder
			for _, p := range tt.network.Validate() {
				got.WriteString("\n" + p.Path + ": " + p.Err.Error())
			}
			if d := cmp.Diff(tt.problems, got.String()); d != "" {
				t.Errorf("the problems (-want +got):\n%s", d)
			}
		})
	}
}
