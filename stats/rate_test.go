package stats

import (
	"testing"
	"time"

	"github.com/vsrun/vsrun/nsutil/cgroup"
)

// at is a reading after so many seconds.
func at(seconds float64, in ...Interface) Sample {
	return Sample{ID: 8, Time: time.Unix(1_000_000, int64(seconds*1e9)), Interfaces: in}
}

func device(name string, rx, tx uint64) Interface {
	return Interface{name, Counters{RxBytes: rx, TxBytes: tx, TxPackets: tx / 10}}
}

func TestRates(t *testing.T) {
	s := Between(at(1, device("eth0", 100, 1000), device("eth1", 5, 5)), at(1.5, device("eth0", 200, 6000), device("eth1", 5, 6)))
	if r, ok := s.Interface("eth0"); !ok || r != (Rate{RxBytes: 200, TxBytes: 10_000, TxPackets: 1000}) {
		t.Errorf("eth0: %+v, %v", r, ok)
	}
	if r, ok := s.Total(); !ok || r != (Rate{RxBytes: 200, TxBytes: 10_002, TxPackets: 1000}) {
		t.Errorf("total: %+v, %v", r, ok)
	}
	if r, ok := s.Interface("eth2"); ok {
		t.Errorf("eth2: %+v", r)
	}
}

// What counts anew has no rate until it has been seen twice, and takes no other's away.
func TestRatesOfWhatBeganAnew(t *testing.T) {
	s := Between(at(1, device("eth0", 1<<40, 1<<40), device("eth1", 5, 5)), at(2, device("eth0", 70, 1<<41), device("eth1", 6, 7), device("eth2", 1<<50, 0)))
	for _, name := range []string{"eth0", "eth2"} {
		if r, ok := s.Interface(name); ok {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r, ok := s.Total(); !ok || r != (Rate{RxBytes: 1, TxBytes: 2}) {
		t.Errorf("total: %+v, %v", r, ok)
	}
}

func TestRateWithoutInterfaces(t *testing.T) {
	if r, ok := Between(at(1), at(2)).Total(); !ok || r != (Rate{}) {
		t.Errorf("%+v, %v", r, ok)
	}
}

func TestRatesOfNothing(t *testing.T) {
	one := at(2, device("eth0", 1, 1))
	other := at(3, device("eth0", 9, 9))
	other.ID = 9
	again := at(3, device("eth0", 9, 9))
	again.Life = "another"
	for what, s := range map[string]Span{
		"the zero span":          {},
		"one moment":             Between(one, one),
		"a clock set back":       Between(one, at(1, device("eth0", 9, 9))),
		"another virtual server": Between(one, other),
		"another namespace":      Between(one, again),
	} {
		if r, ok := s.Total(); ok {
			t.Errorf("%s: %+v", what, r)
		}
		if u := s.Use(); u != (UseRate{}) {
			t.Errorf("%s: %+v", what, u)
		}
		if r, ok := s.Counter("Tcp", "InSegs"); ok {
			t.Errorf("%s: %v", what, r)
		}
	}
}

func TestCounterRates(t *testing.T) {
	was, is := at(0), at(2)
	was.MIB = MIB{{"Tcp", []Counter{{"InSegs", 10}, {"CurrEstab", 1}, {"OutSegs", 9}}}, {"MPTcpExt", []Counter{{"MPCurrEstab", 1}}}}
	is.MIB = MIB{{"Tcp", []Counter{{"InSegs", 20}, {"CurrEstab", 7}, {"OutSegs", 8}, {"InErrs", 4}}}, {"MPTcpExt", []Counter{{"MPCurrEstab", 2}}}}
	was.Conntrack = MIB{{"nf_conntrack", []Counter{{"entries", 1}, {"insert", 10}}}}
	is.Conntrack = MIB{{"nf_conntrack", []Counter{{"entries", 9}, {"insert", 12}}}}
	s := Between(was, is)
	if r, ok := s.Counter("nf_conntrack", "insert"); r != 1 || !ok {
		t.Errorf("insert: %v, %v", r, ok)
	}
	if r, ok := s.Counter("nf_conntrack", "entries"); ok {
		t.Errorf("entries: %v", r)
	}
	if r, ok := s.Counter("Tcp", "InSegs"); r != 5 || !ok {
		t.Errorf("InSegs: %v, %v", r, ok)
	}
	if r, ok := s.Counter("MPTcpExt", "MPCurrEstab"); ok {
		t.Errorf("MPCurrEstab: %v", r)
	}
	for _, name := range []string{"CurrEstab", "OutSegs", "InErrs", "Bogus"} {
		if r, ok := s.Counter("Tcp", name); ok {
			t.Errorf("%s: %v", name, r)
		}
	}
}

func TestUseRates(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	was, is := at(0), at(2)
	was.Use, is.Use = &cgroup.Use{CPU: n(1_000_000), ReadBytes: n(100)}, &cgroup.Use{CPU: n(2_000_000), ReadBytes: n(50)}
	was.Services = []cgroup.ServiceUse{{Name: "web", Use: cgroup.Use{CPU: n(0)}}}
	is.Services = []cgroup.ServiceUse{{Name: "new", Use: cgroup.Use{CPU: n(5)}}, {Name: "web", Use: cgroup.Use{CPU: n(3_000_000)}}}
	s := Between(was, is)
	if u := s.Use(); u.CPU == nil || *u.CPU != 0.5 || u.ReadBytes != nil || u.WriteBytes != nil {
		t.Errorf("%+v", u)
	}
	if u := s.Service("web"); u.CPU == nil || *u.CPU != 1.5 {
		t.Errorf("%+v", u)
	}
	if u := s.Service("new"); u != (UseRate{}) {
		t.Errorf("%+v", u)
	}
}

func TestMeter(t *testing.T) {
	var m Meter
	rate := func() float64 {
		r, _ := m.Span(8).Total()
		return r.Bytes()
	}
	for _, step := range []struct {
		what    string
		reading []Sample
		want    float64
	}{
		{"the first", []Sample{at(0, device("eth0", 0, 0))}, 0},
		{"the second", []Sample{at(1, device("eth0", 30, 0))}, 30},
		{"the same again", []Sample{at(1, device("eth0", 30, 0))}, 30},
		{"the next", []Sample{at(2, device("eth0", 50, 0))}, 20},
		{"gone", nil, 0},
		{"back", []Sample{at(4, device("eth0", 500, 0))}, 0},
	} {
		if m.Read(step.reading); rate() != step.want {
			t.Errorf("%s: %v, want %v", step.what, rate(), step.want)
		}
	}
}
