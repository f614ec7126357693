package runtime

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime/service"
)

const machine = "0123456789abcdef0123456789abcdef"

// server is a virtual server with an interface on eth1 for each list of
// addresses.
func server(id int, name string, addresses ...[]string) VirtualServer {
	vs := VirtualServer{ID: id, Name: name}
	for k, words := range addresses {
		i := plumbing.Interface{Name: "eth" + string(rune('0'+k)), Port: "eth1"}
		for _, w := range words {
			i.Addresses = append(i.Addresses, netip.MustParsePrefix(w))
		}
		vs.Interfaces = append(vs.Interfaces, i)
	}
	return vs
}

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		id                    int
		name                  string
		title, text, netnsFor string
	}{
		{8, "", "vs8", "vs8", "vs8"},
		{8, "vs8", "vs8", "vs8", "vs8"},
		{8, "finance", "finance", "vs8 (finance)", "vs8"},
		{4094, "a", "a", "vs4094 (a)", "vs4094"},
	} {
		vs := VirtualServer{ID: tt.id, Name: tt.name}
		if vs.Title() != tt.title || vs.String() != tt.text || vs.Namespace() != tt.netnsFor {
			t.Errorf("%d %q: got %q, %q, %q", tt.id, tt.name, vs.Title(), vs.String(), vs.Namespace())
		}
	}
}

func TestValidate(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, tt := range []struct {
		name     string
		vs       VirtualServer
		problems string // a line each
	}{
		{"the least", VirtualServer{ID: 1}, ""},
		{"the highest", VirtualServer{ID: MaxID}, ""},
		{"too low", VirtualServer{ID: 0}, "id: id is missing, or 0: it is 1 to 4094"},
		{"too high", VirtualServer{ID: MaxID + 1}, "id: id 4095 is out of range: 1 to 4094"},
		{"its own name", server(8, "vs8"), ""},
		{"longest name", server(8, long), ""},
		{"names", server(8, "A-b-7"), ""},
		{"digits and more", server(8, "8a"), ""},
		{"name too long", server(8, long+"a"), `name: name "` + long + `a" is not a host name: letters, digits and hyphens, at most 63`},
		{"hyphen in front", server(8, "-a"), `name: name "-a" is not a host name: letters, digits and hyphens, at most 63`},
		{"hyphen at the end", server(8, "a-"), `name: name "a-" is not a host name: letters, digits and hyphens, at most 63`},
		{"dot", server(8, "a.b"), `name: name "a.b" is not a host name: letters, digits and hyphens, at most 63`},
		{"line feed", server(8, "a\n"), `name: name "a\n" is not a host name: letters, digits and hyphens, at most 63`},
		{"letters of others", server(8, "é"), `name: name "é" is not a host name: letters, digits and hyphens, at most 63`},
		{"a number", server(8, "9"), `name: name "9" looks like another virtual server's number`},
		{"its own number", server(8, "8"), `name: name "8" looks like another virtual server's number`},
		{"another one's name", server(8, "vs9"), `name: name "vs9" looks like another virtual server's number`},
		{"another one's name, in capitals", server(8, "VS9"), `name: name "VS9" looks like another virtual server's number`},
		{"no name servers", VirtualServer{ID: 8, DNS: service.DNS{Servers: []netip.Addr{{}, netip.IPv6Unspecified(), netip.MustParseAddr("fe80::1%eth0")}}},
			"dns.servers[0]: invalid IP cannot be a name server\ndns.servers[1]: :: cannot be a name server"},
		{"domains", VirtualServer{ID: 8, DNS: service.DNS{Search: []string{"example.test", "a", "_tcp.example.test.", "a..b", "", ".", "a b", "-a", strings.Repeat("a.", 127)}}},
			"dns.search[3]: \"a..b\" is not a domain\ndns.search[4]: \"\" is not a domain\ndns.search[5]: \".\" is not a domain\n" +
				"dns.search[6]: \"a b\" is not a domain\ndns.search[7]: \"-a\" is not a domain\ndns.search[8]: \"" + strings.Repeat("a.", 127) + "\" is not a domain"},
		{"shares", VirtualServer{ID: 8, Share: []string{"/run/dbus", "/etc/hosts", "/run", "/run/dbus"}},
			"share[1]: share \"/etc/hosts\" is seen anyway: only what is below /run, /tmp, /var/tmp or /dev has to be shared\n" +
				"share[2]: share \"/run\" is too much: a share is a path below /run, /tmp, /var/tmp or /dev\n" +
				"share[3]: share \"/run/dbus\" is there twice"},
		{"files", VirtualServer{ID: 8, Files: []service.File{{Path: "/etc/hosts", Mode: "rw"}, {Path: "/srv/a"}},
			Services: []service.Service{{Name: "a", Command: []string{"a"}, Private: []string{"/srv"}}}},
			"files[0].path: path \"/etc/hosts\" is the virtual server's own anyway, and says what name and dns say\n" +
				"files[0].mode: mode \"rw\" is not an octal number up to 777\n" +
				"files[1].path: path \"/srv/a\" is in the private directory /srv, where services write"},
		{"all at once", VirtualServer{
			ID: -1, Name: "a b", Share: []string{"a"},
			Network:  plumbing.Network{Interfaces: []plumbing.Interface{{Name: "lo", Port: "eth1"}}, Routes: []plumbing.Route{{}}},
			DNS:      service.DNS{Search: []string{"a b"}},
			Services: []service.Service{{Name: "init"}},
		}, `id: id -1 is out of range: 1 to 4094
name: name "a b" is not a host name: letters, digits and hyphens, at most 63
interfaces[0].name: interface name "lo" is taken by the kernel
routes[0].to: a route has no destination
share[0]: share "a" is not an absolute path
services[0].name: name "init" is the name of the virtual server's own init
services[0].command: command is missing
dns.search[0]: "a b" is not a domain`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var lines []string
			for _, p := range tt.vs.Validate() {
				lines = append(lines, p.Path+": "+p.Err.Error())
			}
			if d := cmp.Diff(tt.problems, strings.Join(lines, "\n")); d != "" {
				t.Errorf("the problems (-want +got):\n%s", d)
			}
		})
	}
}

func TestConflict(t *testing.T) {
	first := server(8, "finance", []string{"192.0.2.8/24", "2001:db8::8/64"}, []string{"198.51.100.8/24"})
	derived := first.resolved(machine).Interfaces[0].MAC
	on := func(port string, vs VirtualServer) VirtualServer {
		for k := range vs.Interfaces {
			vs.Interfaces[k].Port = port
		}
		return vs
	}
	with := func(mac plumbing.MAC, vs VirtualServer) VirtualServer {
		vs.Interfaces[0].MAC = mac
		return vs
	}
	given := plumbing.MAC{2, 0, 0, 0, 0, 8}
	for _, tt := range []struct {
		name        string
		one, other  VirtualServer
		want, wantB string // the other way round, where it says something else
	}{
		{name: "strangers", one: first, other: server(9, "sales", []string{"192.0.2.9/24", "2001:db8::9/64"})},
		{name: "without names, which are two", one: server(8, ""), other: server(9, "")},
		{name: "one name", one: first, other: server(9, "finance"), want: "name finance"},
		{name: "one name, in capitals", one: first, other: server(9, "FINANCE"), want: "name finance", wantB: "name FINANCE"},
		{name: "one address", one: first, other: server(9, "", []string{"192.0.2.8/24"}), want: "address 192.0.2.8 on port eth1"},
		{name: "one address, of another size", one: first, other: server(9, "", []string{"192.0.2.8/32"}), want: "address 192.0.2.8 on port eth1"},
		{name: "one address, of another interface", one: first, other: server(9, "", nil, []string{"2001:db8::8/64"}), want: "address 2001:db8::8 on port eth1"},
		{name: "one address on two ports", one: first, other: on("eth2", server(9, "", []string{"192.0.2.8/24"}))},
		{name: "one MAC, given", one: with(given, server(8, "", nil)), other: with(given, server(9, "", nil)), want: "MAC 02:00:00:00:00:08"},
		{name: "one MAC, given and derived", one: first, other: with(derived, server(9, "", nil)), want: "MAC " + derived.String()},
		{name: "one MAC on two ports", one: with(given, server(8, "", nil)), other: on("eth2", with(given, server(9, "", nil))), want: "MAC 02:00:00:00:00:08"},
		{name: "interfaces of one name", one: server(8, "", nil), other: server(9, "", nil)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			one, other := tt.one, tt.other
			if got := conflict(one, other); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if tt.wantB == "" {
				tt.wantB = tt.want
			}
			if got := conflict(other, one); got != tt.wantB {
				t.Errorf("the other way round: got %q, want %q", got, tt.wantB)
			}
		})
	}
}

// conflict says what one wants that the other has.
func conflict(one, other VirtualServer) string {
	others := claims{}
	others.add(other, machine)
	if err := others.refuse(one, machine); err != nil {
		_, what, _ := strings.Cut(err.Error(), " already has ")
		return what
	}
	others.remove(other, machine)
	if len(others) > 0 {
		return "what has gone is kept"
	}
	return ""
}

// The addresses that are derived are not put into what is stored.
func TestResolvedIsACopy(t *testing.T) {
	vs := server(8, "", nil, nil)
	vs.Interfaces[1].MAC = plumbing.MAC{2, 9}
	got := vs.resolved(machine)
	if !vs.Interfaces[0].MAC.IsZero() {
		t.Error("the original was changed")
	}
	want := plumbing.DeriveMAC(machine, "vs8", "eth0")
	if got.Interfaces[0].MAC != want || got.Interfaces[1].MAC != (plumbing.MAC{2, 9}) {
		t.Errorf("got %s and %s", got.Interfaces[0].MAC, got.Interfaces[1].MAC)
	}
	// A new name is no new address.
	vs.Name = "finance"
	if vs.resolved(machine).Interfaces[0].MAC != want {
		t.Error("the MAC depends on the virtual server's name")
	}
}
