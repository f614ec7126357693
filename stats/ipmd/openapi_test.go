package ipmd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/vsrun/vsrun/stats"
)

// The document and the server say the same: each route is in it, each parameter, status
// and type in it occurs, and each answer is as it says.
func TestOpenAPI(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	must(t, err)
	must(t, doc.Validate(t.Context()))
	asText := func(body io.Reader, _ http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
		text, err := io.ReadAll(body)
		return string(text), err
	}
	for _, kind := range []string{"text/event-stream", "text/html", "application/openmetrics-text", "application/yaml"} {
		openapi3filter.RegisterBodyDecoder(kind, asText)
	}
	unseen := promised(doc)
	s := three(t)
	for _, pattern := range func() []string { s.prepare(); return s.patterns }() {
		path, _ := strings.CutPrefix(pattern, "GET ")
		if doc.Paths.Find(path) == nil {
			t.Errorf("%s is not in the document", pattern)
		}
	}
	for _, r := range openAPIRequests(t, s) {
		w := httptest.NewRecorder()
		r.server.ServeHTTP(w, r.request)
		path := r.request.URL.Path
		operation := doc.Paths.Find(path).Get
		kind, _, _ := mime.ParseMediaType(w.Header().Get("Content-Type"))
		delete(unseen, path+" "+strconv.Itoa(w.Code)+" "+kind)
		for name := range r.request.URL.Query() {
			delete(unseen, path+" ?"+name)
		}
		for name := range r.request.Header {
			delete(unseen, path+" "+name)
		}
		input := &openapi3filter.ResponseValidationInput{
			RequestValidationInput: &openapi3filter.RequestValidationInput{
				Request: r.request, Route: &routers.Route{Spec: doc, Path: path, Method: http.MethodGet, Operation: operation}},
			Status: w.Code, Header: w.Header(), Body: io.NopCloser(bytes.NewReader(w.Body.Bytes())),
			Options: &openapi3filter.Options{IncludeResponseStatus: true},
		}
		if err := openapi3filter.ValidateResponse(t.Context(), input); err != nil {
			t.Errorf("%s: %v", r.request.URL, err)
		}
	}
	for what := range unseen {
		t.Errorf("the document has %s, which was not seen", what)
	}
}

// promised is everything in the document, but what needs nodes that do not answer
// (TestHangingPeer and others have those).
func promised(doc *openapi3.T) map[string]bool {
	all := map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for _, p := range item.Get.Parameters {
			if p.Value.In == "query" {
				all[path+" ?"+p.Value.Name] = true
			} else {
				all[path+" "+http.CanonicalHeaderKey(p.Value.Name)] = true
			}
		}
		for status, response := range item.Get.Responses.Map() {
			for kind := range response.Value.Content {
				all[path+" "+status+" "+kind] = true
			}
		}
	}
	delete(all, "/cluster/stats 502 application/json")
	delete(all, "/cluster/stats 504 application/json")
	return all
}

type openAPIRequest struct {
	server  *Server
	request *http.Request
}

func openAPIRequests(t *testing.T, s *Server) (all []openAPIRequest) {
	add := func(s *Server, target string, change func(*http.Request) *http.Request) {
		r := asRoot(httptest.NewRequest(http.MethodGet, target, nil))
		if change != nil {
			r = change(r)
		}
		all = append(all, openAPIRequest{s, r})
	}
	header := func(key, value string) func(*http.Request) *http.Request {
		return func(r *http.Request) *http.Request { r.Header.Set(key, value); return r }
	}
	broken := &Server{Sources: func(context.Context) ([]stats.Source, error) { return nil, errors.New("broken") }}
	judging := serverOf()
	configure(t, judging, "access: [{user: 1001, servers: [8]}]")
	full := serverOf()
	full.watchers.Store(1 << 20)
	configure(t, full, "limits: {requests: 1}")
	full.gate.enter(httptest.NewRecorder(), 1)
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	t.Cleanup(cancel)
	within := func(ctx context.Context) func(*http.Request) *http.Request {
		return func(r *http.Request) *http.Request {
			return r.WithContext(context.WithValue(ctx, identityKey{}, Identity{Local: true}))
		}
	}
	for _, path := range []string{"/stats", "/metrics", "/cluster/stats"} {
		for _, query := range []string{"", "?id=8", "?id=nobody", "?maxAge=0", "?maxAge=x"} {
			add(s, path+query, nil)
		}
		add(s, path, header("Cache-Control", "max-age=0"))
		add(full, path, nil)
	}
	for _, query := range []string{"interface=eth0", "mib=no", "since=x", "id=7&absent=omit"} {
		add(s, "/stats?"+query, nil)
	}
	for _, query := range []string{"interface=eth0", "mib=no", "node=a", "timeout=1s"} {
		add(s, "/cluster/stats?"+query, nil)
	}
	add(s, "/metrics", header("Accept", "application/openmetrics-text"))
	for _, query := range []string{"id=8&interface=eth0&mib=no&since=x&interval=1s", ""} {
		add(s, "/stats/stream?"+query, func(r *http.Request) *http.Request { return header("Last-Event-ID", "x")(within(soon)(r)) })
	}
	add(s, "/stats/stream?id=nobody", nil)
	add(s, "/stats/stream?interval=x", nil)
	add(full, "/stats/stream", nil)
	for _, path := range []string{"/stats", "/stats/stream", "/metrics", "/cluster/stats"} {
		if path != "/cluster/stats" {
			add(broken, path, nil)
		}
		add(judging, path, func(r *http.Request) *http.Request {
			return r.WithContext(context.WithValue(r.Context(), identityKey{}, Identity{Local: true, UID: 1002}))
		})
	}
	for _, path := range []string{"/stats", "/stats/stream", "/metrics", "/cluster/stats", "/healthz", "/openapi.yaml", "/"} {
		add(s, path, func(r *http.Request) *http.Request { r.ContentLength = 5; return r })
		add(s, path, func(r *http.Request) *http.Request { r.Host = "attacker.example"; return r })
	}
	for _, path := range []string{"/healthz", "/openapi.yaml", "/"} {
		add(s, path, nil)
	}
	return all
}
