package stats

import (
	"slices"
	"time"

	"github.com/vsrun/vsrun/nsutil/cgroup"
)

// A Rate is what was counted in a second, on average.
type Rate struct {
	RxBytes, RxPackets, RxErrors, RxDropped float64
	TxBytes, TxPackets, TxErrors, TxDropped float64
}

// Bytes is what went either way.
func (r Rate) Bytes() float64 { return r.RxBytes + r.TxBytes }

// Lost is the packets with errors and those that were dropped.
func (r Rate) Lost() float64 { return r.RxErrors + r.RxDropped + r.TxErrors + r.TxDropped }

// Plus is the sum of both.
func (r Rate) Plus(o Rate) Rate {
	return Rate{
		r.RxBytes + o.RxBytes, r.RxPackets + o.RxPackets, r.RxErrors + o.RxErrors, r.RxDropped + o.RxDropped,
		r.TxBytes + o.TxBytes, r.TxPackets + o.TxPackets, r.TxErrors + o.TxErrors, r.TxDropped + o.TxDropped,
	}
}

// A Span is the time between two readings of a virtual server. What began to
// count anew in it, as an interface does that was made again, has no rate in
// it. The zero Span has none at all.
type Span struct {
	was, is Sample
	seconds float64
}

// Between is the Span from one reading to a later one; the zero Span where they
// cannot be compared, being of different virtual servers or of the same moment.
func Between(was, is Sample) Span {
	seconds := is.Time.Sub(was.Time).Seconds()
	if was.ID != is.ID || was.Life != is.Life || seconds <= 0 {
		return Span{}
	}
	return Span{was, is, seconds}
}

// Total is the sum over the interfaces that have a rate; false where there are
// interfaces, and none has.
func (s Span) Total() (sum Rate, ok bool) {
	if s.seconds > 0 && len(s.is.Interfaces) == 0 {
		return Rate{}, true
	}
	for _, i := range s.is.Interfaces {
		if r, has := s.Interface(i.Name); has {
			sum, ok = sum.Plus(r), true
		}
	}
	return sum, ok
}

// Interface is the rate of one, by its name.
func (s Span) Interface(name string) (Rate, bool) {
	named := func(i Interface) bool { return i.Name == name }
	was, is := slices.IndexFunc(s.was.Interfaces, named), slices.IndexFunc(s.is.Interfaces, named)
	if was < 0 || is < 0 {
		return Rate{}, false
	}
	return s.of(s.was.Interfaces[was].Counters, s.is.Interfaces[is].Counters)
}

func (s Span) of(was, is Counters) (r Rate, ok bool) {
	for _, c := range []struct {
		was, is uint64
		to      *float64
	}{
		{was.RxBytes, is.RxBytes, &r.RxBytes}, {was.TxBytes, is.TxBytes, &r.TxBytes},
		{was.RxPackets, is.RxPackets, &r.RxPackets}, {was.TxPackets, is.TxPackets, &r.TxPackets},
		{was.RxErrors, is.RxErrors, &r.RxErrors}, {was.TxErrors, is.TxErrors, &r.TxErrors},
		{was.RxDropped, is.RxDropped, &r.RxDropped}, {was.TxDropped, is.TxDropped, &r.TxDropped},
	} {
		if c.is < c.was { // 64 bits do not wrap in a lifetime: another device
			return Rate{}, false
		}
		*c.to = float64(c.is-c.was) / s.seconds
	}
	return r, true
}

// Counter is the rate of a counter of the MIB, or of connection tracking. Levels, such
// as Tcp's CurrEstab, have none.
func (s Span) Counter(group, name string) (float64, bool) {
	of := func(s Sample) MIB {
		if group == "nf_conntrack" {
			return s.Conntrack
		}
		return s.MIB
	}
	was, had := of(s.was).Lookup(group, name)
	is, has := of(s.is).Lookup(group, name)
	if !had || !has || is < was || isLevel(group, name) {
		return 0, false
	}
	return float64(is-was) / s.seconds, true
}

// isLevel tells what does not count on, but is set or measured.
func isLevel(group, name string) bool {
	return mibGauges[[2]string{group, name}] || group == "nf_conntrack" && name == entries
}

// A UseRate is what processes used in a second, on average. What the kernel does
// not count, and what began anew, is absent.
type UseRate struct {
	CPU        *float64 // processors: 1 is one at work all the time
	ReadBytes  *float64
	WriteBytes *float64
}

// Use is what all processes used.
func (s Span) Use() UseRate {
	if s.was.Use == nil || s.is.Use == nil {
		return UseRate{}
	}
	return s.used(*s.was.Use, *s.is.Use)
}

// Service is what those of a service used.
func (s Span) Service(name string) UseRate {
	named := func(u cgroup.ServiceUse) bool { return u.Name == name }
	was, is := slices.IndexFunc(s.was.Services, named), slices.IndexFunc(s.is.Services, named)
	if was < 0 || is < 0 {
		return UseRate{}
	}
	return s.used(s.was.Services[was].Use, s.is.Services[is].Use)
}

func (s Span) used(was, is cgroup.Use) UseRate {
	rate := func(was, is *int64, unit float64) *float64 {
		if was == nil || is == nil || *is < *was {
			return nil
		}
		r := float64(*is-*was) / unit / s.seconds
		return &r
	}
	return UseRate{
		CPU:        rate(was.CPU, is.CPU, float64(time.Second/time.Microsecond)),
		ReadBytes:  rate(was.ReadBytes, is.ReadBytes, 1),
		WriteBytes: rate(was.WriteBytes, is.WriteBytes, 1),
	}
}

// A Meter compares each reading with the one before. The zero value is ready.
type Meter struct {
	spans map[int]Span // the latest, by ID
}

// Read takes in a reading of some virtual servers, and forgets all others. It
// keeps the samples' memory.
func (m *Meter) Read(samples []Sample) {
	spans := make(map[int]Span, len(samples))
	for _, s := range samples {
		last := m.spans[s.ID]
		if last.is.Time.Equal(s.Time) { // shared with another asker, and seen before
			spans[s.ID] = last
			continue
		}
		span := Between(last.is, s)
		span.is = s
		spans[s.ID] = span
	}
	m.spans = spans
}

// Span is the one up to the last reading of a virtual server.
func (m *Meter) Span(id int) Span { return m.spans[id] }
