package stats

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/nsutil/cgroup"
)

func TestWriteUse(t *testing.T) {
	n := func(n int64) *int64 { return &n }
	samples := []Sample{
		{ID: 8, Name: "finance", Use: &cgroup.Use{Memory: n(4096), CPU: n(1_500_000), OOMKills: n(0)}, Services: []cgroup.ServiceUse{
			{Name: "smbd", Use: cgroup.Use{Memory: n(1024), CPU: n(25)}},
			{Name: "web", Use: cgroup.Use{Memory: n(3072)}},
		}},
		{ID: 9, Name: "web"}, // nothing runs in it
	}
	const want = `# HELP vsrun_memory_usage_bytes Memory in use, files that are kept in memory included.
# TYPE vsrun_memory_usage_bytes gauge
# UNIT vsrun_memory_usage_bytes bytes
vsrun_memory_usage_bytes{vs="8",name="finance"} 4096
# HELP vsrun_service_memory_usage_bytes Memory in use, files that are kept in memory included.
# TYPE vsrun_service_memory_usage_bytes gauge
# UNIT vsrun_service_memory_usage_bytes bytes
vsrun_service_memory_usage_bytes{vs="8",name="finance",service="smbd"} 1024
vsrun_service_memory_usage_bytes{vs="8",name="finance",service="web"} 3072
# HELP vsrun_cpu_usage_seconds Processor time.
# TYPE vsrun_cpu_usage_seconds counter
# UNIT vsrun_cpu_usage_seconds seconds
vsrun_cpu_usage_seconds_total{vs="8",name="finance"} 1.5
# HELP vsrun_service_cpu_usage_seconds Processor time.
# TYPE vsrun_service_cpu_usage_seconds counter
# UNIT vsrun_service_cpu_usage_seconds seconds
vsrun_service_cpu_usage_seconds_total{vs="8",name="finance",service="smbd"} 0.000025
# HELP vsrun_oom_events Processes killed for want of memory.
# TYPE vsrun_oom_events counter
vsrun_oom_events_total{vs="8",name="finance"} 0
# EOF
`
	text := metrics(t, samples, OpenMetrics)
	text = text[strings.Index(text, "# HELP vsrun_memory"):]
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
	plain := metrics(t, samples, PrometheusText)
	if strings.Contains(plain, "# UNIT") || !strings.Contains(plain, "# TYPE vsrun_cpu_usage_seconds_total counter\n") {
		t.Errorf("for Prometheus:\n%s", plain)
	}
	parseText(t, plain)
}
