package plumbing

import (
	"strings"
	"testing"
)

func TestOrigin(t *testing.T) {
	for _, o := range []origin{
		{name: "eth1", mac: mac8, mtu: 1500, up: true},
		{name: "enp3s0f1v17", mac: mac8, mtu: 9000, alias: "rack 7, left  side "},
	} {
		mark, got := cutOrigin("vsrun:vs8/eth0 " + o.String())
		if want := strings.TrimSuffix(o.alias, " "); mark != "vsrun:vs8/eth0" || got.alias != want {
			t.Errorf("%q is of %q, and was called %q", o, mark, got.alias)
		}
		if got.alias = o.alias; got != o {
			t.Errorf("%q is read as %q", o, got)
		}
	}
	for _, alias := range []string{"", "uplink", "vsrun:vs8/eth0", "vsrun:vlan", "second floor, left side of it",
		"vsrun:vs8/eth0 eth1 02:00:00:00:00:08 much up", "vsrun:vs8/eth0 eth1 nobody 1500 up", "vsrun:vs8/eth0 eth1"} {
		if mark, o := cutOrigin(alias); mark != alias || o != (origin{}) {
			t.Errorf("%q is %q and %+v", alias, mark, o)
		}
	}
}

func TestDevicePlan(t *testing.T) {
	want := Network{Interfaces: []Interface{{Name: "eth0", Port: "eth1", Kind: Device, MTU: 1400, Addresses: prefixes("192.0.2.8/24")}}}
	have := absent()
	have.Ports = map[string]Port{"eth1": {Name: "eth1", Index: 3, MAC: mac8, MTU: 1500, Up: true, Alias: "it's mine"}}
	plan, err := Diff(vs8, want, have)
	if err != nil {
		t.Fatal(err)
	}
	script := plan.WithoutProbe().Script(vs8)
	for _, line := range []string{
		"ip link set dev eth1 alias 'vsrun:vs8/eth0 eth1 02:00:00:00:00:08 1500 up it'\\''s mine'\nip link set dev eth1 down netns vs8 name eth0\n",
		"ip -n vs8 link set dev eth0 up\n# waits for the carrier of eth0\n",
		"ip -n vs8 link set dev eth0 mtu 1400\n",
	} {
		if !strings.Contains(script, line) {
			t.Errorf("there is no\n%s in\n%s", line, script)
		}
	}
	published := false
	for _, s := range plan {
		switch s.(type) {
		case publish:
			published = true
		case moveIn:
			if !published {
				t.Error("it is moved into a namespace that ends with this process")
			}
		}
	}
}

// What a link inside says that it was on the host is believed as far as a record says it, too.
func TestPretended(t *testing.T) {
	const port = "eth0 eth2 02:00:00:00:00:08 1500 up"
	h := &Handle{place: vs8, Had: []Interface{{Name: "eth0", Port: "eth2", Kind: Device}, {Name: "eth1", Port: "eth3"}}}
	for _, c := range []struct {
		name, kind, alias string
		back              string // as what it is moved to the host, if it is
	}{
		{"eth0", "veth", "vsrun:vs8/" + port, "eth2"},
		{"eth0", "", "vsrun:vs8/" + port, "eth2"},
		{"eth0", "", "vsrun:vs8/eth0 eth7 02:00:00:00:00:08 1500 up", "eth2"},
		{"eth0", "veth", "vsrun:vs8/eth0 eth7 02:00:00:00:00:08 1500 up", ""},
		{"eth0", "", "vsrun:vs9/" + port, ""},
		{"x", "dummy", "vsrun:vs8/" + port, ""},
		{"x", "dummy", "vsrun:vs8/x eth7 02:00:00:00:00:77 1500 up", ""},
		{"eth1", "dummy", "vsrun:vs8/eth1 eth3 02:00:00:00:00:77 1500 up", ""},
		{"nic", "", "vsrun:vs8/nic eth7 02:00:00:00:00:77 1500 up", "eth7"}, // its record is lost
	} {
		l := h.link(device{Heard: Heard{Name: c.name, Kind: c.kind, Alias: c.alias}, elsewhere: noID})
		step, _ := l.leaves()
		back, _ := step.(moveBack)
		if back.name != c.back || vs8.has(l) != (c.back != "") {
			t.Errorf("%s (%s) that says %q is moved back as %q", c.name, c.kind, c.alias, back.name)
		}
	}
	if _, o := cutOrigin("vsrun:vs8/" + port + " vsrun:vs9/eth0 eth3 02:00:00:00:00:09 1500 up"); o.alias != "" {
		t.Errorf("it would come back with the mark of another one, %q", o.alias)
	}
}
