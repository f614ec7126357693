package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"github.com/vsrun/vsrun/test/lab"
)

// promtool's one complaint is about names of the kernel's own, which node_exporter
// keeps as well.
func TestPromtoolTakesTheMetrics(t *testing.T) {
	lab.Require(t, "promtool", "curl")
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--name", "finance", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64")
	s.MustVsrun(t, "service", "add", "8", "web", "--", "sleep", "100000")
	startIPMD(t, s.Host)
	text := filepath.Join(t.TempDir(), "metrics")
	if err := os.WriteFile(text, []byte(curlIPMD(t, s.Host, "/metrics")), 0o644); err != nil {
		t.Fatal(err)
	}
	r := s.TryRun("sh", "-c", "promtool check metrics <"+text)
	for line := range strings.Lines(r.Stdout + r.Stderr) {
		if !strings.HasPrefix(line, "vsrun_netstat_") || !strings.HasSuffix(line, "metric names should be written in 'snake_case' not 'camelCase'\n") {
			t.Error(line)
		}
	}
}

// A prometheus is Debian's, with its data in a directory of the test's.
type prometheus struct{ url string }

func startPrometheus(t *testing.T, h *lab.Host, config string, args ...string) prometheus {
	t.Helper()
	p := prometheus{"http://127.0.0.1:9090"}
	daemon := h.Start(t, append([]string{"prometheus", "--config.file=" + config, "--storage.tsdb.path=" + t.TempDir(),
		"--web.listen-address=127.0.0.1:9090", "--log.level=warn"}, args...)...)
	soon(t, func() error {
		if _, err := p.get("/-/ready"); err != nil {
			return fmt.Errorf("%w; prometheus says %s", err, daemon.Output())
		}
		return nil
	})
	return p
}

func (p prometheus) get(path string) ([]byte, error) {
	res, err := http.Get(p.url + path)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, b)
	}
	return b, err
}

// A point is a series and its value now.
type point struct {
	Metric map[string]string
	Value  [2]any
}

func (p point) value() float64 {
	v, _ := strconv.ParseFloat(fmt.Sprint(p.Value[1]), 64)
	return v
}

func (p prometheus) query(expr string) ([]point, error) {
	b, err := p.get("/api/v1/query?" + url.Values{"query": {expr}}.Encode())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", expr, err)
	}
	var answer struct {
		Data struct {
			ResultType string
			Result     json.RawMessage
		}
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return nil, err
	}
	if answer.Data.ResultType == "scalar" {
		var one [2]any
		err = json.Unmarshal(answer.Data.Result, &one)
		return []point{{Value: one}}, err
	}
	var points []point
	err = json.Unmarshal(answer.Data.Result, &points)
	return points, err
}

// seriesKey names a series without what a push and a scrape add to it.
func seriesKey(name string, labels map[string]string) string {
	key := name
	for _, l := range []string{"vs", "name", "device", "service"} {
		key += fmt.Sprintf(" %s=%q", l, labels[l])
	}
	return key
}

// metricsNow is what /metrics says of virtual servers.
func metricsNow(t *testing.T, h *lab.Host) map[string]float64 {
	t.Helper()
	families, err := parseMetrics(curlIPMD(t, h, "/metrics"))
	if err != nil {
		t.Fatal(err)
	}
	now := make(map[string]float64)
	for name, f := range families {
		for _, m := range f.GetMetric() {
			labels := make(map[string]string)
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["vs"] != "" {
				now[seriesKey(name, labels)] = valueOf(m)
			}
		}
	}
	return now
}

func valueOf(m *dto.Metric) float64 {
	return m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue() // one of them is not nil
}

// A real Prometheus is given by a push what it would have scraped, though it was not
// there when that began.
func TestPush(t *testing.T) {
	lab.Require(t, "prometheus", "curl")
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--name", "finance", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24")
	s.MustVsrun(t, "create", "9", "--no-probe", "--port", "eth1", "--address", "192.0.2.9/24")
	dir := t.TempDir()
	writeFile(t, dir+"/ipmd.yaml", "push: {url: 'http://127.0.0.1:9090/api/v1/write', interval: 1s, labels: {instance: a}}\n")
	writeFile(t, dir+"/prometheus.yaml", "global: {}\n")
	daemon := startIPMD(t, s.Host, "--config", dir+"/ipmd.yaml")
	soon(t, func() error {
		if !strings.Contains(daemon.Output(), "cannot push") {
			return fmt.Errorf("ipmd does not say that it cannot push: %s", daemon.Output())
		}
		return nil
	})
	before := metricsNow(t, s.Host)
	p := startPrometheus(t, s.Host, dir+"/prometheus.yaml", "--web.enable-remote-write-receiver")
	soon(t, func() error { // the first to arrive is older than that
		points, err := p.query(`{vs!=""}`)
		if err != nil {
			return err
		}
		return comparePush(before, points, metricsNow(t, s.Host))
	})
	if !strings.Contains(daemon.Output(), "pushing works again") {
		t.Errorf("ipmd says %s", daemon.Output())
	}
}

// comparePush compares what was pushed with /metrics before and after.
func comparePush(before map[string]float64, points []point, after map[string]float64) error {
	var errs []error
	pushed := make(map[string]bool)
	for _, point := range points {
		if point.Metric["job"] != "vsrun" || point.Metric["instance"] != "a" {
			errs = append(errs, fmt.Errorf("a series is labelled %v", point.Metric))
		}
		key := seriesKey(point.Metric["__name__"], point.Metric)
		pushed[key] = true
		low, high := before[key], after[key] // ICMP's types are counted from their first message on
		_, ok := after[key]
		if v := point.value(); !ok || strings.HasPrefix(key, "vsrun_network") && (v < low || v > high) {
			errs = append(errs, fmt.Errorf("%s is pushed as %v, and was %v before and %v after", key, v, low, high))
		}
	}
	for key := range before {
		if !pushed[key] {
			errs = append(errs, fmt.Errorf("%s is not pushed", key))
		}
	}
	return errors.Join(errs...)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
