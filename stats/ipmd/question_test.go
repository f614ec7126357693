package ipmd

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Whatever is asked, what is understood is within bounds, and what is not is refused.
func FuzzAsk(f *testing.F) {
	f.Add("id=8&id=web&interface=eth0&maxAge=5s&since=x-1&mib=no&absent=omit", "max-age=5, no-cache")
	f.Add("maxAge=99999999999999999999", "max-age=99999999999999999999")
	f.Add("maxAge=1e9s&id=%00", "max-age=\"1\",,=,")
	f.Fuzz(func(t *testing.T, query, cache string) {
		r := httptest.NewRequest(http.MethodGet, "/stats", nil)
		r.URL.RawQuery = query
		r.Header["Cache-Control"] = []string{cache}
		q, err := DefaultConfig().ask(r)
		if err == nil && (q.age < 0 || q.age > longestAge) {
			t.Errorf("%q, %q: %s", query, cache, q.age)
		}
		r = asRoot(r)
		w := httptest.NewRecorder()
		serverOf().ServeHTTP(w, r)
		if w.Code != http.StatusOK && w.Code != http.StatusNotFound && w.Code != http.StatusBadRequest {
			t.Errorf("%q, %q: %d %s", query, cache, w.Code, w.Body)
		}
	})
}

// Whatever a server sends, the client ends.
func FuzzEvents(f *testing.F) {
	f.Add("id: x-1\nevent: all\ndata: [\ndata: {\"id\":8}\ndata: ]\n\n: still here\n\n")
	f.Add("data\n\ndata:\r\n\r\nid\n")
	f.Fuzz(func(t *testing.T, text string) {
		size := 0
		err := readEvents(strings.NewReader(text), func(e event) error {
			size += len(e.data)
			return nil
		})
		if err == nil || size > 2*len(text) {
			t.Errorf("%d bytes of %d, %v", size, len(text), err)
		}
	})
}
