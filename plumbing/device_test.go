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
