package ipmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/stats"
	"github.com/vsrun/vsrun/test/lab"
)

// three has vs8 and vs9, and vs10 that is disabled: no namespace.
func three(t *testing.T) *Server {
	t.Helper()
	h := lab.New(t)
	for id := 8; id <= 9; id++ {
		h.Run(t, "ip", "netns", "add", filepath.Base(path(id)))
		t.Cleanup(func() { h.TryRun("ip", "netns", "delete", filepath.Base(path(id))); os.Remove(path(id)) })
	}
	h.Run(t, "ip", "-n", "vs8", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", "vs9")
	return serverOf(
		stats.Source{ID: 8, Name: "finance", Path: path(8)},
		stats.Source{ID: 9, Name: "8", Path: path(9)}, // as a hostile name would be
		stats.Source{ID: 10, Name: "off", Path: path(10)},
	)
}

func path(id int) string { return fmt.Sprintf("/run/netns/vs%d", id) }

func serverOf(sources ...stats.Source) *Server {
	return &Server{Sources: func(context.Context) ([]stats.Source, error) { return sources, nil }}
}

func TestServeStats(t *testing.T) {
	s := three(t)
	for query, want := range map[string][]int{
		"":                        {8, 9},
		"?id=8":                   {8},
		"?id=finance":             {8},
		"?id=9&id=finance":        {9, 8},
		"?id=8&id=finance&id=8":   {8},
		"?id=8&unknown=parameter": {8},
	} {
		w := get(s, "/stats"+query, nil)
		var samples []stats.Sample
		if err := json.Unmarshal(w.Body.Bytes(), &samples); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s: %v", query, w.Code, w.Body, err)
		}
		var got []int
		for _, sample := range samples {
			got = append(got, sample.ID)
			if len(sample.Interfaces) != 1 || sample.Interfaces[0].Name != "eth0" {
				t.Errorf("%s: interfaces %v", query, sample.Interfaces)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s gives %v, want %v", query, got, want)
		}
		if got := w.Header().Get("Content-Type"); got != "application/json" {
			t.Errorf("content type %s", got)
		}
	}
}

func TestServeStatsNotFound(t *testing.T) {
	s := three(t)
	for query, want := range map[string]string{
		"?id=7":                  `{"error":"no such virtual server: \"7\""}`,
		"?id=8&id=x%0A%22":       `{"error":"no such virtual server: \"x\\n\\\"\""}`,
		"?id=":                   `{"error":"no such virtual server: \"\""}`,
		"?id=08":                 `{"error":"no such virtual server: \"08\""}`,
		"?id=Finance":            `{"error":"no such virtual server: \"Finance\""}`,
		"?id=10":                 `{"error":"no such virtual server: vs10 is not running"}`,
		"?id=8&id=off&id=nobody": `{"error":"no such virtual server: \"nobody\""}`,
	} {
		w := get(s, "/stats"+query, nil)
		if w.Code != http.StatusNotFound || w.Body.String() != want+"\n" {
			t.Errorf("%s: %d %s, want %s", query, w.Code, w.Body, want)
		}
	}
}

func TestServeNothing(t *testing.T) {
	if w := get(serverOf(), "/stats", nil); w.Code != http.StatusOK || w.Body.String() != "[]\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := get(serverOf(), "/metrics", nil); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := get(serverOf(), "/healthz", nil); w.Code != http.StatusOK || w.Body.String() != "ok\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestServeRefuses(t *testing.T) {
	s := serverOf()
	for _, path := range []string{"/stats", "/metrics", "/healthz"} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, nil))
		if w.Code != http.StatusMethodNotAllowed || !strings.Contains(w.Header().Get("Allow"), "GET") {
			t.Errorf("POST %s: %d %v", path, w.Code, w.Header())
		}
	}
	for _, path := range []string{"/stats/8", "/nothing"} {
		if w := get(s, path, nil); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestServeWithoutList(t *testing.T) {
	s := &Server{Sources: func(context.Context) ([]stats.Source, error) { return nil, errors.New("the store is locked") }}
	const want = "cannot list the virtual servers: the store is locked"
	if w := get(s, "/stats", nil); w.Code != http.StatusInternalServerError || w.Body.String() != `{"error":"`+want+`"}`+"\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := get(s, "/metrics", nil); w.Code != http.StatusInternalServerError || w.Body.String() != `{"error":"`+want+`"}`+"\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestServeStatsNeverGivesAPart(t *testing.T) {
	s := three(t)
	breakNamespace(t, 9)
	const want = `{"error":"cannot read the counters of vs9: /run/netns/vs9 is not a network namespace, but a file of somebody's"}` + "\n"
	for _, query := range []string{"", "?id=9", "?id=finance&id=9"} {
		if w := get(s, "/stats"+query, nil); w.Code != http.StatusInternalServerError || w.Body.String() != want {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
	if w := get(s, "/stats?id=8", nil); w.Code != http.StatusOK {
		t.Errorf("vs8: %d %s", w.Code, w.Body)
	}
}

func TestServeMetricsWithoutTheBroken(t *testing.T) {
	s := three(t)
	var log bytes.Buffer
	s.Log = slog.New(slog.NewTextHandler(&log, nil))
	breakNamespace(t, 9)
	for range 3 {
		w := get(s, "/metrics", nil)
		if body := w.Body.String(); w.Code != http.StatusOK || !strings.Contains(body, `vs="8"`) || strings.Contains(body, `vs="9"`) {
			t.Errorf("%d %s", w.Code, body)
		}
	}
	if n := strings.Count(log.String(), "cannot read the counters of vs9"); n != 1 || strings.Contains(log.String(), "vs10") {
		t.Errorf("logged %d times:\n%s", n, &log)
	}
	// Readable, then broken again: that is news.
	must(t, os.Remove(path(9)))
	get(s, "/metrics", nil)
	must(t, os.WriteFile(path(9), []byte("mine"), 0o600))
	get(s, "/metrics", nil)
	if n := strings.Count(log.String(), "cannot read the counters of vs9"); n != 2 {
		t.Errorf("logged %d times:\n%s", n, &log)
	}
}

func TestServeMetricsFormats(t *testing.T) {
	s := three(t)
	w := get(s, "/metrics", nil)
	body := w.Body.String()
	if got := w.Header().Get("Content-Type"); got != "text/plain; version=0.0.4; charset=utf-8" || strings.Contains(body, "# EOF") {
		t.Errorf("%s:\n%s", got, body)
	}
	for _, line := range []string{
		`vsrun_network_receive_bytes_total{vs="8",name="finance",device="eth0"} `,
		`vsrun_netstat_Tcp_InSegs{vs="8",name="finance"} `,
	} {
		if !strings.Contains(body, line) {
			t.Errorf("lacks %s", line)
		}
	}
	w = get(s, "/metrics", http.Header{"Accept": {"application/openmetrics-text; version=1.0.0"}})
	if got := w.Header().Get("Content-Type"); got != "application/openmetrics-text; version=1.0.0; charset=utf-8" ||
		!strings.HasSuffix(w.Body.String(), "\n# EOF\n") {
		t.Errorf("%s:\n%s", got, w.Body)
	}
}

func TestServeStopsWhenNobodyWaits(t *testing.T) {
	s := three(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, path := range []string{"/stats", "/metrics"} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, asRoot(httptest.NewRequest(http.MethodGet, path, nil).WithContext(ctx)))
		if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "in time") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func get(s *Server, target string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for k, v := range header {
		r.Header[k] = v
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, asRoot(r))
	return w
}

func asRoot(r *http.Request) *http.Request {
	r.Host = "ipmd"
	return r.WithContext(context.WithValue(r.Context(), identityKey{}, Identity{Local: true}))
}

// breakNamespace puts a file that is no namespace in a namespace's place.
func breakNamespace(t *testing.T, id int) {
	t.Helper()
	must(t, nsutil.Unpublish(path(id)))
	must(t, os.WriteFile(path(id), []byte("mine"), 0o600))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
