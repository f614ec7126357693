package runtime

import (
	"net/netip"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v4"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime/service"
)

var exact = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// What is stored is what is loaded, and a record is a document, in JSON and in
// YAML.
func TestRoundTrip(t *testing.T) {
	s := OpenStore(t.TempDir())
	rapid.Check(t, func(t *rapid.T) {
		vs := drawVirtualServer(t)
		if problems := vs.Validate(); len(problems) > 0 {
			t.Fatalf("%+v is none to test with: %v", vs, problems)
		}
		if err := s.save(vs); err != nil {
			t.Fatal(err)
		}
		back, err := s.Load(vs.ID)
		if d := cmp.Diff(vs, back, exact); err != nil || d != "" {
			t.Fatalf("%v (-saved +loaded):\n%s", err, d)
		}
		for _, document := range []string{string(vs.record()), asYAML(t, vs.record())} {
			list, err := readServers(strings.NewReader(document), "f")
			if err != nil || len(list) != 1 {
				t.Fatalf("%v\n%s", err, document)
			}
			if d := cmp.Diff(vs, list[0], exact); d != "" {
				t.Fatalf("the document (-saved +read):\n%s\n%s", d, document)
			}
		}
	})
}

// asYAML writes a record as people would.
func asYAML(t *rapid.T, record []byte) string {
	var node yaml.Node
	if err := yaml.Unmarshal(record, &node); err != nil {
		t.Fatal(err)
	}
	var plain func(*yaml.Node)
	plain = func(n *yaml.Node) {
		n.Style = 0
		for _, c := range n.Content {
			plain(c)
		}
	}
	plain(&node)
	text, err := yaml.Marshal(&node)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func some[T any](t *rapid.T, label string, g *rapid.Generator[T], most int) []T {
	list := rapid.SliceOfN(g, 0, most).Draw(t, label)
	if len(list) == 0 {
		return nil
	}
	return list
}

func drawVirtualServer(t *rapid.T) VirtualServer {
	label := rapid.StringMatching(`[A-Za-z]([A-Za-z0-9-]{0,20}[a-z])?`)
	// No program is given a NUL; U+0085 ends a line and U+FEFF a document in YAML.
	word := rapid.Map(rapid.String(), func(s string) string {
		return "x" + strings.NewReplacer("\x00", "", "\u0085", "", "\ufeff", "").Replace(s)
	})
	vs := VirtualServer{
		ID:       rapid.IntRange(1, MaxID).Draw(t, "id"),
		Name:     rapid.OneOf(rapid.Just(""), label).Draw(t, "name"),
		Disabled: rapid.Bool().Draw(t, "disabled"),
		DNS: service.DNS{
			Servers: some(t, "servers", rapid.SampledFrom([]netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53"), netip.MustParseAddr("fe80::53%eth0")}), 3),
			Search:  some(t, "search", label, 3),
		},
		Share: some(t, "share", rapid.SampledFrom([]string{"/run/dbus", "/tmp/a b", "/dev/shm/\x01", "/var/tmp/ß"}), 1),
	}
	for _, path := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"/etc/a", "/run/ß"}), 0, 2, rapid.ID).Draw(t, "files") {
		vs.Files = append(vs.Files, service.File{Path: path, Content: word.Draw(t, "content"), Mode: rapid.SampledFrom([]string{"", "600"}).Draw(t, "mode")})
	}
	free := []string{"192.0.2.8/24", "198.51.100.8/31", "203.0.113.8/32", "2001:db8::8/64", "2001:db8:1::8/128"}
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"eth0", "lan", "ß.1_", "no", "8", "~a"}), 0, 3, rapid.ID).Draw(t, "interfaces") {
		i := plumbing.Interface{
			Name: name,
			Port: rapid.SampledFrom([]string{"eth1", "bond0", "1e3", "null"}).Draw(t, "port"),
			MTU:  rapid.SampledFrom([]int{0, 1280, 65535}).Draw(t, "mtu"),
		}
		if rapid.Bool().Draw(t, "has a MAC") {
			i.MAC = plumbing.DeriveMAC("", "", name)
		}
		n := rapid.IntRange(0, len(free)).Draw(t, "addresses")
		for _, a := range free[:n] {
			i.Addresses = append(i.Addresses, netip.MustParsePrefix(a))
		}
		if n > 0 && free[0] == "192.0.2.8/24" && rapid.Bool().Draw(t, "has a gateway") {
			i.Gateways = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1")}
		}
		free = free[n:]
		vs.Interfaces = append(vs.Interfaces, i)
	}
	if len(vs.Interfaces) > 0 && rapid.Bool().Draw(t, "has a route") {
		vs.Routes = []plumbing.Route{
			{To: netip.MustParsePrefix("198.18.0.0/15"), Dev: vs.Interfaces[0].Name, Table: 4294967295, Metric: 4294967295, Realm: 65535},
			{To: netip.MustParsePrefix("2001:db8:7::/48"), Via: netip.MustParseAddr("fe80::1"), Dev: vs.Interfaces[0].Name},
		}
	}
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"smbd", "web.1", "9", "true"}), 0, 3, rapid.ID).Draw(t, "services") {
		vs.Services = append(vs.Services, service.Service{
			Name:    name,
			Command: append([]string{"x"}, some(t, "arguments", word, 3)...),
			Restart: rapid.SampledFrom([]service.Restart{service.RestartAlways, service.RestartOnFailure, service.RestartNever}).Draw(t, "restart"),
			Private: some(t, "private", rapid.SampledFrom([]string{"/run/samba", "/var/lib/samba", "/srv/a b"}), 1),
		})
	}
	return vs
}
