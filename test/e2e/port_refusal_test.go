package e2e_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/test/lab"
)

// portRefusalCases are what keeps a bond from being made of eth1 and eth2, and the cure.
var portRefusalCases = []struct {
	name    string
	make    []string // lines of ip
	create  []string // vsrun
	args    string   // members, and whatever flags
	undo    []string
	destroy []string // vsrun
	want    string
}{
	{name: "a virtual server on a member", create: []string{"create 8 --port eth2 --no-probe --address 192.0.2.8/24"}, destroy: []string{"destroy 8"},
		want: "eth2 is in use, by vs8\nhint: move them to the bond, when it is there: until then, detach their interfaces"},
	{name: "a disabled one", create: []string{"create 8 --disabled --port eth2"}, destroy: []string{"destroy 8"},
		want: "eth2 is in use, by vs8\nhint: move them to the bond, when it is there: until then, detach their interfaces"},
	{name: "somebody's macvlan in another namespace",
		make: []string{"netns add other", "link add link eth2 name m0 netns other type macvlan mode bridge", "-n other link set dev m0 up"},
		undo: []string{"-n other link del dev m0", "netns del other"},
		want: "eth2 is in use: interfaces sit on it\nhint: see what sits on it: vsrun ls -o wide; ip -d link; bridge fdb show dev eth2"},
	{name: "a VLAN on a member", make: []string{"link add link eth2 name v0 type vlan id 5"}, undo: []string{"link del dev v0"},
		want: "eth2 is in use: interfaces sit on it\nhint: see what sits on it: vsrun ls -o wide; ip -d link; bridge fdb show dev eth2"},
	{name: "a member of a bridge", make: []string{"link add br0 type bridge", "link set dev eth2 master br0"}, undo: []string{"link set dev eth2 nomaster", "link del dev br0"},
		want: "eth2 is a member of br0\nhint: take it out first: ip link set eth2 nomaster"},
	{name: "a member of another bond", make: []string{"link add bond9 type bond mode active-backup", "link set dev eth2 down", "link set dev eth2 master bond9"},
		undo: []string{"link set dev eth2 nomaster", "link del dev bond9", "link set dev eth2 up"},
		want: "eth2 is a member of bond9\nhint: take it out first: ip link set eth2 nomaster"},
	{name: "a member of another port", create: []string{"port create bond9 --members eth2,eth3 --mode balance-rr"}, destroy: []string{"port destroy bond9"},
		want: "eth2 is a member of port bond9\nhint: choose another"},
	{name: "a bond itself", make: []string{"link add bond9 type bond"}, args: "eth1,bond9", undo: []string{"link del dev bond9"},
		want: "bond9 cannot be a member of a bond\nhint: choose a device that leads to a network"},
	{name: "a route by it", make: []string{"addr add 198.51.100.1/24 dev eth2", "route add 203.0.113.0/24 via 198.51.100.7"}, undo: []string{"addr del 198.51.100.1/24 dev eth2"},
		want: "eth2 is in use, by the route 203.0.113.0/24 via 198.51.100.7 dev eth2\nhint: delete it first: ip route delete 203.0.113.0/24 via 198.51.100.7 dev eth2"},
	{name: "the default route of IPv6", make: []string{"route add ::/0 via fe80::9 dev eth2 table 7"}, undo: []string{"route del ::/0 via fe80::9 dev eth2 table 7"},
		want: "eth2 is in use, by the route default via fe80::9 dev eth2 table 7\nhint: delete it first: ip route delete ::/0 via fe80::9 dev eth2 table 7"},
	{name: "loopback", args: "eth1,lo", want: "lo cannot be a member of a bond\nhint: choose a device that leads to a network"},
	{name: "missing", args: "eth1,eth9", want: "no device eth9 on this host\nhint: see which there are: ip -brief link"},
	{name: "the name is somebody's bond", make: []string{"link add bond0 type bond mode balance-rr", "link set dev bond0 up"}, undo: []string{"link del dev bond0"},
		want: "bond0 is there already, and is not vsrun's\nhint: use it as it is, with --port bond0, or choose another name"},
	{name: "somebody's that is down and set up", make: []string{"link add bond0 type bond mode active-backup miimon 100"}, undo: []string{"link del dev bond0"},
		want: "bond0 is there already, and is not vsrun's\nhint: use it as it is, with --port bond0, or choose another name"},
	{name: "somebody's that something sits on", make: []string{"link add bond0 type bond", "link add link bond0 name v0 type vlan id 5"}, undo: []string{"link del dev v0", "link del dev bond0"},
		want: "bond0 is there already, and is not vsrun's\nhint: use it as it is, with --port bond0, or choose another name"},
	{name: "the name is a dummy's", make: []string{"link add bond0 type dummy"}, undo: []string{"link del dev bond0"},
		want: "bond0 is there already, and is not vsrun's\nhint: use it as it is, with --port bond0, or choose another name"},
	{name: "the name is of our group, and no bond", make: []string{"link add bond0 group 118 type dummy"}, undo: []string{"link del dev bond0"},
		want: "bond0 is there already, and is not vsrun's\nhint: use it as it is, with --port bond0, or choose another name"},
	{name: "what the kernel refuses", make: []string{"netns add other", "link add link eth2 name m0 netns other type macvlan mode bridge"},
		undo: []string{"-n other link del dev m0", "netns del other"}, // down, it shows nowhere on the host
		want: "cannot add eth2 to bond0: device is in use and cannot be enslaved\nhint: see what sits on it: vsrun ls -o wide; ip -all netns exec ip -d link"},
}

func portRefusals(t *testing.T, s *site) {
	lab.Require(t, "kind:vlan")
	clean := dump(t, s.Host)
	for k, tt := range portRefusalCases {
		for _, l := range tt.make {
			s.Run(t, append([]string{"ip"}, strings.Fields(l)...)...)
		}
		for _, c := range tt.create {
			s.MustVsrun(t, strings.Fields(c)...)
		}
		args := tt.args
		if args == "" {
			args = "eth1,eth2"
		}
		before := dump(t, s.Host)
		stored := storedFiles(t, s.Host)
		for _, flags := range [][]string{{"--dry-run"}, nil} {
			if flags != nil && k%4 > 0 {
				continue
			}
			r := s.Vsrun(append([]string{"port", "create", "bond0", "--members", args, "--mode", "active-backup"}, flags...)...)
			prefix := "vsrun: cannot create port bond0: "
			if flags != nil {
				prefix = "vsrun: cannot plan port bond0: "
			}
			if d := cmp.Diff(prefix+tt.want+"\n", r.Stderr); r.Code != 1 || d != "" {
				t.Errorf("%s: exit status %d (-want +got):\n%s", tt.name, r.Code, d)
			}
		}
		mustBe(t, s.Host, before, "refused for %s", tt.name)
		if d := cmp.Diff(stored, storedFiles(t, s.Host)); d != "" {
			t.Errorf("%s, refused, is stored:\n%s", tt.name, d)
		}
		for _, c := range tt.destroy {
			s.MustVsrun(t, strings.Fields(c)...)
		}
		for _, l := range tt.undo {
			s.Run(t, append([]string{"ip"}, strings.Fields(l)...)...)
		}
		mustBe(t, s.Host, clean, "after %s", tt.name)
	}
}

// A bond that somebody uses stays.
func portInUse(t *testing.T, s *site) {
	lab.Require(t, "kind:vlan")
	refused := func(want string) {
		t.Helper()
		for _, flags := range [][]string{nil, {"--dry-run"}} {
			r := s.Vsrun(append([]string{"port", "destroy", "bond0"}, flags...)...)
			if r.Code != 1 || !strings.HasSuffix(r.Stderr, want+"\n") {
				t.Errorf("%v\nwant %s", r, want)
			}
		}
		if got := s.port(t, "bond0"); got.State != "up" {
			t.Errorf("refused, it is %+v", got)
		}
	}
	create := strings.Fields("port create bond0 --members eth1,eth2 --mode active-backup")
	s.MustVsrun(t, create...)
	s.addVS(t, 8, "--port", "bond0", "--no-probe")
	s.MustVsrun(t, "create", "9", "--name", "shop", "--disabled", "--port", "bond0", "--vlan", "10")
	refused("port bond0 is in use, by vs8, vs9 (shop)\nhint: destroy them, or detach their interfaces, first")
	s.MustVsrun(t, "disable", "8")
	s.MustVsrun(t, "destroy", "9")
	refused("port bond0 is in use, by vs8\nhint: destroy them, or detach their interfaces, first")
	// Nobody gets a member of it.
	r := s.Vsrun("create", "10", "--port", "eth1", "--no-probe", "--address", "192.0.2.10/24")
	if r.Code != 1 || !strings.HasSuffix(r.Stderr, "eth1 is a member of bond bond0\nhint: use --port bond0\n") {
		t.Error(r)
	}
	s.MustVsrun(t, "destroy", "8")
	s.Run(t, "ip", "link", "add", "link", "bond0", "name", "v0", "type", "vlan", "id", "5")
	refused("bond0 is in use: interfaces sit on it\nhint: see what sits on it: vsrun ls -o wide; ip -d link show")
	s.Run(t, "ip", "link", "del", "dev", "v0")
	// Neither is a member taken over by another port, nor one given that a virtual
	// server has which is not on the network now.
	r = s.Vsrun("port", "create", "bond1", "--members", "eth3,eth2", "--mode", "balance-rr")
	if r.Code != 1 || !strings.HasSuffix(r.Stderr, "eth2 is a member of port bond0\nhint: choose another\n") {
		t.Error(r)
	}
	s.MustVsrun(t, "create", "8", "--disabled", "--port", "eth3")
	r = s.Vsrun("apply", "-f", portDocument(t, "{name: bond0, mode: active-backup, members: [eth1, eth2, eth3]}"))
	if r.Code != 1 || !strings.Contains(r.Stderr, "eth3 is in use, by vs8\n") {
		t.Error(r)
	}
	// Another one under its name.
	for _, flags := range [][]string{nil, {"--dry-run"}} {
		r = s.Vsrun(append([]string{"port", "create", "bond0", "--members", "eth1", "--mode", "active-backup"}, flags...)...)
		if r.Code != 1 || !strings.HasSuffix(r.Stderr, "port bond0 exists, and is different\nhint: see it with: vsrun port show bond0; change it with vsrun apply, or destroy it first\n") {
			t.Error(r)
		}
	}
	s.MustVsrun(t, "destroy", "8")
	// Ours by name, and another's by now.
	script(t, s.Host, "link del dev bond0", "link add bond0 type dummy")
	r = s.Vsrun("port", "destroy", "bond0")
	if r.Code != 1 || !strings.HasSuffix(r.Stderr, "bond0 is not vsrun's: it is left alone\nhint: rename it, and try again: ip link set bond0 name NEW\n") {
		t.Error(r)
	}
	script(t, s.Host, "link del dev bond0")
	s.MustVsrun(t, "port", "destroy", "bond0")
	if r := s.Vsrun("port", "show", "bond0"); r.Code != 3 || !strings.HasSuffix(r.Stderr, "no such port: bond0\n") {
		t.Error(r)
	}
}
