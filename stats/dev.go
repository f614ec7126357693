package stats

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// dev reads /proc/net/dev: two lines of headings, then a line a device (linux
// net/core/net-procfs.c).
func (p *parser) dev(text []byte, s *Sample) error {
	columns, text, err := devHeading(text)
	if err != nil {
		return err
	}
	var line []byte
	for len(text) > 0 {
		line, text = cutLine(text)
		name, values, err := devLine(line)
		if err != nil {
			return err
		}
		counters, err := columns.parse(name, values)
		if err != nil {
			return err
		}
		if string(name) == "lo" {
			continue
		}
		s.Add(name, counters)
	}
	return nil
}

// usualDev is what all kernels in use print.
const usualDev = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
`

// devColumns is how many columns each direction has.
type devColumns struct{ rx, tx int }

var devFirst = []string{"bytes", "packets", "errs", "drop"}

func devHeading(text []byte) (n devColumns, rest []byte, err error) {
	if rest, ok := bytes.CutPrefix(text, []byte(usualDev)); ok {
		return devColumns{8, 8}, rest, nil
	}
	_, text = cutLine(text)
	if len(text) == 0 {
		return n, nil, errors.New("the headings are missing")
	}
	names, rest := cutLine(text)
	parts := strings.Split(string(names), "|")
	if len(parts) != 3 {
		return n, nil, fmt.Errorf("heading %.40q does not have three parts", names)
	}
	rx, tx := strings.Fields(parts[1]), strings.Fields(parts[2])
	for _, names := range [][]string{rx, tx} {
		if len(names) < len(devFirst) || !slices.Equal(names[:len(devFirst)], devFirst) {
			return n, nil, fmt.Errorf("heading %.40q does not begin with %q", names, devFirst)
		}
	}
	return devColumns{len(rx), len(tx)}, rest, nil
}

// devLine cuts a line after the device's name.
func devLine(line []byte) (name, values []byte, err error) {
	// The last colon: no value has one.
	colon := bytes.LastIndexByte(line, ':')
	// A name may begin with any other space than the one the kernel pads with.
	if name = bytes.TrimLeft(line[:max(colon, 0)], " "); len(name) == 0 {
		return nil, nil, fmt.Errorf("line %.40q has no device", line)
	}
	return name, line[colon+1:], nil
}

func (n devColumns) parse(name, line []byte) (c Counters, err error) {
	first := [...]*uint64{&c.RxBytes, &c.RxPackets, &c.RxErrors, &c.RxDropped, &c.TxBytes, &c.TxPackets, &c.TxErrors, &c.TxDropped}
	count := 0
	for {
		var word []byte
		if word, line = cutWord(line); len(word) == 0 {
			break
		}
		value, err := parseUint(word)
		if err != nil {
			return c, fmt.Errorf("device %.40q: %w", name, err)
		}
		switch half := len(first) / 2; {
		case count < half:
			*first[count] = value
		case count >= n.rx && count < n.rx+half:
			*first[half+count-n.rx] = value
		}
		count++
	}
	if count != n.rx+n.tx {
		return c, fmt.Errorf("device %.40q has %d values under %d headings", name, count, n.rx+n.tx)
	}
	return c, nil
}
