package stats

import (
	"bufio"
	"bytes"
	"io"
	"strconv"
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
//	vsrun_receive_bytes_total{vs="8",name="finance"} 12
//	vsrun_netstat_Tcp_InSegs{vs="8",name="finance"} 34
//	vsrun_service_memory_usage_bytes{vs="8",name="finance",service="web"} 56
//	vsrun_ledger_receive_bytes_total{vs="8",name="finance"} 78
//
// docs/counters.md lists them all. A virtual server may be in samples only once. The only
// errors are w's.
func WriteMetrics(w io.Writer, samples []Sample, format Format) error {
	m := metricsWriter{Writer: bufio.NewWriterSize(w, 64<<10), format: format, samples: samples, servers: serverLabels(samples)}
	m.devices()
	m.totals()
	m.netstat()
	m.sockstat()
	m.conntrack()
	m.neighbours()
	m.use()
	m.ledgers()
	if format == OpenMetrics {
		m.WriteString("# EOF\n")
	}
	return m.Flush()
}

// A metricsWriter writes a family after the other, without making strings: there are
// hundreds of families, and as many samples in each as virtual servers. The first error
// of a bufio.Writer stays, and Flush returns it.
type metricsWriter struct {
	*bufio.Writer
	format  Format
	samples []Sample
	servers labels // one for each of the samples

	kind       string // of the family
	name, help []byte
	begun      bool // its head was written
}

// The kinds of families, as the Prometheus text format calls them.
const (
	counter = "counter"
	gauge   = "gauge"
	untyped = "untyped"
)

// A phrase is a text in parts.
type phrase []string

func (p phrase) appendTo(b []byte) []byte {
	for _, part := range p {
		b = append(b, part...)
	}
	return b
}

// family begins a family. Its head comes with its first sample, if there is one.
func (m *metricsWriter) family(kind string, name, help phrase) {
	m.kind, m.begun = kind, false
	m.name = name.appendTo(m.name[:0])
	m.help = help.appendTo(m.help[:0])
}

// head opens a family. The formats disagree on three things: whether a counter's
// family carries its sample's suffix, what is called untyped, and whether there are
// units; OpenMetrics wants a family's name to end in its own.
func (m *metricsWriter) head() {
	suffix, kind := "", m.kind
	switch {
	case kind == counter && m.format == PrometheusText:
		suffix = "_total"
	case kind == untyped && m.format == OpenMetrics:
		kind = "unknown"
	}
	m.about("# HELP ", suffix)
	m.Write(m.help)
	m.about("\n# TYPE ", suffix)
	m.WriteString(kind)
	if m.format == OpenMetrics {
		for _, unit := range units {
			if bytes.HasSuffix(m.name, unit) {
				m.about("\n# UNIT ", suffix)
				m.Write(unit[1:])
			}
		}
	}
	m.WriteByte('\n')
}

var units = [][]byte{[]byte("_bytes"), []byte("_seconds")}

func (m *metricsWriter) about(what, suffix string) {
	m.WriteString(what)
	m.Write(m.name)
	m.WriteString(suffix)
	m.WriteByte(' ')
}

// sample writes a line up to its value; the labels lack their closing brace.
func (m *metricsWriter) sample(labels []byte) {
	if !m.begun {
		m.begun = true
		m.head()
	}
	m.Write(m.name)
	if m.kind == counter {
		m.WriteString("_total")
	}
	m.Write(labels)
	m.WriteString("} ")
}

func (m *metricsWriter) unsigned(labels []byte, v uint64) {
	m.sample(labels)
	m.Write(strconv.AppendUint(m.AvailableBuffer(), v, 10))
	m.WriteByte('\n')
}

func (m *metricsWriter) integer(labels []byte, v int64) {
	m.sample(labels)
	m.Write(strconv.AppendInt(m.AvailableBuffer(), v, 10))
	m.WriteByte('\n')
}

// seconds writes microseconds.
func (m *metricsWriter) seconds(labels []byte, v int64) {
	m.sample(labels)
	m.Write(strconv.AppendFloat(m.AvailableBuffer(), float64(v)/1e6, 'f', -1, 64))
	m.WriteByte('\n')
}
