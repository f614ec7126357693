package stats

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// parsed is what a file is in a sample, by a parser that has not seen one yet.
func parsed(text string, parse func(*parser, []byte, *Sample) error) (s Sample, err error) {
	s.empty()
	err = parse(&parser{words: new(vocabulary), form: new(form)}, []byte(text), &s)
	return s, err
}

func parseDev(text string) ([]Interface, error) {
	s, err := parsed(text, (*parser).dev)
	return s.Interfaces, err
}

func parseSNMP(text string) (MIB, error) {
	s, err := parsed(text, (*parser).snmp)
	return s.MIB, err
}

func parseSNMP6(text string) (MIB, error) {
	s, err := parsed(text, (*parser).snmp6)
	return s.MIB, err
}

// A parser that knows a file's form reads it as one that does not, whatever form it
// knows, and whatever was in the sample.
func TestParserThatKnowsTheForm(t *testing.T) {
	texts := []string{
		"Ip: A B\nIp: 1 2\nTcp: C\nTcp: 3\n",
		"Ip: A B\nIp: 3 4\nTcp: C\nTcp: 5\n",
		"Ip: A B\nIp: 1 2\nM: I3\nM: 9\nTcp: C\nTcp: 3\n",
		"Ip: A B\nIp: 1 2\nM: I3 I4\nM: 9 8\nTcp: C\nTcp: 3\n",
		"Ip: A B\nIp: 1 2\n",
		"Ip: A B\nIp: 1 2\nIp: A\nIp: 1\n",
		"Ip: A B\nIp: 1\n",
		"Tcp: C\nTcp: 3\nIp: A B\nIp: 1 2\n",
		"",
	}
	texts6 := []string{
		"Ip6A 1\nIp6B 2\nUdp6A 3\n", "Ip6A 4\nIp6B 5\nUdp6A 6\n", "Ip6A 1\nIp6C 9\nIp6B 2\nUdp6A 3\n", "Ip6A 1\nIp6A 2\n",
		"Ip6A  1\nIp6B 2 \nUdp6A 3\n", "Ip6A 1\nIp6B x\n", "Ip6A 1\n", "",
	}
	for i, first := range texts {
		for j, second := range texts {
			checkSecondParse(t, first, second, (*parser).snmp)
			if i < len(texts6) && j < len(texts6) {
				checkSecondParse(t, texts6[i], texts6[j], (*parser).snmp6)
			}
		}
	}
}

func checkSecondParse(t *testing.T, first, second string, parse func(*parser, []byte, *Sample) error) {
	t.Helper()
	want, wantErr := parsed(second, parse)
	words, known := new(vocabulary), new(form)
	var s Sample
	for _, text := range []string{first, first} {
		s.empty()
		parse(&parser{words: words, form: known}, []byte(text), &s)
	}
	for range 2 {
		s.empty()
		err := parse(&parser{words: words, form: known}, []byte(second), &s)
		if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
			t.Errorf("%q after %q: %v, want %v", second, first, err, wantErr)
		}
		if diff := cmp.Diff(want, s, cmpopts.EquateEmpty()); err == nil && diff != "" {
			t.Errorf("%q after %q:\n%s", second, first, diff)
		}
	}
}

func fixture(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
