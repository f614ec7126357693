package push

import (
	"bytes"
	"fmt"
	"strconv"
)

// A label's parts are of the line that it was read from, mostly.
type label struct{ name, value []byte }

var metricName = []byte("__name__")

// parseSample reads a line of the Prometheus text format that has no time:
//
//	vsrun_network_receive_bytes_total{vs="8",name="finance",device="eth0"} 12
//
// The labels are added to those given, with the metric's name among them.
func parseSample(line []byte, labels []label) ([]label, float64, error) {
	end := bytes.IndexAny(line, "{ ")
	if end <= 0 {
		return nil, 0, fmt.Errorf("line %.80q has no name and value", line)
	}
	labels = append(labels, label{metricName, line[:end]})
	rest := line[end:]
	if rest[0] == '{' {
		var err error
		if labels, rest, err = parseLabels(rest[1:], labels); err != nil {
			return nil, 0, fmt.Errorf("line %.80q: %w", line, err)
		}
	}
	value, err := strconv.ParseFloat(string(bytes.TrimPrefix(rest, []byte(" "))), 64)
	if err != nil {
		return nil, 0, fmt.Errorf("line %.80q: %w", line, err)
	}
	return labels, value, nil
}

// parseLabels reads up to the closing brace and returns what follows it.
func parseLabels(text []byte, labels []label) ([]label, []byte, error) {
	for {
		if rest, ok := bytes.CutPrefix(text, []byte("}")); ok {
			return labels, rest, nil
		}
		name, quoted, ok := bytes.Cut(text, []byte(`="`))
		if !ok {
			return nil, nil, fmt.Errorf("a label has no value")
		}
		value, rest, err := unquote(quoted)
		if err != nil {
			return nil, nil, err
		}
		labels = append(labels, label{name, value})
		text = bytes.TrimPrefix(rest, []byte(","))
	}
}

// unquote reads up to the closing quote; the format knows three escapes.
func unquote(text []byte) (value, rest []byte, err error) {
	if k := bytes.IndexAny(text, "\"\\"); k >= 0 && text[k] == '"' {
		return text[:k], text[k+1:], nil
	}
	b := []byte{}
	for k := 0; k < len(text); k++ {
		switch c := text[k]; {
		case c == '"':
			return b, text[k+1:], nil
		case c != '\\':
			b = append(b, c)
		case k+1 < len(text):
			k++
			if text[k] == 'n' {
				b = append(b, '\n')
			} else {
				b = append(b, text[k])
			}
		}
	}
	return nil, nil, fmt.Errorf("a label's value does not end")
}
