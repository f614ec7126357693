package stats

import (
	"bytes"
	"fmt"
	"strings"
)

// snmp reads /proc/net/snmp and /proc/net/netstat: pairs of lines, one of names and
// one of values, each led by the group's name (linux net/ipv4/proc.c).
func (p *parser) snmp(text []byte, s *Sample) error {
	err := p.pairs(text, &s.MIB)
	return p.end(s.MIB, err)
}

func (p *parser) pairs(text []byte, m *MIB) (err error) {
	var names, values []byte
	for ; len(text) > 0; p.next++ {
		names, text = cutLine(text)
		h := p.expected()
		if h == nil || h.text != string(names) {
			if h, err = p.learn(names, understandNames); err != nil {
				return err
			}
		}
		if len(text) == 0 {
			return fmt.Errorf("%.40q has no line of values", h.group)
		}
		values, text = cutLine(text)
		if err := h.parse(values, m.group(h.group)); err != nil {
			return err
		}
	}
	return nil
}

func understandNames(line string) (*heading, error) {
	group, names, ok := strings.Cut(line, ":")
	if !ok {
		return nil, fmt.Errorf("line %.40q has no group", line)
	}
	return &heading{line, group, strings.Fields(names)}, nil
}

// parse adds a line of values. One group may have several: the kernel breaks IcmpMsg
// after each 16 message types.
func (h *heading) parse(line []byte, g *Group) error {
	label, rest, _ := bytes.Cut(line, []byte(":"))
	if string(label) != h.group {
		return fmt.Errorf("%.40q is followed by %.40q, not by its values", h.group, line)
	}
	for _, name := range h.names {
		var word []byte
		word, rest = cutWord(rest)
		if len(word) == 0 {
			return fmt.Errorf("%s %.40s has no value", h.group, name)
		}
		value, err := parseValue(word)
		if err != nil {
			return fmt.Errorf("%s %.40s: %w", h.group, name, err)
		}
		g.Counters = append(g.Counters, Counter{name, value})
	}
	if word, _ := cutWord(rest); len(word) > 0 {
		return fmt.Errorf("%.40q has more values than names", h.group)
	}
	return nil
}
