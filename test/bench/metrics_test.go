package bench

import (
	"fmt"
	"io"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/vsrun/vsrun/stats"
	"github.com/vsrun/vsrun/test/lab"
)

// BenchmarkMetrics compares writing the metrics of 1000 virtual servers with
// client_golang doing that for the same series, and prints a table.
func BenchmarkMetrics(b *testing.B) {
	h := lab.New(b)
	h.Segment("eth1")
	sources := crowd(b, h, 0, 1)
	samples := make([]stats.Sample, 1000)
	for i := range samples {
		src := sources[0]
		src.ID, src.Name = i+1, fmt.Sprintf("server%d", i+1)
		sample, err := stats.Read(src)
		if err != nil {
			b.Fatal(err)
		}
		samples[i] = sample
	}
	var text strings.Builder
	write := func(w io.Writer) {
		if err := stats.WriteMetrics(w, samples, stats.PrometheusText); err != nil {
			b.Fatal(err)
		}
	}
	write(&text)
	theirs, series := asCollector(b, text.String())
	registry := prometheus.NewRegistry()
	registry.MustRegister(theirs)
	handler := promhttp.HandlerFor(registry, promhttp.HandlerOpts{DisableCompression: true})
	answer := func(w io.Writer) {
		r := httptest.NewRecorder()
		handler.ServeHTTP(discarding{r, w}, httptest.NewRequest("GET", "/metrics", nil))
	}
	var size counting
	answer(&size)
	ours, other := inTurn(5, func() { write(io.Discard) }, func() { answer(io.Discard) })
	fmt.Printf("\n/metrics of 1000 virtual servers, %d series:\n\n| | stats.WriteMetrics | client_golang | ratio |\n|---|---|---|---|\n", series)
	fmt.Printf("| ms | %.1f | %.0f | %.4f |\n", ours.Seconds()*1000, other.Seconds()*1000, float64(ours)/float64(other))
	a, o := allocations(func() { write(io.Discard) }), allocations(func() { answer(io.Discard) })
	fmt.Printf("| allocations | %d | %d | |\n| bytes | %d | %d | |\n", a, o, text.Len(), size)
}

func allocations(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}

// A counting writer counts.
type counting int

func (c *counting) Write(p []byte) (int, error) { *c += counting(len(p)); return len(p), nil }

// A discarding answer goes elsewhere.
type discarding struct {
	*httptest.ResponseRecorder
	to io.Writer
}

func (d discarding) Write(p []byte) (int, error) { return d.to.Write(p) }

// A collector has series to tell of.
type collector []constant

type constant struct {
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	value  float64
	labels []string
}

func (c collector) Describe(chan<- *prometheus.Desc) {}

func (c collector) Collect(to chan<- prometheus.Metric) {
	for _, s := range c {
		to <- prometheus.MustNewConstMetric(s.desc, s.kind, s.value, s.labels...)
	}
}

func asCollector(b *testing.B, text string) (c collector, series int) {
	b.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		b.Fatal(err)
	}
	for name, f := range families {
		kind := prometheus.UntypedValue
		switch f.GetType() {
		case dto.MetricType_COUNTER:
			kind = prometheus.CounterValue
		case dto.MetricType_GAUGE:
			kind = prometheus.GaugeValue
		}
		var desc *prometheus.Desc
		for _, m := range f.GetMetric() {
			var names, values []string
			for _, l := range m.GetLabel() {
				names, values = append(names, l.GetName()), append(values, l.GetValue())
			}
			if desc == nil {
				desc = prometheus.NewDesc(name, f.GetHelp(), names, nil)
			}
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue() // one of them is not nil
			c = append(c, constant{desc, kind, v, values})
		}
	}
	return c, len(c)
}
