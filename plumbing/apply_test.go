package plumbing

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/test/lab"
)

// everything is a network with all there is.
func everything() Network {
	return Network{
		Interfaces: []Interface{{
			Name: "eth0", Port: "eth1", MAC: mac8,
			Addresses: prefixes("192.0.2.8/24", "192.0.2.108/24", "2001:db8::8/64"),
			Gateways:  addrs("192.0.2.1", "2001:db8::1"),
		}, {
			Name: "a-name-of-15-by", Port: "eth2", MAC: mac9, MTU: 1400,
			Addresses: prefixes("203.0.113.8/31", "198.51.100.8/32", "2001:db8:1::8/128"),
			Gateways:  addrs("203.0.113.9", "fe80::1"), Table: 3000, Realm: 8, Metric: 7,
		}, {
			Name: "lan", Port: "eth1", MAC: MAC{2, 7},
		}},
		Routes: []Route{
			{To: netip.MustParsePrefix("198.51.100.128/25"), Via: netip.MustParseAddr("192.0.2.7"), Table: 1000, Metric: 50, Realm: 3},
			{To: netip.MustParsePrefix("198.51.100.128/25"), Via: netip.MustParseAddr("192.0.2.6")},
			{To: netip.MustParsePrefix("203.0.113.128/32"), Dev: "lan"},
			{To: netip.MustParsePrefix("2001:db8:7::/48"), Dev: "lan", Table: 1000, Metric: 4294967295},
			{To: netip.MustParsePrefix("2001:db8:8::8/128"), Via: netip.MustParseAddr("fe80::9"), Dev: "lan", Metric: 1024},
		},
	}
}

// These share a host, since making one takes longer than most of them. Each must
// leave it as it was.
func TestApply(t *testing.T) {
	host := ports(t)
	for _, tt := range []struct {
		name string
		test func(*testing.T, *lab.Host)
	}{
		{"makes networks", makesNetworks},
		{"undoes a change", undoesAChange},
		{"undoes a creation", undoesACreation},
		{"says what failed", saysWhatFailed},
		{"is given up", isGivenUp},
		{"completes after a crash", completesAfterACrash},
		{"mends drift", mendsDrift},
		{"forces", forces},
		{"frees the MAC", freesTheMAC},
		{"outwaits the dying", outwaitsTheDying},
		{"removes what is there", removesWhatIsThere},
		{"observes ports", observesPorts},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, host) })
		if leaks := host.Leaks(); leaks != "" {
			t.Fatalf("%s left:\n%s", tt.name, leaks)
		}
	}
}

func makesNetworks(t *testing.T, host *lab.Host) {
	for _, tt := range []struct {
		name string
		want Network
	}{
		{"loopback alone", Network{}},
		{"an interface alone", Network{Interfaces: []Interface{{Name: "eth0", Port: "eth1", MAC: mac8}}}},
		{"a name that a port has", Network{Interfaces: []Interface{{Name: "eth2", Port: "eth1", MAC: mac8, Addresses: prefixes("192.0.2.8/24")}}}},
		{"mtu below IPv6's", Network{Interfaces: []Interface{{Name: "eth0", Port: "eth1", MAC: mac8, MTU: 68, Addresses: prefixes("192.0.2.8/24")}}}},
		{"everything", everything()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if problems := tt.want.Validate(); len(problems) > 0 {
				t.Fatalf("no network to test with: %v", problems)
			}
			h := open(t, vs8)
			if err := planFor(t, h, tt.want).Apply(t.Context(), h); err != nil {
				t.Fatal(err)
			}
			holds(t, host, vs8, tt.want)
			// By the handle that made it, and by another.
			again := open(t, vs8)
			for _, h := range []*Handle{h, again} {
				if plan := planFor(t, h, tt.want); len(plan) > 0 {
					t.Errorf("there is still to do:\n%s", plan.Script(vs8))
				}
				h.Close()
			}
			sysctls := firstSysctls
			if slices.ContainsFunc(tt.want.Interfaces, Interface.hasIPv6) {
				sysctls = serverSysctls
			}
			for _, c := range sysctls {
				if got := host.In("vs8").Run(t, "cat", c.path()); got != c.value+"\n" {
					t.Errorf("%s is %s, want %s", c.key, got, c.value)
				}
			}
			remove(t, vs8)
			if leaks := host.Leaks(); leaks != "" {
				t.Errorf("this is left:\n%s", leaks)
			}
		})
	}
}

// live are changes of a namespace that is in use.
var live = []struct {
	name string
	to   func(*Network)
}{
	{"addresses and routes", func(n *Network) {
		n.Interfaces[0].Addresses = prefixes("192.0.2.8/24", "192.0.2.9/24", "2001:db8::9/64")
		n.Interfaces[0].Gateways = addrs("192.0.2.2", "2001:db8::2")
		n.Routes[1].Metric = 7
		n.Routes[2].Realm = 9
		n.Routes = n.Routes[:4]
	}},
	{"mtu", func(n *Network) { n.Interfaces[0].MTU, n.Interfaces[1].MTU = 1300, 0 }},
	{"an interface made anew", func(n *Network) { n.Interfaces[0].MAC, n.Interfaces[0].Port = MAC{2, 6}, "eth2" }},
	{"an interface gone", func(n *Network) { n.Interfaces, n.Routes = n.Interfaces[1:], n.Routes[2:] }},
	{"IPv6 address with another prefix", func(n *Network) { n.Interfaces[0].Addresses[2] = netip.MustParsePrefix("2001:db8::8/48") }},
	{"no addresses", func(n *Network) {
		n.Interfaces[0].Addresses, n.Interfaces[0].Gateways, n.Routes = nil, nil, n.Routes[2:]
	}},
	{"another interface", func(n *Network) {
		n.Interfaces = append(n.Interfaces, Interface{Name: "new", Port: "eth2", MAC: MAC{2, 5}, Addresses: prefixes("198.51.100.9/32")})
	}},
}

// changedNetwork is everything, but for one change.
func changedNetwork(change func(*Network)) Network {
	n := everything()
	change(&n)
	return n
}

// Wherever a plan fails, what was there before is there again, exactly.
func undoesAChange(t *testing.T, host *lab.Host) {
	h := enable(t, vs8, everything())
	before := look(t, host, vs8)
	for _, tt := range live {
		t.Run(tt.name, func(t *testing.T) {
			want := changedNetwork(tt.to)
			plan := planFor(t, h, want)
			for k := range len(plan) + 1 {
				fault := []Step{failing{}, impossible}[k%2]
				broken := slices.Insert(slices.Clone(plan), k, fault)
				err := broken.Apply(t.Context(), h)
				if err == nil || !strings.HasPrefix(err.Error(), "cannot "+fault.String()+" in vs8: ") || strings.Contains(err.Error(), "\n") {
					t.Errorf("step %d failed, and the error is: %v", k, err)
				}
				if d := cmp.Diff(before, look(t, host, vs8)); d != "" {
					t.Fatalf("undone after step %d, %s (-before +after):\n%s", k, fault, d)
				}
			}
			apply(t, h, want)
			holds(t, host, vs8, want)
			apply(t, h, everything())
			holds(t, host, vs8, everything())
			before = look(t, host, vs8)
		})
	}
}

// Wherever the making of a namespace fails, nothing of it is left.
func undoesACreation(t *testing.T, host *lab.Host) {
	want := eth0(func(i *Interface) {
		i.Addresses, i.Gateways = prefixes("192.0.2.8/24", "2001:db8::8/64"), addrs("192.0.2.1", "2001:db8::1")
	})
	for k, steps := 0, 1; k < steps; k++ {
		h := open(t, vs8)
		plan := planFor(t, h, want)
		steps = len(plan) + 1
		plan = slices.Insert(plan, k, Step(failing{}))
		if err := plan.Apply(t.Context(), h); err == nil || err.Error() != "cannot go on in vs8: this is a test" || !errors.Is(err, errTest) {
			t.Errorf("step %d failed, and the error is: %v", k, err)
		}
		if h.Namespace() != nil {
			t.Errorf("step %d failed, and the namespace is still held", k)
		}
		h.Close()
		if leaks := host.Leaks(); leaks != "" {
			t.Fatalf("step %d failed, and this is left:\n%s", k, leaks)
		}
	}
}

// What a person could get wrong only where the kernel knows better.
func saysWhatFailed(t *testing.T, host *lab.Host) {
	h := enable(t, vs8, everything())
	before := look(t, host, vs8)
	for _, tt := range []struct {
		step Step
		err  string
	}{
		{setRoute{Route: Route{To: netip.MustParsePrefix("203.0.113.0/25"), Via: netip.MustParseAddr("198.51.100.77"), Dev: "eth0"}},
			"cannot add route 203.0.113.0/25 via 198.51.100.77 dev eth0 in vs8: nexthop has invalid gateway"},
		{setMTU{"eth0", 9000, 1500}, "cannot set mtu 9000 on eth0 in vs8: invalid argument"},
		{upLink{dev: "nothing"}, "cannot bring up nothing in vs8: no interface nothing: no such device"},
		{addLink{dev: "eth0", form: form{Macvlan, Bridge, tag{}}, port: "eth1", portIndex: observe(t, h, everything()).Ports["eth1"].Index, mac: MAC{2, 6}, mtu: 1500}, "cannot add macvlan eth0 on port eth1 in vs8: file exists"},
		{addLink{dev: "eth9", form: form{Macvlan, Bridge, tag{}}, port: "eth9", portIndex: 9999, mac: MAC{2, 6}, mtu: 1500}, "cannot add macvlan eth9 on port eth9 in vs8: no such device"},
	} {
		plan := append(planFor(t, h, changedNetwork(live[0].to)), tt.step)
		if err := plan.Apply(t.Context(), h); err == nil || err.Error() != tt.err {
			t.Errorf("got  %v\nwant %s", err, tt.err)
		}
		if d := cmp.Diff(before, look(t, host, vs8)); d != "" {
			t.Fatalf("undone after %q (-before +after):\n%s", tt.err, d)
		}
	}
}

// Giving up between two steps is a failure like another.
func isGivenUp(t *testing.T, host *lab.Host) {
	h := enable(t, vs8, everything())
	before := look(t, host, vs8)
	want := changedNetwork(live[0].to)
	plan := planFor(t, h, want)
	for k := range len(plan) {
		ctx, cancel := context.WithCancelCause(t.Context())
		err := slices.Insert(slices.Clone(plan), k, Step(cancelling{cancel})).Apply(ctx, h)
		if !errors.Is(err, errTest) {
			t.Errorf("given up before step %d: %v", k, err)
		}
		if d := cmp.Diff(before, look(t, host, vs8)); d != "" {
			t.Fatalf("given up before step %d (-before +after):\n%s", k, d)
		}
	}
	// With all done there is nothing left to give up.
	ctx, cancel := context.WithCancelCause(t.Context())
	if err := append(plan, cancelling{cancel}).Apply(ctx, h); err != nil {
		t.Errorf("all was done, and yet: %v", err)
	}
	apply(t, h, everything())
	done, cancelled := context.WithCancel(t.Context())
	cancelled()
	if err := plan.Apply(done, h); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	holds(t, host, vs8, everything())
}

// Wherever a change is cut off by a crash, the next look completes it.
func completesAfterACrash(t *testing.T, host *lab.Host) {
	h := enable(t, vs8, everything())
	want := changedNetwork(func(n *Network) {
		for _, l := range live[:2] {
			l.to(n)
		}
	})
	for k := range planFor(t, h, want) {
		// Nobody undoes after a crash.
		if err := planFor(t, h, want)[:k].Force(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		again := open(t, vs8)
		apply(t, again, want)
		holds(t, host, vs8, want)
		again.Close()
		apply(t, h, everything())
	}
	holds(t, host, vs8, everything())
}

// What somebody changed by hand is mended, and what is not ours is left alone.
func mendsDrift(t *testing.T, host *lab.Host) {
	enable(t, vs8, everything())
	host.Run(t, "sh", "-ec", `
		ip -n vs8 link add veth7 type veth peer name veth8
		ip -n vs8 link set veth7 up
		ip -n vs8 address add 198.51.100.77/32 dev veth7
		ip -n vs8 address add 198.51.100.78/32 dev lo
		ip -n vs8 address add 203.0.113.210/32 dev eth0 valid_lft 1000 preferred_lft 1000
		ip -n vs8 route add 203.0.113.64/26 dev veth7 proto static
		ip -n vs8 route add unreachable 203.0.113.128/26
		ip -n vs8 rule add pref 77 to 203.0.113.64/26 table 77`)
	before := look(t, host, vs8)
	for _, drift := range []string{
		"ip -n vs8 link set lo down",
		"ip -n vs8 link set lo alias ''; ip -n vs8 link set lo alias vsrun:vs8",
		"ip -n vs8 link set eth0 down",
		"ip -n vs8 link set eth0 mtu 1300",
		"ip -n vs8 link set a-name-of-15-by mtu 1300",
		"ip -n vs8 link set eth0 alias ''",
		"ip -n vs8 address delete 192.0.2.108/24 dev eth0",
		"ip -n vs8 address delete 2001:db8::8/64 dev eth0",
		"ip -n vs8 route delete default",
		"ip -n vs8 -6 route delete default dev eth0",
		"ip -n vs8 route delete 198.51.100.128/25 table 1000",
		"ip -n vs8 route replace default via 192.0.2.99 proto 118",
		"ip -n vs8 route add 203.0.113.192/26 via 192.0.2.1 proto 118",
		"ip -n vs8 route flush table main proto 118; ip -n vs8 -6 route flush table main proto 118",
		"ip netns exec vs8 sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv4/conf/all/arp_ignore'",
	} {
		host.Run(t, "sh", "-ec", drift)
		h := open(t, vs8)
		apply(t, h, everything())
		h.Close()
		if d := cmp.Diff(before, look(t, host, vs8)); d != "" {
			t.Errorf("%s\nmended (-before +after):\n%s", drift, d)
			before = look(t, host, vs8)
		}
	}
	if got := host.In("vs8").Run(t, "cat", "/proc/sys/net/ipv4/conf/all/arp_ignore"); got != "1\n" {
		t.Errorf("arp_ignore is %s", got)
	}
}

// Force does what can be done, and tells all that could not.
func forces(t *testing.T, host *lab.Host) {
	h := enable(t, vs8, everything())
	err := Plan{failing{}, upLink{dev: "nothing"}, delLink{dev: "gone already"}, delLink{dev: "lan"}, impossible}.Force(t.Context(), h)
	want := `cannot go on in vs8: this is a test
cannot bring up nothing in vs8: no interface nothing: no such device
cannot add route 203.0.113.0/24 via 198.51.100.77 dev lo in vs8: nexthop has invalid gateway`
	if err == nil || err.Error() != want || !errors.Is(err, errTest) {
		t.Errorf("got %v, want %s", err, want)
	}
	if r := host.TryRun("ip", "-n", "vs8", "link", "show", "lan"); r.Code == 0 {
		t.Errorf("one step failed, and the others were not done: %v", r)
	}
}

var addresses = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// What the kernel says of ports is what Diff refuses or takes.
func observesPorts(t *testing.T, host *lab.Host) {
	host.Run(t, "sh", "-ec", `
		ip link add br7 type bridge
		ip link set eth2 master br7
		ip link set eth1 mtu 1400
		ip address add 192.0.2.3/24 dev eth1
		ip address add 2001:db8::3/64 dev eth1 nodad
		ip link property add dev eth1 altname office`)
	t.Cleanup(func() {
		host.Run(t, "sh", "-ec", `
			ip link delete br7
			ip link set eth1 mtu 1500
			ip address flush dev eth1 scope global
			ip link property del dev eth1 altname office`)
	})
	h := at(t, vs8)
	want := Network{}
	for _, name := range []string{"eth1", "office", "eth2", "br7", "lo", "eth9"} {
		want.Interfaces = append(want.Interfaces, Interface{Name: name, Port: name})
	}
	have := observe(t, h, want)
	index := have.Ports["eth1"].Index
	for name, p := range have.Ports {
		if p.Index == 0 {
			t.Errorf("%s has no index", name)
		}
		if p.MAC.IsZero() && name != "lo" {
			t.Errorf("%s has no MAC", name)
		}
		p.Index, p.MAC = 0, MAC{}
		p.Addresses = slices.DeleteFunc(p.Addresses, netip.Addr.IsLinkLocalUnicast) // a random MAC's
		if len(p.Addresses) == 0 {
			p.Addresses = nil
		}
		have.Ports[name] = p
	}
	if d := cmp.Diff(map[string]Port{
		"eth1":   {Name: "eth1", MTU: 1400, Up: true, Kind: "veth", Addresses: addrs("192.0.2.3", "2001:db8::3")},
		"office": {Name: "office", MTU: 1400, Up: true, Kind: "veth", Addresses: addrs("192.0.2.3", "2001:db8::3")},
		"eth2":   {Name: "eth2", MTU: 1500, Up: true, Kind: "veth", Master: "br7", MasterKind: "bridge"},
		"br7":    {Name: "br7", MTU: 1500, Kind: "bridge"},
		"lo":     {Name: "lo", MTU: 65536, Up: true, Kind: "device", Loopback: true, NoEthernet: true, Addresses: addrs("127.0.0.1", "::1")},
	}, have.Ports, addresses, cmp.AllowUnexported(Port{}, origin{})); d != "" {
		t.Errorf("the ports (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"br7", "eth1", "eth2"}, have.HostLinks); d != "" {
		t.Errorf("the host's devices (-want +got):\n%s", d)
	}
	if index != observe(t, h, Network{Interfaces: []Interface{{Port: "office"}}}).Ports["office"].Index {
		t.Error("a port and its other name are not one")
	}
}
