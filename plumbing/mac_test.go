package plumbing

import (
	"encoding/json"
	"fmt"
	"testing"
)

const machine = "0123456789abcdef0123456789abcdef"

// An address that changed with a new version would cut a virtual server off from
// everybody who knows it. These are by
//
//	printf 'vsrun\0%s\0%s\0%s' MACHINE NAMESPACE IFNAME | sha256sum
//
// with the two low bits of the first byte made 10.
func TestDeriveMACIsForEver(t *testing.T) {
	for _, tt := range []struct{ namespace, ifname, want string }{
		{"vs8", "eth0", "8e:9b:9d:06:fd:d2"},
		{"vs8", "lan", "ba:10:99:24:06:8e"},
		{"vs4094", "eth0", "f2:31:88:e9:59:75"},
	} {
		if got := DeriveMAC(machine, tt.namespace, tt.ifname); got.String() != tt.want {
			t.Errorf("%s of %s: got %s, want %s", tt.ifname, tt.namespace, got, tt.want)
		}
	}
}

// Every address derived is one that nobody was assigned, of a single host, and
// not the same as another.
func TestDerivedMACs(t *testing.T) {
	seen := map[MAC]string{}
	check := func(machineID, namespace, ifname string) {
		m := DeriveMAC(machineID, namespace, ifname)
		what := fmt.Sprintf("%q %q %q", machineID, namespace, ifname)
		if m[0]&3 != 2 {
			t.Errorf("%s: %s is not locally administered and unicast", what, m)
		}
		if before, ok := seen[m]; ok {
			t.Errorf("%s and %s: both have %s", before, what, m)
		}
		seen[m] = what
	}
	for id := range 4094 {
		for _, ifname := range []string{"eth0", "eth1", "lan"} {
			check(machine, fmt.Sprintf("vs%d", id+1), ifname)
		}
	}
	// The parts are not run together.
	check(machine, "vs1", "1eth0")
	check(machine, "vs11", "eth00")
	check(machine+"v", "s1", "eth0")
	check("", "", "")
	check(machine[1:], "vs8", "eth0")
}

func TestParseMAC(t *testing.T) {
	for _, tt := range []struct{ in, want, err string }{
		{"02:00:5e:10:00:08", "02:00:5e:10:00:08", ""},
		{"02-00-5E-10-00-08", "02:00:5e:10:00:08", ""},
		{"0200.5e10.0008", "02:00:5e:10:00:08", ""},
		{"00:00:00:00:00:01", "00:00:00:00:00:01", ""},
		{"", "", `"" is not a MAC address such as 02:00:5e:10:00:08`},
		{"02:00:5e:10:00", "", `"02:00:5e:10:00" is not a MAC address such as 02:00:5e:10:00:08`},
		{"02:00:5e:10:00:08:09:0a", "", `"02:00:5e:10:00:08:09:0a" is not a MAC address such as 02:00:5e:10:00:08`},
		{"02:00:5e:10:00:0g", "", `"02:00:5e:10:00:0g" is not a MAC address such as 02:00:5e:10:00:08`},
		{"00:00:00:00:00:00", "", "MAC 00:00:00:00:00:00 is all zero"},
		{"01:00:5e:00:00:01", "", "MAC 01:00:5e:00:00:01 is a multicast address"},
		{"ff:ff:ff:ff:ff:ff", "", "MAC ff:ff:ff:ff:ff:ff is a multicast address"},
	} {
		got, err := ParseMAC(tt.in)
		if tt.err != "" {
			if err == nil || err.Error() != tt.err || !got.IsZero() {
				t.Errorf("%q: got %s, %v; want %s", tt.in, got, err, tt.err)
			}
		} else if err != nil || got.String() != tt.want {
			t.Errorf("%q: got %s, %v", tt.in, got, err)
		}
	}
}

// As text, as in documents and records, no address is empty.
func TestMACText(t *testing.T) {
	type record struct {
		MAC MAC `json:"mac,omitzero"`
	}
	for text, want := range map[string]MAC{
		`{"mac":"02:00:00:00:00:08"}`: mac8,
		`{"mac":""}`:                  {},
		`{}`:                          {},
	} {
		r := record{MAC: mac9} // which must not shine through
		if text == `{}` {
			r = record{}
		}
		if err := json.Unmarshal([]byte(text), &r); err != nil || r.MAC != want {
			t.Errorf("%s: got %s, %v", text, r.MAC, err)
		}
		b, err := json.Marshal(r)
		if err != nil || want.IsZero() && string(b) != `{}` || !want.IsZero() && string(b) != text {
			t.Errorf("%s became %s, %v", text, b, err)
		}
	}
	if err := json.Unmarshal([]byte(`{"mac":"ff:ff:ff:ff:ff:ff"}`), &record{}); err == nil {
		t.Error("a broadcast address passes")
	}
}
