package push

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
)

// received is what was in a request: series as text, sorted as in it.
type received struct {
	labels string
	value  float64
	millis int64
}

// decode reads a request's body as remote write 1.0 has it.
func decode(t testing.TB, body []byte) (list []received) {
	t.Helper()
	plain, err := snappy.Decode(nil, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, series := range fields(t, plain)[1] {
		var r received
		var names, parts []string
		for _, l := range fields(t, series.bytes)[1] {
			f := fields(t, l.bytes)
			names = append(names, string(f[1][0].bytes))
			parts = append(parts, fmt.Sprintf("%s=%q", f[1][0].bytes, f[2][0].bytes))
		}
		if !slices.IsSorted(names) {
			t.Errorf("labels are not sorted: %q", names)
		}
		r.labels = strings.Join(parts, " ")
		f := fields(t, fields(t, series.bytes)[2][0].bytes)
		r.value, r.millis = math.Float64frombits(f[1][0].number), int64(f[2][0].number)
		list = append(list, r)
	}
	return list
}

type field struct {
	bytes  []byte
	number uint64
}

func fields(t testing.TB, b []byte) map[protowire.Number][]field {
	t.Helper()
	all := make(map[protowire.Number][]field)
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		b = b[n:]
		var f field
		switch kind {
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		case protowire.Fixed64Type:
			f.number, n = protowire.ConsumeFixed64(b)
		case protowire.VarintType:
			f.number, n = protowire.ConsumeVarint(b)
		default:
			t.Fatalf("field %d has type %d", number, kind)
		}
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		b = b[n:]
		all[number] = append(all[number], f)
	}
	return all
}

func labelled(namesAndValues ...string) (list []label) {
	for pair := range slices.Chunk(namesAndValues, 2) {
		list = append(list, label{[]byte(pair[0]), []byte(pair[1])})
	}
	return list
}

func TestRequestsHaveWhatTheTextSays(t *testing.T) {
	const text = `# HELP vsrun_a_total Help, with "x{y} 1" in it.
# TYPE vsrun_a_total counter
vsrun_a_total{vs="8",name="a\"} 1\\ \n x",device="eth0"} 18446744073709551615
vsrun_b 1.5
vsrun_b{} -1
vsrun_c{vs="9",name="",job="own"} +Inf
`
	at := time.UnixMilli(1234567890123)
	want := []received{
		{`__name__="vsrun_a_total" device="eth0" job="vsrun" name="a\"} 1\\ \n x" vs="8"`, math.MaxUint64, at.UnixMilli()},
		{`__name__="vsrun_b" job="vsrun"`, 1.5, at.UnixMilli()},
		{`__name__="vsrun_b" job="vsrun"`, -1, at.UnixMilli()},
		{`__name__="vsrun_c" job="own" name="" vs="9"`, math.Inf(1), at.UnixMilli()},
	}
	for size := 1; size < len(text); size += 7 { // in whatever pieces it is written
		w := newRequestWriter(labelled("job", "vsrun"), at)
		for part := range slices.Chunk([]byte(text), size) {
			if _, err := w.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		b := w.finish()
		if len(b.requests) != 1 || b.series != len(want) {
			t.Fatalf("%d requests, %d series", len(b.requests), b.series)
		}
		if diff := cmp.Diff(want, decode(t, b.requests[0]), cmp.AllowUnexported(received{})); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestRequestsAreSmall(t *testing.T) {
	w := newRequestWriter(nil, time.Now())
	for k := range 2*maxSeries + 1 {
		fmt.Fprintf(w, "a{vs=\"%d\"} 1\n", k)
	}
	b := w.finish()
	if len(b.requests) != 3 || len(decode(t, b.requests[0])) != maxSeries || len(decode(t, b.requests[2])) != 1 {
		t.Errorf("%d requests of %d series", len(b.requests), b.series)
	}
}

func TestNoMetrics(t *testing.T) {
	for _, line := range []string{"a", "{} 1", "a{", `a{b="c} 1`, `a{b="c"}`, `a{b} 1`, "a x", "a 1 2", `a{b="\`} {
		if _, err := newRequestWriter(nil, time.Now()).Write([]byte(line + "\n")); err == nil {
			t.Errorf("%q is taken", line)
		}
	}
}

// A receiver keeps what it was sent, and answers as told: 0 is 204.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	answers []int
	got     []received
	headers []http.Header
}

func newReceiver(t *testing.T, answers ...int) *receiver {
	r := &receiver{answers: answers}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.headers = append(r.headers, req.Header)
		if len(r.answers) > 0 {
			status := r.answers[0]
			r.answers = r.answers[1:]
			http.Error(w, "told to", status)
			return
		}
		r.got = append(r.got, decode(t, body)...)
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) values() (list []float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.got {
		list = append(list, s.value)
	}
	return list
}

// pushTo pushes a counter that is one more each time, until the test ends.
func pushTo(t *testing.T, c Config) (log *strings.Builder, stop func()) {
	t.Helper()
	c.Interval = time.Second
	count := 0
	log = new(strings.Builder)
	p, err := New(c, func(_ context.Context, w io.Writer) error {
		count++
		_, err := fmt.Fprintf(w, "a_total %d\n", count)
		return err
	}, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return log, stop
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not, after 15 s: %s", what)
		}
	}
}

// What was pushed while the receiver did not take it arrives later, in order; what it
// refuses for good is left out, and said.
func TestPushesWaitAndKeepTheirOrder(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, 400, 503, 429)
	log, stop := pushTo(t, Config{URL: r.URL})
	await(t, "three pushes have arrived", func() bool { return len(r.values()) >= 3 })
	stop()
	if got := r.values(); !slices.Equal(got[:3], []float64{2, 3, 4}) {
		t.Errorf("it got %v", got)
	}
	for _, want := range []string{`err="400 Bad Request: told to" lost=true`, `err="503 Service Unavailable: told to" lost=false`, `"pushing works again"`, `"requests refused"=1`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, log)
		}
	}
}

// A push of which a part is refused again and again is one failure, until all of one
// arrives.
func TestPartOfPushIsRefused(t *testing.T) {
	r := newReceiver(t, 400, 200, 400, 200, 200, 200)
	var log strings.Builder
	s := &sender{Config: Config{URL: r.URL}, client: r.Client(), waiting: newQueue(maxQueue), log: slog.New(slog.NewTextHandler(&log, nil))}
	for range 3 {
		s.waiting.put(batch{requests: [][]byte{{1}, {2}}})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.run(ctx) })
	await(t, "all are answered", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.headers) == 6 })
	time.Sleep(50 * time.Millisecond) // for the last answer to be read
	cancel()
	running.Wait()
	if fails, works := strings.Count(log.String(), "cannot push"), strings.Count(log.String(), "works again"); fails != 1 || works != 1 {
		t.Errorf("%d failures and %d recoveries:\n%s", fails, works, &log)
	}
}

func TestQueueIsBounded(t *testing.T) {
	q := newQueue(100)
	b := func(n byte) batch { return batch{requests: [][]byte{append(make([]byte, 39), n)}} }
	for n := range byte(5) {
		if begins := q.put(b(n)); begins != (n == 2) {
			t.Errorf("batch %d begins to lose: %v", n, begins)
		}
	}
	q.put(batch{requests: [][]byte{make([]byte, 1000)}}) // as one there may be any
	if lost := q.losses(); lost != 5 || q.losses() != 0 || len(q.batches) != 1 || q.size != 1000 {
		t.Errorf("%d lost, %d left of %d bytes", lost, len(q.batches), q.size)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := q.take(ctx); err != nil || got.size() != 1000 || q.size != 0 {
		t.Errorf("%v, %v", got.size(), err)
	}
	if _, err := q.take(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("of nothing there is %v", err)
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	secret := filepath.Join(t.TempDir(), "secret")
	write := func(text string) {
		if err := os.WriteFile(secret, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old\n")
	pushTo(t, Config{URL: r.URL, BearerTokenFile: secret, Headers: map[string]string{"X-Scope-OrgID": "7"}, Labels: map[string]string{"instance": "a"}})
	has := func(token string) func() bool {
		return func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return slices.ContainsFunc(r.headers, func(h http.Header) bool { return h.Get("Authorization") == "Bearer "+token })
		}
	}
	await(t, "the token", has("old"))
	write("new\n")
	await(t, "the new token", has("new"))
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.headers[0]
	if h.Get("X-Scope-Orgid") != "7" || h.Get("Content-Encoding") != "snappy" || h.Get("X-Prometheus-Remote-Write-Version") != "0.1.0" {
		t.Errorf("%v", h)
	}
	if r.got[0].labels != `__name__="a_total" instance="a" job="vsrun"` {
		t.Errorf("%v", r.got[0])
	}
}

func TestMutualTLS(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	server := httptest.NewUnstartedServer(r.Config.Handler)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, "key": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(dir+"/"+name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good := Config{URL: server.URL, Authorities: dir + "/cert", Certificate: dir + "/cert", Key: dir + "/key"}
	pushTo(t, good)
	await(t, "a push", func() bool { return len(r.values()) > 0 })
	for what, bad := range map[string]Config{
		"no such file or directory": {URL: server.URL, Authorities: dir + "/none"},
		"has no certificates":       {URL: server.URL, Authorities: dir + "/key"},
		"failed to find":            {URL: server.URL, Certificate: dir + "/key", Key: dir + "/key"},
	} {
		if _, err := New(bad, nil, nil); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, and not that it %s", err, what)
		}
	}
}

// A redirect would have it go elsewhere, and the secret with it.
func TestRedirectsAreRefused(t *testing.T) {
	t.Parallel()
	elsewhere := newReceiver(t)
	var asked atomic.Int32
	r := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, elsewhere.URL, http.StatusPermanentRedirect)
		asked.Add(1)
	}))
	t.Cleanup(r.Close)
	log, stop := pushTo(t, Config{URL: r.URL})
	await(t, "two pushes", func() bool { return asked.Load() >= 2 }) // the first is logged by then
	stop()
	if !strings.Contains(log.String(), "308 Permanent Redirect") || len(elsewhere.headers) > 0 {
		t.Errorf("%s", log)
	}
}

func TestValidate(t *testing.T) {
	const url = "https://metrics.example/api/v1/write"
	for want, c := range map[string]Config{
		"":                                   {},
		"url: the URL to push to is missing": {User: "a"},
		`url: "ftp://a" is no URL of http or https`:                                  {URL: "ftp://a"},
		"url: a URL with a user is not accepted: user and passwordFile are for that": {URL: "https://a:secret@metrics.example/"},
		"interval: 10ms is out of range: 1s to 1h0m0s":                               {URL: url, Interval: 10 * time.Millisecond},
		"labels: vs is a label that series have":                                     {URL: url, Labels: map[string]string{"vs": "1", "node": "a"}},
		`labels: "a-b" is no name of a label`:                                        {URL: url, Labels: map[string]string{"a-b": "1"}},
		"headers: content-encoding is set already":                                   {URL: url, Headers: map[string]string{"content-encoding": "gzip"}},
		`headers: "a b" with "c" is no header`:                                       {URL: url, Headers: map[string]string{"a b": "c"}},
		"user: user and passwordFile go together":                                    {URL: url, User: "a"},
		"bearerTokenFile: either a bearer token or a user with a password":           {URL: url, User: "a", PasswordFile: "b", BearerTokenFile: "c"},
		"certificate: certificate and key go together":                               {URL: url, Key: "a"},
	} {
		var said []string
		for _, p := range c.Validate() {
			said = append(said, p.Path+": "+p.Err.Error())
		}
		if got := strings.Join(said, "; "); !strings.HasPrefix(got, want) || want == "" && got != "" || len(said) > 1 {
			t.Errorf("%+v: %q, want %q", c, got, want)
		}
	}
}

// Whatever is written, in whatever pieces, is refused, or is in the requests as it was.
func FuzzRequests(f *testing.F) {
	f.Add("a{vs=\"8\",name=\"x\\\"\\n\\\\\"} 1.5\n# HELP a b\n\nb 2\n", 3)
	f.Add("a{__name__=\"b\",job=\"own\",} NaN\n", 1)
	f.Fuzz(func(t *testing.T, text string, size int) {
		at := time.UnixMilli(1234567890123)
		w := newRequestWriter(labelled("job", "vsrun"), at)
		for part := range slices.Chunk([]byte(text), max(1, size)) {
			if _, err := w.Write(part); err != nil {
				return
			}
		}
		b := w.finish()
		lines := 0
		for line := range strings.Lines(text) {
			if strings.HasSuffix(line, "\n") && line != "\n" && line[0] != '#' {
				lines++
			}
		}
		var got []received
		for _, r := range b.requests {
			got = append(got, decode(t, r)...)
		}
		if len(got) != lines || b.series != lines {
			t.Errorf("%q: %d series, said to be %d, of %d lines", text, len(got), b.series, lines)
		}
		for _, r := range got {
			if r.millis != at.UnixMilli() || !strings.Contains(r.labels, "__name__=") || !strings.Contains(r.labels, "job=") {
				t.Errorf("%q: %+v", text, r)
			}
		}
	})
}
