package stats

import (
	"bytes"
	"fmt"
	"strings"
)

// sockstat reads /proc/net/sockstat and /proc/net/sockstat6: a line a protocol, its
// name and then names and values (linux net/ipv4/proc.c, net/ipv6/proc.c).
func (p *parser) sockstat(text []byte, s *Sample) error {
	err := p.protocols(text, &s.Sockets)
	return p.end(s.Sockets, err)
}

func (p *parser) protocols(text []byte, m *MIB) (err error) {
	var line []byte
	for ; len(text) > 0; p.next++ {
		line, text = cutLine(text)
		label := line[:bytes.IndexByte(line, ':')+1]
		h := p.expected()
		if h == nil || h.text != string(label) {
			if h, err = p.learn(label, understandLabel); err != nil {
				return err
			}
		}
		if err := addSockets(m.group(h.group), line[len(label):]); err != nil {
			return err
		}
	}
	return nil
}

func understandLabel(text string) (*heading, error) {
	if len(text) < 2 {
		return nil, fmt.Errorf("a line has no protocol")
	}
	return &heading{text: text, group: strings.TrimSuffix(text, ":")}, nil
}

func addSockets(g *Group, line []byte) error {
	for {
		var name, word []byte
		if name, line = cutWord(line); len(name) == 0 {
			return nil
		}
		word, line = cutWord(line)
		value, err := parseValue(word)
		if err != nil {
			return fmt.Errorf("%s %.40s: %w", g.Name, name, err)
		}
		if name := ofNamespace(name); name != "" {
			g.Counters = append(g.Counters, Counter{name, value})
		}
	}
}

// ofNamespace is a figure's name, "" for one that is not the namespace's. The kernel
// prints the whole host's in each: orphan, alloc and mem (tcp_orphan_count,
// sockets_allocated and memory_allocated of struct proto are one for all namespaces).
func ofNamespace(name []byte) string {
	for _, known := range []string{"used", "inuse", "tw", "memory"} {
		if string(name) == known {
			return known
		}
	}
	return ""
}
