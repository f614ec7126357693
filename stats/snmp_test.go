package stats

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseSNMPLosesNothing(t *testing.T) {
	for _, name := range []string{"snmp", "netstat"} {
		want := fixture(t, name)
		m, err := parseSNMP(want)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := printSNMP(m); got != want {
			t.Errorf("%s:\n%s", name, cmp.Diff(want, got))
		}
	}
}

func TestLookup(t *testing.T) {
	m, err := parseSNMP(fixture(t, "snmp") + fixture(t, "netstat"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		group, name string
		value       int64
		ok          bool
	}{
		{"Ip", "DefaultTTL", 64, true},
		{"Icmp", "InEchos", 3, true},
		{"IcmpMsg", "OutType3", 1, true},
		{"Tcp", "MaxConn", -1, true},
		{"Tcp", "RtoMax", 120000, true},
		{"Tcp", "OutOctets", 0, false},
		{"Sctp", "InSegs", 0, false},
		{"", "", 0, false},
	} {
		if v, ok := m.Lookup(want.group, want.name); v != want.value || ok != want.ok {
			t.Errorf("Lookup(%s, %s) = %d, %v", want.group, want.name, v, ok)
		}
	}
}

func TestParseSNMP(t *testing.T) {
	for name, test := range map[string]struct {
		in   string
		want MIB
	}{
		"nothing":      {"", MIB{}},
		"no names":     {"Ip:\nIp:\n", MIB{{Name: "Ip"}}},
		"no newline":   {"Ip: A\nIp: 1", MIB{{"Ip", []Counter{{"A", 1}}}}},
		"largest":      {"Ip: A\nIp: 9223372036854775807\n", MIB{{"Ip", []Counter{{"A", math.MaxInt64}}}}},
		"gauge below":  {"Tcp: CurrEstab\nTcp: 18446744073709551614\n", MIB{{"Tcp", []Counter{{"CurrEstab", -2}}}}},
		"smallest":     {"Tcp: A\nTcp: -9223372036854775808\n", MIB{{"Tcp", []Counter{{"A", math.MinInt64}}}}},
		"split group":  {"M: A\nM: 1\nM: B\nM: 2\n", MIB{{"M", []Counter{{"A", 1}, {"B", 2}}}}},
		"split around": {"M: A\nM: 1\nN: A\nN: 3\nM: B\nM: 2\n", MIB{{"M", []Counter{{"A", 1}, {"B", 2}}}, {"N", []Counter{{"A", 3}}}}},
	} {
		m, err := parseSNMP(test.in)
		if diff := cmp.Diff(test.want, m); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
}

func TestParseSNMPRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"Ip A B\n":                          `line "Ip A B" has no group`,
		"Ip: A\n":                           `"Ip" has no line of values`,
		"Ip: A\nTcp: 1\n":                   `"Ip" is followed by "Tcp: 1", not by its values`,
		"Ip: A\n1\n":                        `"Ip" is followed by "1", not by its values`,
		"Ip: A\nIp: 1 2\n":                  `"Ip" has more values than names`,
		"Ip: A B\nIp: 1\n":                  `Ip B has no value`,
		"Ip: A\nIp: x\n":                    `Ip A: strconv.ParseUint: parsing "x": invalid syntax`,
		"Ip: A\nIp: -\n":                    `Ip A: strconv.ParseInt: parsing "-": invalid syntax`,
		"Ip: A\nIp: +1\n":                   `Ip A: strconv.ParseUint: parsing "+1": invalid syntax`,
		"Ip: A\nIp: 0x1\n":                  `Ip A: strconv.ParseUint: parsing "0x1": invalid syntax`,
		"Ip: A A\nIp: 1 2\n":                `Ip: counter "A": there twice`,
		"Ip: A\"\nIp: 1\n":                  `Ip: counter "A\"": not a name of letters and digits`,
		": A\n: 1\n":                        `group without a name`,
		"I p: A\nI p: 1\n":                  `group "I p": not a name of letters and digits`,
		"Ip: A\nIp: 18446744073709551616\n": `Ip A: strconv.ParseUint: parsing "18446744073709551616": value out of range`,
		"Ip: A\nIp: -9223372036854775809\n": `Ip A: strconv.ParseInt: parsing "-9223372036854775809": value out of range`,
		"Ip: A\nIp: 1\nIp: B A\nIp: 2 3\n":  `Ip: counter "A": there twice`,
	} {
		m, err := parseSNMP(in)
		if err == nil || err.Error() != want {
			t.Errorf("%.40q: %v, want %s", in, err, want)
		}
		if err == nil {
			t.Errorf("%.40q gives %v", in, m)
		}
	}
}

func FuzzParseSNMP(f *testing.F) {
	f.Add([]byte(fixture(f, "snmp")))
	f.Add([]byte(fixture(f, "netstat")))
	f.Add([]byte("Ip: A B\nIp: -1 18446744073709551615\nIp: C\nIp: 3\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseSNMP(string(b))
		if err != nil {
			return
		}
		again, err := parseSNMP(printSNMP(m))
		if diff := cmp.Diff(m, again); err != nil || diff != "" {
			t.Errorf("printed and parsed again: %v\n%s", err, diff)
		}
		checkJSON(t, m)
	})
}

// printSNMP is what the kernel would print.
func printSNMP(m MIB) string {
	var b strings.Builder
	for _, g := range m {
		fmt.Fprintf(&b, "%s:", g.Name)
		for _, c := range g.Counters {
			fmt.Fprintf(&b, " %s", c.Name)
		}
		fmt.Fprintf(&b, "\n%s:", g.Name)
		for _, c := range g.Counters {
			fmt.Fprintf(&b, " %d", c.Value)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
