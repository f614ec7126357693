package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vsrun/vsrun/examples"
	"github.com/vsrun/vsrun/test/lab"
)

// A Prometheus with the files of examples scrapes ipmd by mutual TLS, evaluates the
// rules, and has an answer to whatever the dashboard asks.
func TestPrometheusExamples(t *testing.T) {
	lab.Require(t, "prometheus", "promtool")
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--name", "finance", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64")
	s.MustVsrun(t, "service", "add", "8", "web", "--", "sleep", "100000")
	s.MustVsrun(t, "create", "9", "--no-probe", "--port", "eth1", "--address", "192.0.2.9/24")
	dir := t.TempDir()
	certify(t, dir)
	writeFile(t, dir+"/ipmd.yaml", strings.ReplaceAll(`
listen: {address: '127.0.0.1:9118', certificate: DIR/node.crt, key: DIR/node.key, authorities: DIR/authorities.crt}
access: [{certificate: prometheus, servers: [all], ask: [metrics]}]
`, "DIR", dir))
	daemon := startIPMD(t, s.Host, "--config", dir+"/ipmd.yaml")
	for _, name := range []string{"prometheus.yaml", "prometheus-rules.yaml", "prometheus-rules-test.yaml"} {
		text, err := examples.Documents.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		// Its steps are shortened; the times that rules look at are not.
		writeFile(t, filepath.Join(dir, name), strings.ReplaceAll(string(text), "_interval: 15s", "_interval: 200ms"))
	}
	s.Run(t, "promtool", "check", "config", dir+"/prometheus.yaml")
	s.Run(t, "promtool", "test", "rules", dir+"/prometheus-rules-test.yaml")

	p := startPrometheus(t, s.Host, dir+"/prometheus.yaml")
	soon(t, func() error {
		points, err := p.query(`rate(vsrun_netstat_Tcp_OutSegs{job="vsrun", vs="8"}[1m]) > 0`)
		if err == nil && len(points) == 0 {
			err = fmt.Errorf("Prometheus has not scraped twice what has changed; ipmd says %s", daemon.Output())
		}
		transfer(t, s, "vs8", "192.0.2.8", 10_000)
		return err
	})
	soon(t, func() error { return p.compareSeries(metricsNow(t, s.Host)) }) // ICMP's types come with their first message
	p.checkRules(t)
	p.checkDashboard(t)
}

// certify gives ipmd and Prometheus certificates by one authority.
func certify(t *testing.T, dir string) {
	t.Helper()
	ca := lab.NewAuthority(t, "ca")
	ca.Issue(t, "localhost").Write(t, dir, ca)
	own := ca.Issue(t, "prometheus")
	lab.Replace(t, dir+"/prometheus.crt", own.Certificate)
	lab.Replace(t, dir+"/prometheus.key", own.Key)
}

// compareSeries tells what it lacks, by OpenMetrics, of the older format's series, and
// the other way round.
func (p prometheus) compareSeries(want map[string]float64) error {
	points, err := p.query(`{job="vsrun", vs!="", __name__!~"vs:.*|.*_created"}`)
	if err != nil {
		return err
	}
	have := make(map[string]bool)
	for _, point := range points {
		have[seriesKey(point.Metric["__name__"], point.Metric)] = true
	}
	var errs []error
	for key := range want {
		if !have[key] {
			errs = append(errs, fmt.Errorf("Prometheus has not scraped %s", key))
		}
	}
	if len(have) != len(want) {
		errs = append(errs, fmt.Errorf("Prometheus has %d series, and /metrics %d", len(have), len(want)))
	}
	return errors.Join(errs...)
}

func (p prometheus) checkRules(t *testing.T) {
	t.Helper()
	type rule struct{ Name, Health, LastError, State string }
	var answer struct {
		Data struct{ Groups []struct{ Rules []rule } }
	}
	soon(t, func() error {
		b, err := p.get("/api/v1/rules")
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &answer); err != nil {
			return err
		}
		var errs []error
		for _, g := range answer.Data.Groups {
			for _, r := range g.Rules {
				if r.Health != "ok" || r.State != "" && r.State != "inactive" {
					errs = append(errs, fmt.Errorf("%s is %s %s %s", r.Name, r.Health, r.State, r.LastError))
				}
			}
		}
		if len(answer.Data.Groups) == 0 {
			errs = append(errs, errors.New("there are no rules"))
		}
		return errors.Join(errs...)
	})
}

// notEverywhere are metrics that not every host has, or not without further daemons.
var notEverywhere = regexp.MustCompile(`^vsrun_(nf_conntrack|service)_`)

var metricName = regexp.MustCompile(`\b(vsrun|ipmd)_\w+`)

// mayBeEmpty tells whether an expression is about something that is not there, and
// need not be.
func (p prometheus) mayBeEmpty(t *testing.T, expr string) bool {
	t.Helper()
	return slices.ContainsFunc(metricName.FindAllString(expr, -1), func(name string) bool {
		points, err := p.query(name)
		if err != nil {
			t.Error(err)
		}
		return len(points) == 0 && notEverywhere.MatchString(name)
	})
}

func (p prometheus) checkDashboard(t *testing.T) {
	t.Helper()
	text, err := examples.Documents.ReadFile("grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	replace := []string{"$__rate_interval", "1m", "$__interval", "1m"}
	for _, v := range dashboard.Templating.List {
		replace = append(replace, "$"+v.Name, ".*")
		if v.Type == "query" {
			p.checkVariable(t, v.Definition)
		}
	}
	values := strings.NewReplacer(replace...)
	asked := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			expr := values.Replace(target.Expr)
			points, err := p.query(expr)
			if err != nil || len(points) == 0 && !p.mayBeEmpty(t, expr) {
				t.Errorf("%s: %d answers to %s: %v", panel.Title, len(points), expr, err)
			}
			asked++
		}
	}
	if asked < 30 {
		t.Errorf("the dashboard asks %d questions only", asked)
	}
}

var labelValues = regexp.MustCompile(`^label_values\((\w+)(?:\{.*\})?, (\w+)\)$`)

// checkVariable checks that there is something to choose from.
func (p prometheus) checkVariable(t *testing.T, definition string) {
	t.Helper()
	parts := labelValues.FindStringSubmatch(definition)
	if parts == nil {
		t.Fatalf("a variable is %s", definition)
	}
	b, err := p.get("/api/v1/label/" + parts[2] + "/values?" + url.Values{"match[]": {parts[1]}}.Encode())
	var answer struct{ Data []string }
	if err = errors.Join(err, json.Unmarshal(b, &answer)); err != nil || slices.Contains(answer.Data, "") || len(answer.Data) == 0 {
		t.Errorf("%s: %s, %v", definition, b, err)
	}
}
