package plumbing

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiffOfMoves(t *testing.T) {
	on2 := func(s *State) {
		s.Ports["eth2"] = Port{Name: "eth2", Index: 4, MAC: mac9, MTU: 1500, Up: true}
		s.Features.LiveRename = true
	}
	route := Route{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1"), Dev: "eth0"}
	want := eth0(func(i *Interface) { i.Port, i.Gateways = "eth2", addrs("192.0.2.1") })
	const (
		ask   = "# asked of the segment first: is anybody at 192.0.2.8 on eth2?\n"
		aside = "ip -n vs8 link set dev eth0 name 'eth0~'\n"
		fresh = `ip link add link eth2 name eth0 address 02:00:00:00:00:08 mtu 1500 netns vs8 type macvlan mode bridge
ip -n vs8 link set dev eth0 alias vsrun:vs8/eth0
ip -n vs8 link set dev eth0 up
ip -n vs8 address add 192.0.2.8/24 broadcast + dev eth0
`
		by = "default via 192.0.2.1 dev eth0 proto 118\n"
	)
	told := announced("192.0.2.8", "eth0", mac8)
	gone := "ip -n vs8 address delete 192.0.2.8/24 dev 'eth0~'\n" + told + "ip -n vs8 link delete dev 'eth0~'\n" + told
	for _, tt := range []struct {
		name string
		have func(*State)
		plan string
	}{{
		name: "to another port",
		have: func(s *State) { on2(s); s.Routes = []Route{route} },
		plan: ask + aside + fresh + "ip -n vs8 route replace " + by + gone,
	}, {
		name: "where links that are up keep their names",
		have: func(s *State) { on2(s); s.Features.LiveRename = false; s.Routes = []Route{route} },
		plan: ask + "ip -n vs8 route delete " + by + "ip -n vs8 link set dev eth0 down\n" + aside + fresh + "ip -n vs8 route add " + by + gone,
	}, {
		name: "killed after the renaming",
		have: func(s *State) {
			on2(s)
			s.Routes = []Route{route}
			*s = s.renamed(renameLink{"eth0", "eth0~"})
		},
		plan: fresh + "ip -n vs8 route replace " + by + gone,
	}, {
		name: "killed when the new one had everything",
		have: func(s *State) {
			on2(s)
			old := s.Links[1]
			old.Name, old.Index = "eth0~", 3
			s.Links[1].Parent = 4
			s.Links = append(s.Links, old)
			s.Addresses = append(s.Addresses, Address{Dev: "eth0~", Prefix: s.Addresses[0].Prefix})
			s.Routes = []Route{route}
		},
		plan: gone,
	}, {
		name: "killed on the way from there: two cannot have one MAC on a port",
		have: func(s *State) {
			on2(s)
			s.Links[1].Parent = 4
			s.Routes = []Route{route}
			*s = s.renamed(renameLink{"eth0", "eth0~"})
		},
		plan: "ip -n vs8 route delete " + strings.Replace(by, "eth0", "'eth0~'", 1) + "ip -n vs8 address delete 192.0.2.8/24 dev 'eth0~'\n" +
			"ip -n vs8 link set dev 'eth0~' down\nip -n vs8 link delete dev 'eth0~'\n" +
			strings.Replace(fresh, "ip -n vs8 address", "# asked of the segment first: is anybody at 192.0.2.8 on eth0?\nip -n vs8 address", 1) +
			"ip -n vs8 route add " + by + told,
	}} {
		t.Run(tt.name, func(t *testing.T) {
			plan, err := Diff(vs8, want, present(tt.have))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.plan, plan.Script(vs8)); d != "" {
				t.Errorf("the plan (-want +got):\n%s", d)
			}
		})
	}
}
