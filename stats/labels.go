package stats

import (
	"slices"
	"strconv"
	"strings"
)

// labels are the labels of many series, each without its closing brace, one after the
// other in one text: they are in each family again.
type labels struct {
	text []byte
	ends []int
}

func (l *labels) at(i int) []byte {
	if i == 0 {
		return l.text[:l.ends[0]]
	}
	return l.text[l.ends[i-1]:l.ends[i]]
}

func (l *labels) end() { l.ends = append(l.ends, len(l.text)) }

// server adds those of a virtual server.
func (l *labels) server(s *Sample) {
	l.text = append(l.text, `{vs="`...)
	l.text = strconv.AppendInt(l.text, int64(s.ID), 10)
	l.label(`",name="`, s.Name)
}

// label adds one more; lead ends in its opening quote.
func (l *labels) label(lead, value string) {
	l.text = append(l.text, lead...)
	l.text = append(appendEscaped(l.text, value), '"')
}

func serverLabels(samples []Sample) (l labels) {
	l.ends = make([]int, 0, len(samples))
	l.text = make([]byte, 0, 64*len(samples))
	for i := range samples {
		l.server(&samples[i])
		l.end()
	}
	return l
}

// partLabels are those of the parts of each virtual server, in their order.
func partLabels(samples []Sample, lead string, count func(*Sample) int, name func(*Sample, int) string) (l labels) {
	n := 0
	for i := range samples {
		n += count(&samples[i])
	}
	l.ends = make([]int, 0, n)
	l.text = make([]byte, 0, 96*n)
	for i := range samples {
		for part := range count(&samples[i]) {
			l.server(&samples[i])
			l.label(lead, name(&samples[i], part))
			l.end()
		}
	}
	return l
}

// appendEscaped makes a value of a label of any string: the kernel's names are
// bytes, while the formats are UTF-8.
func appendEscaped(b []byte, s string) []byte {
	b = slices.Grow(b, len(s))
	for _, c := range []byte(strings.ToValidUTF8(s, "\uFFFD")) {
		switch c {
		case '\\', '"':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		default:
			b = append(b, c)
		}
	}
	return b
}
