package stats

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// twoServers differ in what they have: only the second one saw an echo reply.
var twoServers = []Sample{{
	ID: 8, Name: "finance",
	Interfaces: []Interface{
		{"eth0", Counters{1, 2, 3, 4, 5, 6, 7, 8}},
		{"lan", Counters{RxBytes: math.MaxUint64}},
	},
	Total:      Counters{0, 2, 3, 4, 5, 6, 7, 8},
	MIB:        MIB{{"Icmp", []Counter{{"InMsgs", 9}}}, {"Tcp", []Counter{{"MaxConn", -1}}}},
	Sockets:    MIB{{"sockets", []Counter{{"used", 3}}}, {"TCP", []Counter{{"inuse", 2}, {"tw", 1}}}},
	Conntrack:  MIB{{"nf_conntrack", []Counter{{"entries", 5}, {"found", 6}}}},
	Neighbours: MIB{{"inet", []Counter{{"stale", 1}}}},
}, {
	ID: 9, Name: "web",
	MIB: MIB{{"Icmp", []Counter{{"InMsgs", 10}}}, {"IcmpMsg", []Counter{{"InType0", 1}}}, {"Tcp", []Counter{{"MaxConn", -1}}}},
}}

func TestWriteMetrics(t *testing.T) {
	if diff := cmp.Diff(fixture(t, "metrics.txt"), metrics(t, twoServers, PrometheusText)); diff != "" {
		t.Error(diff)
	}
}

// OpenMetrics is the same text but for heads of counters, a word, units, and the end.
func TestWriteOpenMetrics(t *testing.T) {
	var want strings.Builder
	for line := range strings.Lines(fixture(t, "metrics.txt")) {
		if strings.HasPrefix(line, "#") {
			line = strings.Replace(line, "_total ", " ", 1)
			line = strings.Replace(line, " untyped", " unknown", 1)
		}
		want.WriteString(line)
		if family, ok := strings.CutSuffix(line, "_bytes counter\n"); ok {
			want.WriteString(strings.Replace(family, "TYPE", "UNIT", 1) + "_bytes bytes\n")
		}
	}
	want.WriteString("# EOF\n")
	text := metrics(t, twoServers, OpenMetrics)
	if diff := cmp.Diff(want.String(), text); diff != "" {
		t.Error(diff)
	}
	checkOpenMetrics(t, text)
}

func TestWriteMetricsOfNothing(t *testing.T) {
	for format, eof := range map[Format]string{PrometheusText: "", OpenMetrics: "# EOF\n"} {
		text := metrics(t, nil, format)
		if len(parseText(t, text)) != 0 || !strings.HasSuffix(text, eof) {
			t.Errorf("%s", text)
		}
	}
}

func TestWriteMetricsParsesBack(t *testing.T) {
	var mib MIB
	for name, parse := range map[string]func(string) (MIB, error){
		"snmp":    func(s string) (MIB, error) { return parseSNMP((s)) },
		"netstat": func(s string) (MIB, error) { return parseSNMP((s)) },
		"snmp6":   func(s string) (MIB, error) { return parseSNMP6((s)) },
	} {
		m, err := parse(fixture(t, name))
		if err != nil {
			t.Fatal(err)
		}
		mib = append(mib, m...)
	}
	devices, err := parseDev(fixture(t, "dev"))
	if err != nil {
		t.Fatal(err)
	}
	samples := []Sample{
		{ID: 1, Name: "one", Interfaces: devices, MIB: mib},
		{ID: 2, Name: "no IPv6", Interfaces: devices[:1], MIB: slices.DeleteFunc(slices.Clone(mib), func(g Group) bool { return strings.HasSuffix(g.Name, "6") })},
		{ID: 3, Name: "one more", MIB: mib},
	}
	checkParsed(t, samples, parseText(t, metrics(t, samples, PrometheusText)))
	checkOpenMetrics(t, metrics(t, samples, OpenMetrics))
}

func TestWriteMetricsWithHostileNames(t *testing.T) {
	for _, name := range hostileNames {
		checkHostile(t, name, "eth0")
		checkHostile(t, "web", name)
	}
}

var hostileNames = []string{"", `"`, `\`, "\n", "\r", `\n`, `"} 1`, "a\"} 1\nx 2", "\xff", "\xed\xa0\x80", "ü \u2028", "\x00", "{", "#"}

func FuzzWriteMetrics(f *testing.F) {
	for _, name := range hostileNames {
		f.Add(name, "eth0")
	}
	f.Fuzz(checkHostile)
}

// checkHostile checks that the two strings come back as one sample's labels.
func checkHostile(t *testing.T, name, device string) {
	t.Helper()
	samples := []Sample{{ID: 8, Name: name, Interfaces: []Interface{{device, Counters{RxBytes: 7}}}, MIB: small}}
	checkParsed(t, samples, parseText(t, metrics(t, samples, PrometheusText)))
	checkOpenMetrics(t, metrics(t, samples, OpenMetrics))
}

// A series is a metric and its labels, as "name [vs name device]".
type series map[string]float64

func parseText(t *testing.T, text string) series {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	got := series{}
	for name, family := range families {
		for _, m := range family.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetValue())
			}
			key := fmt.Sprintf("%s %q", name, labels)
			if _, ok := got[key]; ok {
				t.Errorf("%s is there twice", key)
			}
			got[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue() // one of them is nil
		}
	}
	return got
}

// checkParsed checks that what was parsed is every value of the samples, and
// nothing else.
func checkParsed(t *testing.T, samples []Sample, got series) {
	t.Helper()
	want := series{}
	for _, s := range samples {
		labels := []string{strconv.Itoa(s.ID), strings.ToValidUTF8(s.Name, "\uFFFD")}
		for _, d := range s.Interfaces {
			labels := append(labels, strings.ToValidUTF8(d.Name, "\uFFFD"))
			for _, f := range deviceFamilies {
				want[fmt.Sprintf("vsrun_network_%s_total %q", f.name, labels)] = float64(f.value(&d.Counters))
			}
		}
		for _, f := range deviceFamilies {
			want[fmt.Sprintf("vsrun_%s_total %q", f.name, labels)] = float64(f.value(&s.Total))
		}
		for prefix, m := range map[string]MIB{"netstat": s.MIB, "sockstat": s.Sockets, "neighbours": s.Neighbours} {
			for _, g := range m {
				for _, c := range g.Counters {
					want[fmt.Sprintf("vsrun_%s_%s_%s %q", prefix, g.Name, c.Name, labels)] = float64(c.Value)
				}
			}
		}
		for _, g := range s.Conntrack {
			for _, c := range g.Counters {
				name := strings.Replace("stat_"+c.Name, "stat_entries", "entries", 1)
				want[fmt.Sprintf("vsrun_nf_conntrack_%s %q", name, labels)] = float64(c.Value)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// checkOpenMetrics checks what OpenMetrics 1.0 asks for beyond the older format:
// each family in one piece, led by its head; counters named _total; the end.
func checkOpenMetrics(t *testing.T, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Error("not UTF-8")
	}
	lines, ok := strings.CutSuffix(text, "# EOF\n")
	if !ok {
		t.Error("no # EOF")
	}
	seen := map[string]bool{}
	family, kind := "", ""
	for line := range strings.Lines(lines) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		switch {
		case strings.HasPrefix(line, "# HELP "):
			family, kind = fields[2], ""
			if seen[family] {
				t.Errorf("family %s is in two pieces", family)
			}
			seen[family] = true
		case strings.HasPrefix(line, "# TYPE "):
			kind = fields[3]
			if fields[2] != family || kind != "counter" && kind != "gauge" && kind != "unknown" {
				t.Errorf("under %s: %s", family, line)
			}
		case strings.HasPrefix(line, "# UNIT "):
			if fields[2] != family || !strings.HasSuffix(family, "_"+fields[3]) {
				t.Errorf("under %s: %s", family, line)
			}
		default:
			want := map[string]string{"counter": family + "_total", "gauge": family, "unknown": family}[kind]
			if name, _, ok := strings.Cut(line, "{vs="); !ok || name != want {
				t.Errorf("under %s, a %s: %s", family, kind, line)
			}
		}
	}
}

func TestWriteMetricsPassesErrorsOn(t *testing.T) {
	full := errors.New("full")
	if err := WriteMetrics(failing{full}, twoServers, PrometheusText); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestWriteMetricsAllocatesLittle(t *testing.T) {
	samples := manySamples(t, 1000)
	allocations := testing.AllocsPerRun(3, func() {
		if err := WriteMetrics(io.Discard, samples, OpenMetrics); err != nil {
			t.Fatal(err)
		}
	})
	if allocations > 60 {
		t.Errorf("%v allocations for 1000 virtual servers", allocations)
	}
}

// manySamples are alike but for one, which has more counters.
func manySamples(t testing.TB, n int) []Sample {
	t.Helper()
	mib, err := parseSNMP(fixture(t, "snmp") + fixture(t, "netstat"))
	if err != nil {
		t.Fatal(err)
	}
	samples := make([]Sample, n)
	for i := range samples {
		samples[i] = Sample{ID: i, Name: fmt.Sprint("name", i), Interfaces: []Interface{{Name: "eth0"}}, MIB: mib}
	}
	samples[n/2].MIB = append(slices.Clone(mib), Group{"More", []Counter{{"Counter", 1}}})
	return samples
}

func BenchmarkWriteMetrics(b *testing.B) {
	samples := manySamples(b, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if err := WriteMetrics(io.Discard, samples, OpenMetrics); err != nil {
			b.Fatal(err)
		}
	}
}

func metrics(t *testing.T, samples []Sample, format Format) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteMetrics(&b, samples, format); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
