package stats

import "slices"

// A deviceFamily is one of an interface's counters in all virtual servers.
type deviceFamily struct {
	name, help string
	value      func(*Counters) uint64
}

var deviceFamilies = []deviceFamily{
	{"receive_bytes", "Bytes received", func(c *Counters) uint64 { return c.RxBytes }},
	{"receive_packets", "Buffers received: one may have come as several packets", func(c *Counters) uint64 { return c.RxPackets }},
	{"receive_errs", "Packets received with errors", func(c *Counters) uint64 { return c.RxErrors }},
	{"receive_drop", "Received packets that were dropped", func(c *Counters) uint64 { return c.RxDropped }},
	{"transmit_bytes", "Bytes sent", func(c *Counters) uint64 { return c.TxBytes }},
	{"transmit_packets", "Buffers sent: one may become several packets", func(c *Counters) uint64 { return c.TxPackets }},
	{"transmit_errs", "Packets that could not be sent because of errors", func(c *Counters) uint64 { return c.TxErrors }},
	{"transmit_drop", "Packets that were dropped instead of sent", func(c *Counters) uint64 { return c.TxDropped }},
}

func (m *metricsWriter) devices() {
	devices := partLabels(m.samples, `,device="`,
		func(s *Sample) int { return len(s.Interfaces) }, func(s *Sample, i int) string { return s.Interfaces[i].Name })
	for _, f := range deviceFamilies {
		m.family(counter, phrase{"vsrun_network_", f.name}, phrase{f.help, "."})
		next := 0
		for i := range m.samples {
			for d := range m.samples[i].Interfaces {
				m.unsigned(devices.at(next), f.value(&m.samples[i].Interfaces[d].Counters))
				next++
			}
		}
	}
}

func (m *metricsWriter) totals() {
	for _, f := range deviceFamilies {
		m.family(counter, phrase{"vsrun_", f.name}, phrase{f.help, ", on all interfaces."})
		for i := range m.samples {
			m.unsigned(m.servers.at(i), f.value(&m.samples[i].Total))
		}
	}
}

// mibGauges are those of the MIB that do not count on (RFC 4293, RFC 4022). The others do, but are named
// without the _total that a counter has to have: node_exporter calls them untyped, too.
var mibGauges = map[[2]string]bool{
	{"Ip", "Forwarding"}: true, {"Ip", "DefaultTTL"}: true,
	{"Tcp", "RtoAlgorithm"}: true, {"Tcp", "RtoMin"}: true, {"Tcp", "RtoMax"}: true, {"Tcp", "MaxConn"}: true, {"Tcp", "CurrEstab"}: true,
	{"MPTcpExt", "MPCurrEstab"}: true,
}

func (m *metricsWriter) netstat() {
	m.figures(func(s *Sample) MIB { return s.MIB }, func(group, name string) {
		kind := untyped
		if mibGauges[[2]string{group, name}] {
			kind = gauge
		}
		m.family(kind, phrase{"vsrun_netstat_", group, "_", name}, phrase{"Statistic ", group, name, "."})
	})
}

func (m *metricsWriter) sockstat() {
	m.figures(func(s *Sample) MIB { return s.Sockets }, func(group, name string) {
		m.family(gauge, phrase{"vsrun_sockstat_", group, "_", name}, phrase{"Figure ", name, " of ", group, " in sockstat."})
	})
}

func (m *metricsWriter) conntrack() {
	m.figures(func(s *Sample) MIB { return s.Conntrack }, func(_, name string) {
		if name == entries {
			m.family(gauge, phrase{"vsrun_nf_conntrack_entries"}, phrase{"Connections that are tracked."})
		} else {
			m.family(untyped, phrase{"vsrun_nf_conntrack_stat_", name}, phrase{"Statistic ", name, " of connection tracking."})
		}
	})
}

func (m *metricsWriter) neighbours() {
	m.figures(func(s *Sample) MIB { return s.Neighbours }, func(family, state string) {
		m.family(gauge, phrase{"vsrun_neighbours_", family, "_", state}, phrase{"Neighbours (", family, ") in state ", state, "."})
	})
}

// figures writes a family for each counter that some virtual server has in a MIB.
func (m *metricsWriter) figures(of func(*Sample) MIB, begin func(group, name string)) {
	for _, f := range mibFamilies(m.samples, of) {
		begin(f.group, f.name)
		for i := range m.samples {
			if v, ok := f.lookup(of(&m.samples[i])); ok {
				m.integer(m.servers.at(i), v)
			}
		}
	}
}

// A mibFamily is one counter of the MIB in all virtual servers.
type mibFamily struct {
	group, name string
	g, c        int // where the first virtual server has it
}

// mibFamilies is every counter that some virtual server has, in the kernel's
// order. They differ: the kernel lists ICMP message types once it has seen one.
func mibFamilies(samples []Sample, of func(*Sample) MIB) []mibFamily {
	var families []mibFamily
	var last MIB
	seen := make(map[[2]string]bool)
	for i := range samples {
		m := of(&samples[i])
		if sameNames(m, last) {
			continue
		}
		last = m
		for g, group := range m {
			families = slices.Grow(families, len(group.Counters))
			for c, counter := range group.Counters {
				key := [2]string{group.Name, counter.Name}
				if !seen[key] {
					seen[key] = true
					families = append(families, mibFamily{group.Name, counter.Name, g, c})
				}
			}
		}
	}
	return families
}
func sameNames(a, b MIB) bool {
	if len(a) != len(b) {
		return false
	}
	for g := range a {
		if a[g].Name != b[g].Name || len(a[g].Counters) != len(b[g].Counters) {
			return false
		}
		for c := range a[g].Counters {
			if a[g].Counters[c].Name != b[g].Counters[c].Name {
				return false
			}
		}
	}
	return true
}

// lookup looks where the counter nearly always is before it searches.
func (f mibFamily) lookup(m MIB) (int64, bool) {
	if f.g < len(m) && m[f.g].Name == f.group && f.c < len(m[f.g].Counters) {
		if c := m[f.g].Counters[f.c]; c.Name == f.name {
			return c.Value, true
		}
	}
	return m.Lookup(f.group, f.name)
}
