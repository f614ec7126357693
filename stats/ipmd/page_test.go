package ipmd

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// The page is all that a browser needs, small, and may run what is ipmd's alone.
func TestPageStandsAlone(t *testing.T) {
	s := serverOf()
	size := 0
	err := fs.WalkDir(pageFiles, "page", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		w := get(s, strings.TrimSuffix(strings.TrimPrefix(path, "page"), "index.html"), nil)
		body := w.Body.String()
		size += len(body)
		if policy := w.Header().Get("Content-Security-Policy"); w.Code != http.StatusOK || !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: %d, %v", path, w.Code, w.Header())
		}
		if other := regexp.MustCompile(`(src|href)="?(https?:)?//|url\(|@import|innerHTML|insertAdjacentHTML|document\.write|\bon[a-z]+="|<style|style="`).FindString(body); other != "" {
			t.Errorf("%s has %s", path, other)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if size > 40_000 {
		t.Errorf("the page has %d bytes", size)
	}
	for path, kind := range map[string]string{"/": "text/html", "/main.js": "text/javascript", "/style.css": "text/css", "/icon.svg": "image/svg+xml"} {
		if got := get(s, path, nil).Header().Get("Content-Type"); !strings.HasPrefix(got, kind) {
			t.Errorf("%s: %s", path, got)
		}
	}
}

// Without that a page of somebody else's could read all counters through a browser
// that reaches ipmd.
func TestNamesOfOthersAreRefused(t *testing.T) {
	s := serverOf()
	for host, status := range map[string]int{
		"localhost:9118": 200, "localhost": 200, "127.0.0.1:9118": 200, "[::1]:9118": 200, "::1": 200, "ipmd": 200, "192.0.2.1": 200,
		"attacker.example:9118": 421, "attacker.example": 421, "127.0.0.1.attacker.example:80": 421, "attacker.example.": 421,
	} {
		for _, path := range []string{"/", "/stats", "/metrics"} {
			r := asRoot(httptest.NewRequest(http.MethodGet, path, nil))
			r.Host = host
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code != status {
				t.Errorf("%s on %s: %d, want %d", path, host, w.Code, status)
			}
			if w.Header().Get("Cross-Origin-Resource-Policy") != "same-origin" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s on %s: %v", path, host, w.Header())
			}
		}
	}
}

func TestStatsWithoutMIB(t *testing.T) {
	s := three(t)
	whole, part := get(s, "/stats", nil).Body.String(), get(s, "/stats?mib=no", nil).Body.String()
	if !strings.Contains(part, `"mib":{}`) || !strings.Contains(part, `"total":{`) || len(part)*4 > len(whole) {
		t.Errorf("%d bytes of %d: %s", len(part), len(whole), part)
	}
}
