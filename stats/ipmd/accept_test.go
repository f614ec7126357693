package ipmd

import (
	"testing"

	"github.com/vsrun/vsrun/stats"
)

func TestAcceptedFormat(t *testing.T) {
	// As Prometheus 2.53 sends it.
	const prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
	for accept, want := range map[string]stats.Format{
		"":                             stats.PrometheusText,
		"*/*":                          stats.PrometheusText,
		"text/plain":                   stats.PrometheusText,
		prometheus:                     stats.OpenMetrics,
		"application/openmetrics-text": stats.OpenMetrics,
		"Application/OpenMetrics-Text; Version=1.0.0":              stats.OpenMetrics,
		"text/plain, application/openmetrics-text":                 stats.OpenMetrics,
		"text/plain;q=0.9, application/openmetrics-text;q=0.8":     stats.PrometheusText,
		"application/openmetrics-text;q=0":                         stats.PrometheusText,
		"application/openmetrics-text;version=0.0.1":               stats.PrometheusText,
		"application/openmetrics-text;version=2.0.0;q=1, */*;q=.1": stats.PrometheusText,
		"application/json":                   stats.PrometheusText,
		";;,,\"":                             stats.PrometheusText,
		"application/openmetrics-text;q=NaN": stats.PrometheusText,
	} {
		if got := acceptedFormat([]string{accept}); got != want {
			t.Errorf("%q gives %v", accept, got)
		}
	}
	if got := acceptedFormat([]string{"text/html", "application/openmetrics-text"}); got != stats.OpenMetrics {
		t.Errorf("two headers give %v", got)
	}
}
