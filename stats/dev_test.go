package stats

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const devHeading = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
`

func TestParseDevFile(t *testing.T) {
	lo := Counters{RxBytes: 740, RxPackets: 10, TxBytes: 740, TxPackets: 10}
	lan := Counters{RxBytes: 684, RxPackets: 8, TxBytes: 586, TxPackets: 7}
	eth0 := Counters{RxBytes: 586, RxPackets: 7, TxBytes: 684, TxPackets: 8}
	devices, err := parseDev(strings.NewReader(fixture(t, "dev")))
	if diff := cmp.Diff([]Interface{{"lo", lo}, {"lan", lan}, {"eth0", eth0}}, devices); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestParseDev(t *testing.T) {
	all := Counters{1, 2, 3, 4, 9, 10, 11, 12}
	for name, test := range map[string]struct {
		in   string
		want []Interface
	}{
		"none":        {devHeading, []Interface{}},
		"each column": {devHeading + "  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", []Interface{{"eth0", all}}},
		"no space":    {devHeading + "abcdefghijklmno:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", []Interface{{"abcdefghijklmno", all}}},
		"hostile":     {devHeading + "\u2003\"\\\xff: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", []Interface{{"\u2003\"\\\xff", all}}},
		"alias":       {devHeading + "eth0:8: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", []Interface{{"eth0:8", all}}},
		"about to wrap": {devHeading + "a: 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
			[]Interface{{"a", Counters{RxBytes: math.MaxUint64}}}},
		"more columns": {"x\nface |bytes packets errs drop more|bytes packets errs drop\na: 1 2 3 4 5 9 10 11 12\n", []Interface{{"a", all}}},
	} {
		devices, err := parseDev(strings.NewReader(test.in))
		if diff := cmp.Diff(test.want, devices); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
}

func TestParseDevRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "the headings are missing",
		"Inter-| Receive | Transmit\n": "the headings are missing",
		"x\ny\n":                       `heading "y" does not have three parts`,
		"x\nface|bytes packets errs|bytes packets errs drop\n":      `heading ["bytes" "packets" "errs"] does not begin with ["bytes" "packets" "errs" "drop"]`,
		"x\nface|bytes packets errs drop|bytes packets drop errs\n": `heading ["bytes" "packets" "drop" "errs"] does not begin with ["bytes" "packets" "errs" "drop"]`,
		devHeading + "\n":        `line "" has no device`,
		devHeading + "  : 1 2\n": `line "  : 1 2" has no device`,
		devHeading + "a: 1 2\n":  `device "a" has 2 values under 16 headings`,
		devHeading + "a: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n":     `device "a" has 17 values under 16 headings`,
		devHeading + "a: -1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n":       `device "a": strconv.ParseUint: parsing "-1": invalid syntax`,
		devHeading + "a: 18446744073709551616 2 3 4 5 6 7 8 9 10 11 12\n": `device "a": strconv.ParseUint: parsing "18446744073709551616": value out of range`,
	} {
		if devices, err := parseDev(strings.NewReader(in)); err == nil || err.Error() != want {
			t.Errorf("%.200q gives %v, %v, want %s", in, devices, err, want)
		}
	}
}

func FuzzParseDev(f *testing.F) {
	f.Add([]byte(fixture(f, "dev")))
	f.Add([]byte(devHeading + "eth0:8: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		devices, err := parseDev(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, d := range devices {
			if d.Name == "" || !bytes.Contains(b, []byte(d.Name+":")) {
				t.Errorf("device %q is not in the file", d.Name)
			}
		}
	})
}
