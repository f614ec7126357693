package stats

import (
	"fmt"
	"slices"
	"strings"
)

// entries is the one figure that is not a processor's.
const entries = "entries"

// Columns that Linux prints and has not counted since 5.10.
var uncounted = []string{"new", "ignore", "delete", "delete_list"}

// conntrack reads /proc/net/stat/nf_conntrack: a line of names, then one of values in
// hexadecimal for each processor (linux net/netfilter/nf_conntrack_standalone.c).
func (p *parser) conntrack(text []byte, s *Sample) error {
	err := p.processors(text, s.Conntrack.group("nf_conntrack"))
	return p.end(s.Conntrack, err)
}

func (p *parser) processors(text []byte, g *Group) (err error) {
	names, text := cutLine(text)
	h := p.expected()
	if h == nil || h.text != string(names) {
		if h, err = p.learn(names, understandColumns); err != nil {
			return err
		}
	}
	p.next++
	for _, name := range h.names {
		if !slices.Contains(uncounted, name) {
			g.Counters = append(g.Counters, Counter{Name: name})
		}
	}
	var line []byte
	for len(text) > 0 {
		line, text = cutLine(text)
		if err := h.add(g.Counters, line); err != nil {
			return err
		}
	}
	return nil
}

func understandColumns(line string) (*heading, error) {
	names := strings.Fields(line)
	if len(names) == 0 || names[0] != entries {
		return nil, fmt.Errorf("heading %.40q does not begin with %q", line, entries)
	}
	return &heading{text: line, names: names}, nil
}

// add adds a processor's values to the figures, which are those of the heading's names
// that are counted, in order.
func (h *heading) add(to []Counter, line []byte) error {
	for _, name := range h.names {
		var word []byte
		word, line = cutWord(line)
		value, err := parseHex(word)
		if err != nil {
			return fmt.Errorf("%.40s: %w", name, err)
		}
		if len(to) == 0 || to[0].Name != name {
			continue
		}
		if name == entries { // the same on each line
			to[0].Value = value
		} else {
			to[0].Value += value
		}
		to = to[1:]
	}
	if word, _ := cutWord(line); len(word) > 0 {
		return fmt.Errorf("there are more values than the %d names", len(h.names))
	}
	return nil
}

// parseHex reads the 32 bits that a processor has for a counter.
func parseHex(word []byte) (n int64, err error) {
	if len(word) == 0 || len(word) > 8 {
		return 0, fmt.Errorf("%.40q is not a hexadecimal number of 32 bits", word)
	}
	for _, c := range word {
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | int64(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | int64(c-'a'+10)
		default:
			return 0, fmt.Errorf("%.40q is not a hexadecimal number of 32 bits", word)
		}
	}
	return n, nil
}
