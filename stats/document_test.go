package stats

import (
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/test/lab"
)

// Every metric of a virtual server is in docs/counters.md, and what is in there is one, or
// is marked as what not every kernel has.
func TestCountersAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/counters.md")
	if err != nil {
		t.Fatal("this test reads the module's documents: ", err)
	}
	documented := documentedMetrics(string(text))
	given := map[string]bool{}
	for name := range parseText(t, metrics(t, []Sample{wholeSample(t)}, PrometheusText)) {
		name, _, _ = strings.Cut(name, " ")
		name = messageType.ReplaceAllString(name, "${1}TypeN")
		given[name] = true
		if _, ok := documented[name]; !ok {
			t.Errorf("%s is not in the document", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if always := documented[name]; always && !given[name] {
			t.Errorf("the document has %s, and this kernel has not", name)
		}
	}
}

var messageType = regexp.MustCompile(`(_Icmp(?:Msg|6)_(?:In|Out))Type[0-9]+$`)

// wholeSample has everything that a sample may have.
func wholeSample(t *testing.T) Sample {
	t.Helper()
	h := lab.New(t)
	pair(t, h)
	s := read(t, 1)
	var err error
	if s.Neighbours, err = Neighbours(path(1)); err != nil {
		t.Fatal(err)
	}
	var use cgroup.Use
	for v, i := reflect.ValueOf(&use).Elem(), 0; i < v.NumField(); i++ {
		v.Field(i).Set(reflect.New(v.Field(i).Type().Elem()))
	}
	s.Use, s.Services = &use, []cgroup.ServiceUse{{Name: "web", Use: use}}
	return s
}

var (
	section = regexp.MustCompile(`^### (\w+)$`)
	code    = regexp.MustCompile("`(\\w+)`( [¹²³])?")
)

// documentedMetrics are the metrics that are named whole, and those of the protocols'
// lists, by their names; true for those that each kernel has.
func documentedMetrics(text string) map[string]bool {
	names := map[string]bool{}
	group := ""
	for line := range strings.Lines(text) {
		if m := section.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			group = m[1]
		} else if strings.HasPrefix(line, "#") {
			group = ""
		}
		for _, m := range code.FindAllStringSubmatch(line, -1) {
			name, mark := m[1], m[2]
			switch {
			case strings.HasPrefix(name, "vsrun_"):
				names[name] = !strings.Contains(name, "conntrack")
			case group != "":
				names["vsrun_netstat_"+group+"_"+name] = mark == "" && !strings.HasSuffix(name, "TypeN") && group != "MPTcpExt"
			}
		}
	}
	return names
}
