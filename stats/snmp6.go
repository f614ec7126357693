package stats

import (
	"fmt"
	"strings"
)

// snmp6 reads /proc/net/snmp6: a line a counter, its name led by its group's (linux
// net/ipv6/proc.c). Every group ends at the first 6.
func (p *parser) snmp6(text []byte, s *Sample) error {
	err := p.singles(text, &s.MIB)
	return p.end(s.MIB, err)
}

func (p *parser) singles(text []byte, m *MIB) error {
	var line []byte
	var g *Group
	for ; len(text) > 0; p.next++ {
		line, text = cutLine(text)
		h, word, err := p.single(line)
		if err != nil {
			return err
		}
		value, err := parseValue(word)
		if err != nil {
			return fmt.Errorf("%.40s%.40s: %w", h.group, h.names[0], err)
		}
		if g == nil || g.Name != h.group {
			g = m.group(h.group)
		}
		g.Counters = append(g.Counters, Counter{h.names[0], value})
	}
	return nil
}

// single cuts a line before its value.
func (p *parser) single(line []byte) (h *heading, value []byte, err error) {
	h = p.expected()
	if h != nil && len(line) > len(h.text) && string(line[:len(h.text)]) == h.text {
		value = line[len(h.text):]
		if word, _ := cutWord(value); len(word) == len(value) {
			return h, value, nil
		}
	}
	_, rest := cutWord(line)
	value, after := cutWord(rest)
	if end, _ := cutWord(after); len(value) == 0 || len(end) > 0 {
		return nil, nil, fmt.Errorf("line %.40q is not a name and a value", line)
	}
	h, err = p.learn(line[:len(line)-len(after)-len(value)], understandName)
	return h, value, err
}

func understandName(text string) (*heading, error) {
	word := strings.TrimSpace(text)
	group, name, ok := strings.Cut(word, "6")
	if !ok || group == "" || name == "" {
		return nil, fmt.Errorf("%.40q is not a counter of an IPv6 protocol", word)
	}
	return &heading{text, group + "6", []string{name}}, nil
}
