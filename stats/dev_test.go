package stats

import (
	"bytes"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseDevFile(t *testing.T) {
	lan := Counters{RxBytes: 684, RxPackets: 8, TxBytes: 586, TxPackets: 7}
	eth0 := Counters{RxBytes: 586, RxPackets: 7, TxBytes: 684, TxPackets: 8}
	devices, err := parseDev(fixture(t, "dev"))
	if diff := cmp.Diff([]Interface{{"lan", lan}, {"eth0", eth0}}, devices); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestParseDev(t *testing.T) {
	all := Counters{1, 2, 3, 4, 9, 10, 11, 12}
	for name, test := range map[string]struct {
		in   string
		want []Interface
	}{
		"none":        {usualDev, []Interface{}},
		"each column": {usualDev + "  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", []Interface{{"eth0", all}}},
		"no space":    {usualDev + "abcdefghijklmno:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", []Interface{{"abcdefghijklmno", all}}},
		"hostile":     {usualDev + "\u2003\"\\\xff: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", []Interface{{"\u2003\"\\\xff", all}}},
		"alias":       {usualDev + "eth0:8: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", []Interface{{"eth0:8", all}}},
		"about to wrap": {usualDev + "a: 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
			[]Interface{{"a", Counters{RxBytes: math.MaxUint64}}}},
		"more columns": {"x\nface |bytes packets errs drop more|bytes packets errs drop\na: 1 2 3 4 5 9 10 11 12\n", []Interface{{"a", all}}},
	} {
		devices, err := parseDev(test.in)
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
		usualDev + "\n":        `line "" has no device`,
		usualDev + "  : 1 2\n": `line "  : 1 2" has no device`,
		usualDev + "a: 1 2\n":  `device "a" has 2 values under 16 headings`,
		usualDev + "a: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n":     `device "a" has 17 values under 16 headings`,
		usualDev + "a: -1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n":       `device "a": strconv.ParseUint: parsing "-1": invalid syntax`,
		usualDev + "a: 18446744073709551616 2 3 4 5 6 7 8 9 10 11 12\n": `device "a": strconv.ParseUint: parsing "18446744073709551616": value out of range`,
	} {
		if devices, err := parseDev(in); err == nil || err.Error() != want {
			t.Errorf("%.200q gives %v, %v, want %s", in, devices, err, want)
		}
	}
}

func FuzzParseDev(f *testing.F) {
	f.Add([]byte(fixture(f, "dev")))
	f.Add([]byte(usualDev + "eth0:8: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		devices, err := parseDev(string(b))
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
