package plumbing

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What another takes is a realm: the rule stays without it where its table does, and the
// state after that is the one that the next plan begins at.
func TestWithoutRealm(t *testing.T) {
	n := Network{Interfaces: []Interface{
		{Name: "a", Port: "eth1", MAC: mac8, Realm: 8, Addresses: prefixes("192.0.2.8/24"), Gateways: addrs("192.0.2.1")},
		{Name: "b", Port: "eth1", MAC: mac9, Realm: 7, Addresses: prefixes("198.51.100.8/24"), Gateways: addrs("198.51.100.1")},
	}}
	other := Network{Interfaces: []Interface{{Name: "eth0", Port: "eth1", MAC: MAC{2, 7}, Realm: 8}}}
	less := n.Without(other, []MAC{mac8, mac9})
	if got := []int{less.Interfaces[0].Realm, less.Interfaces[1].Realm}; got[0] != 0 || got[1] != 7 {
		t.Fatalf("the realms are %v", got)
	}
	have := State{Rules: n.allRules(), Routes: n.allRoutes()}
	diff := func(to Network) Plan {
		d := differ{place: vs8, want: to, have: have}
		d.rules()
		return d.plan
	}
	const rule = "from 192.0.2.8/32 lookup 118001 priority 1180"
	given := diff(less)
	if d := cmp.Diff("ip -n vs8 rule delete "+rule+" realms 8 protocol 118\nip -n vs8 rule add "+rule+" protocol 118\n", given.Script(vs8)); d != "" {
		t.Errorf("given up (-want +got):\n%s", d)
	}
	have = have.After(given)
	if d := cmp.Diff("ip -n vs8 rule delete "+rule+" protocol 118\nip -n vs8 rule add "+rule+" realms 8 protocol 118\n", diff(n).Script(vs8)); d != "" {
		t.Errorf("taken back (-want +got):\n%s", d)
	}
}
