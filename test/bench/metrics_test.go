package bench

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/vsrun/vsrun/stats"
)

// metrics compares writing the metrics of all with client_golang writing the same series.
func (b *bench) metrics(t *testing.T, size int) {
	samples := make([]stats.Sample, size)
	for i, src := range b.sources(numbers(size)) {
		var err error
		samples[i], err = stats.Read(src)
		must(t, err)
	}
	write := func(w io.Writer) { must(t, stats.WriteMetrics(w, samples, stats.PrometheusText)) }
	var text strings.Builder
	write(&text)
	registry := prometheus.NewRegistry()
	registry.MustRegister(asCollector(t, text.String()))
	handler := promhttp.HandlerFor(registry, promhttp.HandlerOpts{DisableCompression: true})
	taken := race(b.turns(5),
		func() float64 { return millis(timed(func() { write(io.Discard) })) },
		func() float64 {
			return millis(timed(func() { handler.ServeHTTP(discarding{}, httptest.NewRequest("GET", "/metrics", nil)) }))
		})
	b.tell(row("read", "text of /metrics, of samples that are there", size, "ms", taken[0], "client_golang, the same series", taken[1], ratio(0.1)))
}

// A discarding answer goes nowhere.
type discarding struct{}

func (discarding) Header() http.Header         { return http.Header{} }
func (discarding) Write(p []byte) (int, error) { return len(p), nil }
func (discarding) WriteHeader(int)             {}

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

func asCollector(t *testing.T, text string) (c collector) {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	must(t, err)
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
	return c
}
