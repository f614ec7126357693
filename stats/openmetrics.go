package stats

import (
	"bufio"
	"io"
	"strconv"
	"strings"
)

// Format is a text format for metrics.
type Format int

const (
	PrometheusText Format = iota // the Prometheus text format, version 0.0.4
	OpenMetrics                  // OpenMetrics 1.0
)

// ContentType is the format's HTTP Content-Type.
func (f Format) ContentType() string {
	if f == OpenMetrics {
		return "application/openmetrics-text; version=1.0.0; charset=utf-8"
	}
	return "text/plain; version=0.0.4; charset=utf-8"
}

// WriteMetrics writes the samples as metrics, named as node_exporter names them:
//
//	vsrun_network_receive_bytes_total{vs="8",name="finance",device="eth0"} 12
//	vsrun_netstat_Tcp_InSegs{vs="8",name="finance"} 34
//	vsrun_service_memory_usage_bytes{vs="8",name="finance",service="web"} 56
//
// A virtual server may be in samples only once. The only errors are w's.
func WriteMetrics(w io.Writer, samples []Sample, format Format) error {
	m := metricsWriter{bufio.NewWriter(w), format}
	labels := make([]string, len(samples))
	for i, s := range samples {
		labels[i] = `{vs="` + strconv.Itoa(s.ID) + `",name="` + escapeLabel(s.Name) + `"`
	}
	m.devices(samples, labels)
	m.netstat(samples, labels)
	m.use(samples, labels)
	if format == OpenMetrics {
		m.WriteString("# EOF\n")
	}
	return m.Flush()
}

// metricsWriter is a bufio.Writer: the first error stays, and Flush returns it.
type metricsWriter struct {
	*bufio.Writer
	format Format
}

// A deviceFamily is one of an interface's counters in all virtual servers.
type deviceFamily struct {
	name, help string
	value      func(Counters) uint64
}

var deviceFamilies = []deviceFamily{
	{"receive_bytes", "Bytes received.", func(c Counters) uint64 { return c.RxBytes }},
	{"receive_packets", "Packets received.", func(c Counters) uint64 { return c.RxPackets }},
	{"receive_errs", "Packets received with errors.", func(c Counters) uint64 { return c.RxErrors }},
	{"receive_drop", "Received packets that were dropped.", func(c Counters) uint64 { return c.RxDropped }},
	{"transmit_bytes", "Bytes sent.", func(c Counters) uint64 { return c.TxBytes }},
	{"transmit_packets", "Packets sent.", func(c Counters) uint64 { return c.TxPackets }},
	{"transmit_errs", "Packets that could not be sent because of errors.", func(c Counters) uint64 { return c.TxErrors }},
	{"transmit_drop", "Packets that were dropped instead of sent.", func(c Counters) uint64 { return c.TxDropped }},
}

func (m metricsWriter) devices(samples []Sample, labels []string) {
	for _, f := range deviceFamilies {
		name := "vsrun_network_" + f.name
		m.head(name, f.help, "counter")
		for i, s := range samples {
			for _, d := range s.Interfaces {
				m.sample(name+"_total", labels[i]+`,device="`+escapeLabel(d.Name)+`"`)
				m.Write(strconv.AppendUint(m.AvailableBuffer(), f.value(d.Counters), 10))
				m.WriteByte('\n')
			}
		}
	}
}

func (m metricsWriter) netstat(samples []Sample, labels []string) {
	for _, f := range mibFamilies(samples) {
		m.head(f.metric, "Statistic "+f.group+f.name+".", "untyped")
		for i, s := range samples {
			if v, ok := f.lookup(s.MIB); ok {
				m.sample(f.metric, labels[i])
				m.Write(strconv.AppendInt(m.AvailableBuffer(), v, 10))
				m.WriteByte('\n')
			}
		}
	}
}

// head opens a family. The formats disagree on three things: whether a counter's
// family carries its sample's suffix, what is called untyped, and whether there are
// units; OpenMetrics wants a family's name to end in its own.
func (m metricsWriter) head(name, help, kind string) {
	switch {
	case kind == "counter" && m.format == PrometheusText:
		name += "_total"
	case kind == "untyped" && m.format == OpenMetrics:
		kind = "unknown"
	}
	m.WriteString("# HELP " + name + " " + help + "\n")
	m.WriteString("# TYPE " + name + " " + kind + "\n")
	for _, unit := range []string{"bytes", "seconds"} {
		if m.format == OpenMetrics && strings.HasSuffix(name, "_"+unit) {
			m.WriteString("# UNIT " + name + " " + unit + "\n")
		}
	}
}

// sample writes a line up to its value; labels lack their closing brace.
func (m metricsWriter) sample(name, labels string) {
	m.WriteString(name)
	m.WriteString(labels)
	m.WriteString("} ")
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// escapeLabel makes a value of a label of any string: the kernel's names are
// bytes, while the formats are UTF-8.
func escapeLabel(s string) string {
	return labelEscapes.Replace(strings.ToValidUTF8(s, "\uFFFD"))
}

// A mibFamily is one counter of the MIB in all virtual servers.
type mibFamily struct {
	metric, group, name string
	g, c                int // where the first virtual server has it
}

// mibFamilies is every counter that some virtual server has, in the kernel's
// order. They differ: the kernel lists ICMP message types once it has seen one.
func mibFamilies(samples []Sample) []mibFamily {
	var families []mibFamily
	seen := make(map[string]bool)
	for i, s := range samples {
		if i > 0 && sameNames(s.MIB, samples[i-1].MIB) {
			continue
		}
		for g, group := range s.MIB {
			for c, counter := range group.Counters {
				metric := "vsrun_netstat_" + group.Name + "_" + counter.Name
				if !seen[metric] {
					seen[metric] = true
					families = append(families, mibFamily{metric, group.Name, counter.Name, g, c})
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
