package stats

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

// parseSNMP6 reads /proc/net/snmp6: a line a counter, its group and its name
// written together: Ip6InReceives, UdpLite6InErrors, Icmp6OutType136 (linux
// net/ipv6/proc.c). Every group ends at the first 6.
func parseSNMP6(r io.Reader) (MIB, error) {
	m := MIB{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := bytes.Fields(lines.Bytes())
		if len(fields) != 2 {
			return nil, fmt.Errorf("line %.40q is not a name and a value", lines.Bytes())
		}
		group, name, ok := bytes.Cut(fields[0], []byte("6"))
		if !ok || len(group) == 0 || len(name) == 0 {
			return nil, fmt.Errorf("%.40q is not a counter of an IPv6 protocol", fields[0])
		}
		value, err := parseValue(fields[1])
		if err != nil {
			return nil, fmt.Errorf("%.40s: %w", fields[0], err)
		}
		g := m.group(string(group) + "6")
		g.Counters = append(g.Counters, Counter{string(name), value})
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return m, m.check()
}
