package stats

import (
	"strconv"
	"time"
)

// ledgers writes what is kept of the ledgers: none of these figures ever goes back, where
// those of the namespaces begin again. Each says since when it counts (_created), in the
// format that has a way to.
func (m *metricsWriter) ledgers() {
	each := func(write func(labels []byte, l *Ledger)) {
		for i := range m.samples {
			if l := m.samples[i].Ledger; l != nil {
				write(m.servers.at(i), l)
			}
		}
	}
	for _, f := range deviceFamilies {
		m.family(counter, phrase{"vsrun_ledger_", f.name}, phrase{f.help, ", over all lives of the virtual server."})
		each(func(labels []byte, l *Ledger) { m.counted(labels, f.value(&l.Kept.Total), l.Since) })
	}
	m.ledgerDevices()
	for _, f := range mibFamilies(m.samples, keptMIB) {
		m.family(counter, phrase{"vsrun_ledger_netstat_", f.group, "_", f.name}, phrase{"Statistic ", f.group, f.name, ", over all lives of the virtual server."})
		each(func(labels []byte, l *Ledger) {
			if v, ok := f.lookup(l.Kept.MIB); ok {
				m.counted(labels, uint64(v), l.Since)
			}
		})
	}
	m.family(counter, phrase{"vsrun_ledger_gaps"}, phrase{"Namespaces and interfaces that vanished before their last figures were written."})
	each(func(labels []byte, l *Ledger) { m.counted(labels, uint64(l.Gaps), l.Since) })
	m.family(counter, phrase{"vsrun_ledger_lost_seconds"}, phrase{"Time until that was noticed, in which counts are missing."})
	each(func(labels []byte, l *Ledger) {
		m.seconds(labels, int64(l.Lost*1e6))
		m.created(labels, l.Since)
	})
	m.family(gauge, phrase{"vsrun_ledger_since_timestamp_seconds"}, phrase{"When counting began."})
	each(func(labels []byte, l *Ledger) { m.seconds(labels, l.Since.UnixMicro()) })
	m.family(gauge, phrase{"vsrun_ledger_written_timestamp_seconds"}, phrase{"When what is written of the ledger was read."})
	each(func(labels []byte, l *Ledger) { m.seconds(labels, l.Kept.Time.UnixMicro()) })
}

func keptMIB(s *Sample) MIB {
	if s.Ledger == nil {
		return nil
	}
	return s.Ledger.Kept.MIB
}

func (m *metricsWriter) ledgerDevices() {
	count := func(s *Sample) int {
		if s.Ledger == nil {
			return 0
		}
		return len(s.Ledger.Kept.Interfaces)
	}
	devices := partLabels(m.samples, `,device="`, count, func(s *Sample, i int) string { return s.Ledger.Kept.Interfaces[i].Name })
	for _, f := range deviceFamilies {
		m.family(counter, phrase{"vsrun_ledger_device_", f.name}, phrase{f.help, ", over all lives of the interface."})
		next := 0
		for i := range m.samples {
			for d := range count(&m.samples[i]) {
				a := &m.samples[i].Ledger.Kept.Interfaces[d]
				m.counted(devices.at(next), f.value(&a.Counters), a.Since)
				next++
			}
		}
	}
}

// counted writes a counter that counts since a time.
func (m *metricsWriter) counted(labels []byte, v uint64, since time.Time) {
	m.unsigned(labels, v)
	m.created(labels, since)
}

func (m *metricsWriter) created(labels []byte, since time.Time) {
	if m.format == OpenMetrics {
		m.Write(m.name)
		m.WriteString("_created")
		m.Write(labels)
		m.WriteString("} ")
		m.Write(strconv.AppendFloat(m.AvailableBuffer(), float64(since.UnixMicro())/1e6, 'f', -1, 64))
		m.WriteByte('\n')
	}
}
