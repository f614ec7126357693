package stats

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// parseDev reads /proc/net/dev: two lines of headings, then a line a device
// (linux net/core/net-procfs.c).
func parseDev(r io.Reader) ([]Interface, error) {
	lines := bufio.NewScanner(r)
	columns, err := parseDevHeading(lines)
	if err != nil {
		return nil, err
	}
	devices := []Interface{}
	for lines.Scan() {
		d, err := columns.parse(lines.Bytes())
		if err != nil {
			return nil, err
		}
		devices = append(devices, d)
	}
	return devices, lines.Err()
}

// devColumns is how many columns each direction has.
type devColumns struct{ rx, tx int }

var devFirst = []string{"bytes", "packets", "errs", "drop"}

func parseDevHeading(lines *bufio.Scanner) (devColumns, error) {
	for range 2 { // the second one names the columns
		if !lines.Scan() {
			return devColumns{}, cut(lines, "the headings are missing")
		}
	}
	parts := strings.Split(lines.Text(), "|")
	if len(parts) != 3 {
		return devColumns{}, fmt.Errorf("heading %.40q does not have three parts", lines.Text())
	}
	rx, tx := strings.Fields(parts[1]), strings.Fields(parts[2])
	for _, names := range [][]string{rx, tx} {
		if len(names) < len(devFirst) || !slices.Equal(names[:len(devFirst)], devFirst) {
			return devColumns{}, fmt.Errorf("heading %.40q does not begin with %q", names, devFirst)
		}
	}
	return devColumns{len(rx), len(tx)}, nil
}

func (n devColumns) parse(line []byte) (Interface, error) {
	// The last colon: no value has one.
	colon := bytes.LastIndexByte(line, ':')
	if colon < 0 {
		return Interface{}, fmt.Errorf("line %.40q has no device", line)
	}
	// A name may begin with any other space than the one the kernel pads with.
	d := Interface{Name: string(bytes.TrimLeft(line[:colon], " "))}
	if d.Name == "" {
		return Interface{}, fmt.Errorf("line %.40q has no device", line)
	}
	values := make([]uint64, 0, n.rx+n.tx)
	for field := range bytes.FieldsSeq(line[colon+1:]) {
		v, err := strconv.ParseUint(string(field), 10, 64)
		if err != nil {
			return Interface{}, fmt.Errorf("device %.40q: %w", d.Name, err)
		}
		values = append(values, v)
	}
	if len(values) != n.rx+n.tx {
		return Interface{}, fmt.Errorf("device %.40q has %d values under %d headings", d.Name, len(values), n.rx+n.tx)
	}
	rx, tx := values[:n.rx], values[n.rx:]
	d.Counters = Counters{
		RxBytes: rx[0], RxPackets: rx[1], RxErrors: rx[2], RxDropped: rx[3],
		TxBytes: tx[0], TxPackets: tx[1], TxErrors: tx[2], TxDropped: tx[3],
	}
	return d, nil
}
