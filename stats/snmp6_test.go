package stats

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseSNMP6LosesNothing(t *testing.T) {
	want := fixture(t, "snmp6")
	m, err := parseSNMP6(want)
	if err != nil {
		t.Fatal(err)
	}
	if got := printSNMP6(m); got != want {
		t.Error(cmp.Diff(want, got))
	}
	var groups []string
	for _, g := range m {
		groups = append(groups, g.Name)
	}
	if diff := cmp.Diff([]string{"Ip6", "Icmp6", "Udp6", "UdpLite6"}, groups); diff != "" {
		t.Error(diff)
	}
}

func TestParseSNMP6(t *testing.T) {
	in := "Ip6InReceives                   \t12\nIcmp6OutType136\t7\nUdpLite6InDatagrams 3\nIcmp6InType6 66\nIcmp6InMsgs 0\n"
	want := MIB{
		{"Ip6", []Counter{{"InReceives", 12}}},
		{"Icmp6", []Counter{{"OutType136", 7}, {"InType6", 66}, {"InMsgs", 0}}},
		{"UdpLite6", []Counter{{"InDatagrams", 3}}},
	}
	m, err := parseSNMP6(in)
	if diff := cmp.Diff(want, m); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestParseSNMP6Refuses(t *testing.T) {
	for in, want := range map[string]string{
		"Ip6InReceives\n":     `line "Ip6InReceives" is not a name and a value`,
		"Ip6InReceives 1 2\n": `line "Ip6InReceives 1 2" is not a name and a value`,
		"\n":                  `line "" is not a name and a value`,
		"TcpInSegs 1\n":       `"TcpInSegs" is not a counter of an IPv6 protocol`,
		"6In 1\n":             `"6In" is not a counter of an IPv6 protocol`,
		"Ip6 1\n":             `"Ip6" is not a counter of an IPv6 protocol`,
		"Ip6A x\n":            `Ip6A: strconv.ParseUint: parsing "x": invalid syntax`,
		"Ip6A 1\nIp6A 1\n":    `Ip6: counter "A": there twice`,
		"Ip6A\x00 1\n":        `Ip6: counter "A\x00": not a name of letters and digits`,
	} {
		if m, err := parseSNMP6(in); err == nil || err.Error() != want {
			t.Errorf("%.40q gives %v, %v, want %s", in, m, err, want)
		}
	}
}

func FuzzParseSNMP6(f *testing.F) {
	f.Add([]byte(fixture(f, "snmp6")))
	f.Add([]byte("Ip6A -1\nIcmp6OutType136\t18446744073709551615\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseSNMP6(string(b))
		if err != nil {
			return
		}
		again, err := parseSNMP6(printSNMP6(m))
		if diff := cmp.Diff(m, again); err != nil || diff != "" {
			t.Errorf("printed and parsed again: %v\n%s", err, diff)
		}
		checkJSON(t, m)
	})
}

// printSNMP6 is what the kernel would print.
func printSNMP6(m MIB) string {
	var b strings.Builder
	for _, g := range m {
		for _, c := range g.Counters {
			fmt.Fprintf(&b, "%-32s\t%d\n", g.Name+c.Name, c.Value)
		}
	}
	return b.String()
}
