package stats

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// parseSNMP reads /proc/net/snmp and /proc/net/netstat: pairs of lines, one of
// names and one of values, each led by the group's name (linux
// net/ipv4/proc.c).
func parseSNMP(r io.Reader) (MIB, error) {
	m := MIB{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		group, names, ok := strings.Cut(lines.Text(), ":")
		if !ok {
			return nil, fmt.Errorf("line %.40q has no group", lines.Text())
		}
		if !lines.Scan() {
			return nil, cut(lines, fmt.Sprintf("%.40q has no line of values", group))
		}
		if err := m.addPair(group, names, lines.Bytes()); err != nil {
			return nil, err
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return m, m.check()
}

// cut is why a file ended too early: it could not be read, or what is missing.
func cut(lines *bufio.Scanner, missing string) error {
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New(missing)
}

// addPair adds a pair of lines. One group may have several pairs: the kernel
// breaks IcmpMsg after each 16 message types.
func (m *MIB) addPair(group, names string, line []byte) error {
	label, values, _ := bytes.Cut(line, []byte(":"))
	if string(label) != group {
		return fmt.Errorf("%.40q is followed by %.40q, not by its values", group, line)
	}
	left := strings.Fields(names)
	g := m.group(group)
	for v := range bytes.FieldsSeq(values) {
		if len(left) == 0 {
			return fmt.Errorf("%.40q has more values than names", group)
		}
		n, err := parseValue(v)
		if err != nil {
			return fmt.Errorf("%s %.40s: %w", group, left[0], err)
		}
		g.Counters = append(g.Counters, Counter{left[0], n})
		left = left[1:]
	}
	if len(left) > 0 {
		return fmt.Errorf("%s %.40s has no value", group, left[0])
	}
	return nil
}

// parseValue takes what the kernel prints as signed (Tcp's MaxConn) and as
// unsigned. An unsigned value beyond int64 is a gauge below zero: see Counter.
func parseValue(b []byte) (int64, error) {
	if len(b) > 0 && b[0] == '-' {
		return strconv.ParseInt(string(b), 10, 64)
	}
	u, err := strconv.ParseUint(string(b), 10, 64)
	return int64(u), err
}
