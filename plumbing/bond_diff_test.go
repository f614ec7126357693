package plumbing

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// nic is a member as it is before.
func nic(name string, change func(*Member)) Member {
	m := Member{Port: Port{Name: name, MTU: 1500, Up: true}, MAC: MAC{2, 0, 0, 0, 1, name[len(name)-1] - '0'}}
	if change != nil {
		change(&m)
	}
	return m
}

func slave(m *Member) { m.Enslaved, m.Master = true, "bond0" }

// noBond is a host with these NICs and no bond.
func noBond(members ...Member) BondState {
	return BondState{Options: map[string]string{}, Members: members}
}

// bonded is a host on which that bond is, as it should be.
func bonded(b Bond, change func(*BondState)) BondState {
	s := BondState{
		Device:  &Port{Name: b.Name, Kind: "bond", MTU: 1500, Up: true, Ours: true, Alias: portMark},
		MAC:     nic(b.Members[0], nil).MAC,
		Options: map[string]string{"primary": b.Primary},
	}
	for _, o := range bondOptions {
		if _, ok := s.Options[o.name]; !ok && o.name != "arp_ip_target" {
			s.Options[o.name] = o.word(0)
		}
	}
	for _, set := range b.settings() {
		s.Options[set.name] = set.value
	}
	for _, m := range b.Members {
		s.Members = append(s.Members, nic(m, slave))
	}
	if change != nil {
		change(&s)
	}
	return s
}

func up(names ...string) map[string]Before {
	before := map[string]Before{}
	for _, n := range names {
		before[n] = Before{Up: true}
	}
	return before
}

const (
	abOptions = "mode active-backup miimon 100 updelay 0 downdelay 0 arp_interval 0 primary_reselect always fail_over_mac none num_grat_arp 3"
	addAB     = "ip link add name bond0 group 118 type bond " + abOptions + "\n"
)

func TestDiffBond(t *testing.T) {
	own := []OwnAddress{
		{Prefix: prefixes("192.0.2.1/24")[0], Broadcast: addrs("192.0.2.255")[0], Label: "eth1:a"},
		{Prefix: prefixes("203.0.113.1/32")[0], Peer: prefixes("203.0.113.2/32")[0], Scope: 253, NoPrefixRoute: true},
		{Prefix: prefixes("2001:db8::1/64")[0], NoDAD: true},
		{Prefix: prefixes("2001:db8::2/64")[0]},
	}
	for _, tt := range []struct {
		name   string
		want   Bond
		before map[string]Before
		have   BondState
		plan   string
	}{{
		name: "nothing to do", want: abBond(nil), have: bonded(abBond(nil), nil),
	}, {
		name: "made",
		want: abBond(func(b *Bond) { b.Primary = "eth2" }),
		have: noBond(nic("eth2", func(m *Member) { m.Up, m.MTU = false, 1400 }), nic("eth1", func(m *Member) { m.Own = own })),
		plan: addAB + `ip link set dev bond0 mtu 1400
ip address delete 2001:db8::2/64 dev eth1
ip address delete 2001:db8::1/64 dev eth1
ip address delete 203.0.113.1 peer 203.0.113.2/32 dev eth1
ip address delete 192.0.2.1/24 dev eth1
ip link set dev eth1 down
ip link set dev eth1 master bond0
ip link set dev eth2 master bond0
ip link set dev bond0 type bond primary eth2
ip link set dev bond0 up
ip link set dev bond0 alias vsrun:port
`,
	}, {
		name: "made with an MTU and a MAC",
		want: abBond(func(b *Bond) { b.MTU, b.MAC = 9000, mac8 }),
		have: noBond(nic("eth1", nil)), // eth2 is missing
		plan: addAB + `ip link set dev bond0 mtu 9000
ip link set dev eth1 down
ip link set dev eth1 master bond0
ip link set dev bond0 address 02:00:00:00:00:08
ip link set dev bond0 up
ip link set dev bond0 alias vsrun:port
`,
	}, {
		name: "the kernel module's",
		want: abBond(func(b *Bond) { b.Members = []string{"eth1"} }),
		have: func() BondState {
			s := noBond(nic("eth1", nil))
			s.Device, s.Idle = &Port{Name: "bond0", Kind: "bond", MTU: 1500}, true
			return s
		}(),
		plan: "ip link delete dev bond0\n" + addAB + `ip link set dev eth1 down
ip link set dev eth1 master bond0
ip link set dev bond0 up
ip link set dev bond0 alias vsrun:port
`,
	}, {
		name: "dead before its mark",
		want: abBond(nil),
		have: bonded(abBond(nil), func(s *BondState) { s.Device.Alias, s.Device.Up = "", false }),
		plan: "ip link set dev bond0 up\nip link set dev bond0 alias vsrun:port\n",
	}, {
		name:   "a member more",
		want:   abBond(func(b *Bond) { b.Members = []string{"eth1", "eth3", "eth2"} }),
		before: up("eth1", "eth2"),
		have:   bonded(abBond(nil), func(s *BondState) { s.Members = append(s.Members, nic("eth3", nil)) }),
		plan:   "ip link set dev eth3 down\nip link set dev eth3 master bond0\n",
	}, {
		name:   "a member less",
		want:   abBond(func(b *Bond) { b.Members = []string{"eth1"} }),
		before: map[string]Before{"eth1": {Up: true}, "eth2": {Up: true, Addresses: own}},
		have:   bonded(abBond(nil), nil),
		plan: `ip link set dev eth2 nomaster
ip link set dev eth2 up
ip address add 192.0.2.1/24 broadcast 192.0.2.255 dev eth2 label eth1:a
ip address add 203.0.113.1 peer 203.0.113.2/32 dev eth2 scope 253 noprefixroute
ip address add 2001:db8::1/64 dev eth2 nodad
ip address add 2001:db8::2/64 dev eth2
`,
	}, {
		name:   "the first less: its MAC goes along",
		want:   abBond(func(b *Bond) { b.Members = []string{"eth3", "eth2"} }),
		before: up("eth1", "eth2"),
		have:   bonded(abBond(nil), func(s *BondState) { s.Members = append(s.Members, nic("eth3", nil)) }),
		plan: `ip link set dev eth3 down
ip link set dev eth3 master bond0
ip link set dev bond0 address 02:00:00:00:01:03
ip link set dev eth1 nomaster
ip link set dev eth1 up
`,
	}, {
		name:   "a leaver half-way out, and one that is another's",
		want:   abBond(func(b *Bond) { b.Members = []string{"eth1"} }),
		before: map[string]Before{"eth1": {Up: true}, "eth2": {Up: true, Addresses: own}, "eth3": {Up: true}},
		have: bonded(abBond(nil), func(s *BondState) {
			s.Members[1] = nic("eth2", func(m *Member) { m.Own = own[:3] })
			s.Members = append(s.Members, nic("eth3", func(m *Member) { m.Up, m.Master = false, "br0" }))
		}),
		plan: "ip address add 2001:db8::2/64 dev eth2\n",
	}, {
		name: "the operator's own stays",
		want: abBond(nil),
		have: bonded(abBond(nil), func(s *BondState) { s.Members = append(s.Members, nic("eth3", slave)) }),
	}, {
		name: "a member out, a member missing",
		want: abBond(func(b *Bond) { b.Members = []string{"eth1", "eth2", "eth3"} }),
		have: bonded(abBond(nil), func(s *BondState) { s.Members[1] = nic("eth2", func(m *Member) { m.Up = false }) }),
		plan: "ip link set dev eth2 master bond0\n",
	}, {
		name: "options changed live",
		want: abBond(func(b *Bond) { b.Miimon, b.PrimaryReselect, b.Primary = 50, "better", "eth1" }),
		have: bonded(abBond(nil), nil),
		plan: "ip link set dev bond0 type bond miimon 50 primary_reselect better\nip link set dev bond0 type bond primary eth1\n",
	}, {
		name: "the delays are miimon's multiples",
		want: abBond(func(b *Bond) { b.Miimon, b.UpDelay = 50, 200 }),
		have: bonded(abBond(func(b *Bond) { b.UpDelay = 200 }), nil),
		plan: "ip link set dev bond0 type bond miimon 50 updelay 200\n",
	}, {
		name: "no primary any more",
		want: abBond(nil),
		have: bonded(abBond(func(b *Bond) { b.Primary = "eth2" }), nil),
		plan: "echo >/sys/class/net/bond0/bonding/primary\n",
	}, {
		name: "a primary that is missing waits",
		want: abBond(func(b *Bond) { b.Primary = "eth2" }),
		have: bonded(abBond(nil), func(s *BondState) { s.Members = s.Members[:1] }),
	}, {
		name: "from carrier to ARP",
		want: abBond(func(b *Bond) { b.ARPInterval, b.ARPTargets = 100, addrs("192.0.2.1") }),
		have: bonded(abBond(nil), nil),
		plan: "ip link set dev bond0 type bond miimon 0 arp_interval 100 arp_ip_target 192.0.2.1\n",
	}, {
		name: "and back",
		want: abBond(nil),
		have: bonded(abBond(func(b *Bond) { b.ARPInterval, b.ARPTargets = 100, addrs("192.0.2.1") }), nil),
		plan: "ip link set dev bond0 type bond miimon 100 updelay 0 downdelay 0 arp_interval 0\n",
	}, {
		name:   "another mode takes the members out, all of them",
		want:   Bond{Name: "bond0", Mode: BalanceXOR, Members: []string{"eth1", "eth4"}, MAC: mac8},
		before: up("eth1", "eth2"),
		have: bonded(abBond(nil), func(s *BondState) {
			s.MAC = mac8
			s.Members = append(s.Members, nic("eth3", slave), nic("eth4", nil))
		}),
		plan: `ip link set dev eth3 nomaster
ip link set dev eth2 nomaster
ip link set dev eth1 nomaster
ip link set dev bond0 down
ip link set dev bond0 type bond mode balance-xor
ip link set dev eth1 master bond0
ip link set dev eth4 down
ip link set dev eth4 master bond0
ip link set dev eth3 master bond0
ip link set dev bond0 address 02:00:00:00:00:08
ip link set dev eth2 up
ip link set dev bond0 up
`,
	}, {
		name: "lacp_rate takes the bond down",
		want: Bond{Name: "bond0", Mode: LACP, Members: []string{"eth1"}, LACPRate: "fast"},
		have: bonded(Bond{Name: "bond0", Mode: LACP, Members: []string{"eth1"}}, nil),
		plan: `ip link set dev eth1 nomaster
ip link set dev bond0 down
ip link set dev bond0 type bond lacp_rate fast
ip link set dev eth1 master bond0
ip link set dev bond0 up
`,
	}, {
		name: "MTU and MAC",
		want: abBond(func(b *Bond) { b.MTU, b.MAC = 1400, mac8 }),
		have: bonded(abBond(nil), nil),
		plan: "ip link set dev bond0 mtu 1400\nip link set dev bond0 address 02:00:00:00:00:08\n",
	}, {
		name: "odd names",
		want: Bond{Name: "b;0", Mode: ActiveBackup, Members: []string{"e 1"}},
		have: BondState{Options: map[string]string{}, Members: []Member{{Port: Port{Name: "e 1", MTU: 1500}}}},
		plan: strings.ReplaceAll(addAB, "bond0", `'b;0'`) + `ip link set dev 'e 1' master 'b;0'
ip link set dev 'b;0' up
ip link set dev 'b;0' alias vsrun:port
`,
	}} {
		t.Run(tt.name, func(t *testing.T) {
			plan, err := DiffBond(tt.want, tt.before, tt.have)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.plan, plan.Script(Place{})); d != "" {
				t.Errorf("the plan (-want +got):\n%s", d)
			}
		})
	}
}

func TestDiffBondRefuses(t *testing.T) {
	device := func(change func(*Port)) BondState {
		s := noBond(nic("eth1", nil))
		s.Device = &Port{Name: "bond0", Kind: "bond"}
		change(s.Device)
		return s
	}
	in := func(change func(*Member)) BondState { return noBond(nic("eth1", change)) }
	for _, tt := range []struct {
		name      string
		have      BondState
		err, cure string
	}{
		{"somebody's bond", device(func(*Port) {}), "bond0 is there already, and is not vsrun's", "use it as it is, with --port bond0, or choose another name"},
		{"a VLAN of ours", device(func(p *Port) { p.Kind, p.Ours = "vlan", true }), "bond0 is there already, and is not vsrun's", "use it as it is, with --port bond0, or choose another name"},
		{"loopback", in(func(m *Member) { m.Loopback = true }), "eth1 cannot be a member of a bond", "choose a device that leads to a network"},
		{"a bond", in(func(m *Member) { m.Kind = "bond" }), "eth1 cannot be a member of a bond", "choose a device that leads to a network"},
		{"a macvlan", in(func(m *Member) { m.Kind = "macvlan" }), "eth1 cannot be a member of a bond", "choose a device that leads to a network"},
		{"another's member", in(func(m *Member) { m.Master = "br0" }), "eth1 is a member of br0", "take it out first: ip link set eth1 nomaster"},
		{"something on it", in(func(m *Member) { m.InUse = true }), "eth1 is in use: interfaces sit on it", "see what sits on it: vsrun ls -o wide; ip -d link; bridge fdb show dev eth1"},
		{"a route", in(func(m *Member) { m.Routed = &Route{To: prefixes("::/0")[0], Dev: "eth1"} }), "eth1 is in use, by the route default dev eth1", "delete it first: ip route delete ::/0 dev eth1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plan, err := DiffBond(abBond(nil), nil, tt.have)
			var refused *Refusal
			if !errors.As(err, &refused) || err.Error() != tt.err || refused.Hint() != tt.cure || plan != nil {
				t.Errorf("got %v, %v, cure %+v", plan, err, refused)
			}
		})
	}
	// Those that are members already may be whatever they are.
	if _, err := DiffBond(abBond(nil), nil, bonded(abBond(nil), func(s *BondState) { s.Members[0].InUse = true })); err != nil {
		t.Error(err)
	}
}

func TestRemoveBond(t *testing.T) {
	own := []OwnAddress{{Prefix: prefixes("192.0.2.1/24")[0]}, {Prefix: prefixes("192.0.2.2/24")[0]}}
	before := map[string]Before{"eth1": {Up: true, Addresses: own}, "eth2": {}}
	for _, tt := range []struct {
		name string
		have BondState
		plan string
		err  string
	}{{
		name: "all of it", have: bonded(abBond(nil), nil),
		plan: `ip link set dev eth2 nomaster
ip link set dev eth1 nomaster
ip link set dev eth1 up
ip address add 192.0.2.1/24 dev eth1
ip address add 192.0.2.2/24 dev eth1
ip link delete dev bond0
`,
	}, {
		name: "nothing", have: noBond(),
	}, {
		name: "the bond is gone, and a member",
		have: noBond(nic("eth1", func(m *Member) { m.Up = false })),
		plan: "ip link set dev eth1 up\nip address add 192.0.2.1/24 dev eth1\nip address add 192.0.2.2/24 dev eth1\n",
	}, {
		name: "a member is out, and half of what it was",
		have: bonded(abBond(nil), func(s *BondState) { s.Members[0] = nic("eth1", func(m *Member) { m.Own = own[:1] }) }),
		plan: "ip link set dev eth2 nomaster\nip address add 192.0.2.2/24 dev eth1\nip link delete dev bond0\n",
	}, {
		name: "a member is another's by now",
		have: bonded(abBond(nil), func(s *BondState) { s.Members[0] = nic("eth1", func(m *Member) { m.Master, m.Up = "br0", false }) }),
		plan: "ip link set dev eth2 nomaster\nip link delete dev bond0\n",
	}, {
		name: "the kernel module's is nobody's",
		have: func() BondState {
			s := noBond()
			s.Device, s.Idle = &Port{Name: "bond0", Kind: "bond"}, true
			return s
		}(),
	}, {
		name: "somebody's", have: bonded(abBond(nil), func(s *BondState) { s.Device.Ours = false }), err: "bond0 is not vsrun's: it is left alone",
	}, {
		name: "a VLAN of ours", have: bonded(abBond(nil), func(s *BondState) { s.Device.Kind = "vlan" }), err: "bond0 is not vsrun's: it is left alone",
	}, {
		name: "in use", have: bonded(abBond(nil), func(s *BondState) { s.InUse = true }), err: "bond0 is in use: interfaces sit on it",
	}} {
		t.Run(tt.name, func(t *testing.T) {
			plan, err := RemoveBond("bond0", before, tt.have)
			if err == nil && tt.err != "" || err != nil && err.Error() != tt.err {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if d := cmp.Diff(tt.plan, plan.Script(Place{})); d != "" {
				t.Errorf("the plan (-want +got):\n%s", d)
			}
		})
	}
}

// What undoes a plan, and what undoes that.
func TestBondPlanReversed(t *testing.T) {
	own := []OwnAddress{{Prefix: prefixes("192.0.2.1/24")[0]}, {Prefix: prefixes("192.0.2.2/24")[0]}}
	plan, err := DiffBond(abBond(func(b *Bond) { b.Primary, b.MAC = "eth1", mac8 }), nil,
		noBond(nic("eth1", func(m *Member) { m.Own, m.MTU = own, 1400 }), nic("eth2", nil)))
	if err != nil {
		t.Fatal(err)
	}
	want := `ip link set dev bond0 alias ''
ip link set dev bond0 down
echo >/sys/class/net/bond0/bonding/primary
ip link set dev eth2 nomaster
ip link set dev eth2 up
ip link set dev eth1 nomaster
ip link set dev eth1 up
ip address add 192.0.2.1/24 dev eth1
ip address add 192.0.2.2/24 dev eth1
ip link set dev bond0 mtu 1500
ip link delete dev bond0
`
	if d := cmp.Diff(want, plan.reversed().Script(Place{})); d != "" {
		t.Errorf("reversed (-want +got):\n%s", d)
	}
	plan, err = DiffBond(Bond{Name: "bond0", Mode: BalanceRR, Members: []string{"eth2"}, MTU: 1300}, map[string]Before{"eth1": {Up: true, Addresses: own}},
		bonded(abBond(nil), nil))
	if err != nil {
		t.Fatal(err)
	}
	want = `ip link set dev bond0 down
ip address delete 192.0.2.2/24 dev eth1
ip address delete 192.0.2.1/24 dev eth1
ip link set dev eth1 down
ip link set dev bond0 address 02:00:00:00:01:01
ip link set dev eth2 nomaster
ip link set dev bond0 mtu 1500
ip link set dev bond0 type bond mode active-backup
ip link set dev bond0 up
ip link set dev eth1 master bond0
ip link set dev eth2 master bond0
`
	if d := cmp.Diff(want, plan.reversed().Script(Place{})); d != "" {
		t.Errorf("reversed (-want +got):\n%s", d)
	}
	// Steps say themselves in words that follow "cannot".
	for _, s := range plan {
		if words := s.String(); words == "" || strings.ToLower(words[:1]) != words[:1] {
			t.Errorf("a step says %q", words)
		}
	}
}
