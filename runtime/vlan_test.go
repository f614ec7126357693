package runtime

import (
	"strings"
	"testing"

	"github.com/vsrun/vsrun/plumbing"
)

// tagged puts every interface on a VLAN.
func tagged(vs VirtualServer, kind plumbing.Kind, ids ...int) VirtualServer {
	for k := range vs.Interfaces {
		vs.Interfaces[k].VLAN, vs.Interfaces[k].Kind = ids, kind
	}
	return vs
}

func TestConflictOfRealms(t *testing.T) {
	one, other := server(8, "", []string{"192.0.2.8/24"}), server(9, "", []string{"192.0.2.9/24"})
	one.Interfaces[0].Realm = 8
	if got := conflict(one, other); got != "" {
		t.Errorf("one realm: %s", got)
	}
	other.Interfaces[0].Realm = 8
	if got := conflict(one, other); got != "realm 8, of which the host has one count" {
		t.Errorf("the same realm: %q", got)
	}
}

func TestConflictOnVLANs(t *testing.T) {
	vs := func(id int) VirtualServer { return server(id, "", []string{"192.0.2.8/24"}) }
	other := func() VirtualServer { return server(9, "", []string{"192.0.2.9/24"}) }
	const address, alone = "address 192.0.2.8 on vlan ", ", which cannot be shared (kind vlan)"
	for _, tt := range []struct {
		name       string
		one, other VirtualServer
		want       string
	}{
		{"an address on two VLANs", tagged(vs(8), "", 10), tagged(vs(9), "", 20), ""},
		{"an address on a VLAN and on the port", tagged(vs(8), "", 10), vs(9), ""},
		{"an address on a VLAN twice", tagged(vs(8), "", 10), tagged(vs(9), "", 10), address + "10 of port eth1"},
		{"an address on a VLAN inside one", tagged(vs(8), "", 100, 10), tagged(vs(9), "", 10), ""},
		{"an address on a VLAN inside one, twice", tagged(vs(8), "", 100, 10), tagged(vs(9), "", 100, 10), address + "100.10 of port eth1"},
		{"an address on VLANs of one number, inside two", tagged(vs(8), "", 100, 10), tagged(vs(9), "", 200, 10), ""},
		{"an address on a VLAN, whatever the kind", tagged(vs(8), "vlan", 10), tagged(vs(9), "", 10), address + "10 of port eth1"},
		{"a VLAN is shared", tagged(vs(8), "", 10), tagged(other(), "macvlan", 10), ""},
		{"a VLAN is not shared", tagged(vs(8), "vlan", 10), tagged(other(), "", 10), "vlan 10 of port eth1" + alone},
		{"a VLAN is wanted alone by both", tagged(vs(8), "vlan", 10), tagged(other(), "vlan", 10), "vlan 10 of port eth1" + alone},
		{"a VLAN inside one is not shared", tagged(vs(8), "vlan", 100, 10), tagged(other(), "", 100, 10), "vlan 100.10 of port eth1" + alone},
		{"another one inside it is another", tagged(vs(8), "vlan", 100, 10), tagged(other(), "", 100, 11), ""},
		{"so is the port", tagged(vs(8), "vlan", 10), other(), ""},
	} {
		one, other := tt.one, tt.other
		for _, got := range []string{conflict(one, other), conflict(other, one)} {
			if got != tt.want {
				t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
			}
		}
	}
}

func TestVLANInDocuments(t *testing.T) {
	const type_ = "a VLAN is a number, or a list of two: the outer and the inner"
	for _, tt := range []struct{ vlan, want, err string }{
		{vlan: "10", want: "10"},
		{vlan: "[10]", want: "10"},
		{vlan: "[100, 10]", want: "100.10"},
		{vlan: "\n  - 100\n  - 10", want: "100.10"},
		{vlan: "null"},
		{vlan: "~"},
		{vlan: "[]"},
		{vlan: "100.10", err: type_}, // YAML's number 100.1
		{vlan: `"100.10"`, err: type_},
		{vlan: `"10"`, err: type_},
		{vlan: "ten", err: type_},
		{vlan: "[ten, 10]", err: type_},
		{vlan: "{outer: 100}", err: type_},
		{vlan: "0", err: "vlan 0 is out of range: 1 to 4094"},
		{vlan: "[4095, 10]", err: "vlan 4095 is out of range: 1 to 4094"},
		{vlan: "[1, 2, 3]", err: "vlan 1.2.3 has 3 tags: at most 2"},
	} {
		list, err := readServers(strings.NewReader("id: 8\ninterfaces:\n- name: eth0\n  port: eth1\n  vlan: "+tt.vlan), "f")
		switch {
		case tt.err != "" && (err == nil || !strings.HasPrefix(err.Error(), "f:5:9: "+tt.err)):
			t.Errorf("%s: %v, want %s", tt.vlan, err, tt.err)
		case tt.err == "" && err != nil:
			t.Errorf("%s: %v", tt.vlan, err)
		case tt.err == "":
			if got := list[0].Interfaces[0].VLAN.String(); got != tt.want {
				t.Errorf("%s is %s", tt.vlan, got)
			}
			again, err := decodeRecord(list[0].record())
			if err != nil || !same(again, list[0]) || again.Interfaces[0].VLAN.String() != tt.want {
				t.Errorf("%s is stored as %s, %v", tt.vlan, list[0].record(), err)
			}
		}
	}
}

// A record that says the same in another way is no change.
func TestSameVLAN(t *testing.T) {
	a := tagged(server(8, "", nil), "macvlan", 10)
	b := tagged(server(8, "", nil), "", 10)
	if !same(a, b) || same(a, tagged(server(8, "", nil), "vlan", 10)) || same(a, tagged(server(8, "", nil), "", 10, 10)) {
		t.Error("kinds and VLANs are compared wrongly")
	}
}
