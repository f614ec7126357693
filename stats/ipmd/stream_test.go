package ipmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsrun/vsrun/stats"
)

// stir has something counted in a virtual server.
func stir(t *testing.T, id int) {
	t.Helper()
	ns := fmt.Sprintf("vs%d", id)
	run(t, "ip", "-n", ns, "link", "set", "lo", "up")
	run(t, "ip", "netns", "exec", ns, "bash", "-c", "echo x >/dev/udp/127.0.0.1/9")
}

// kept has the namespaces of three kept open, as ipmd does: to open one leaves a trace
// in its counters, for a moment.
func kept(t *testing.T) *Server {
	t.Helper()
	s := three(t)
	s.Reader = new(stats.Reader)
	t.Cleanup(func() { s.Reader.Close() })
	get(s, "/stats", nil)
	for end := time.Now().Add(10 * time.Second); ; {
		before := get(s, "/stats?maxAge=0", nil).Header().Get(cursorHeader)
		time.Sleep(100 * time.Millisecond)
		if after := get(s, "/stats?maxAge=0", nil).Header().Get(cursorHeader); after == before {
			return s
		}
		if time.Now().After(end) {
			t.Fatal("the figures change, and nothing happens")
		}
	}
}

func run(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
}

func ids(samples []stats.Sample) (all []int) {
	for _, s := range samples {
		all = append(all, s.ID)
	}
	return all
}

func TestSince(t *testing.T) {
	s := kept(t)
	configure(t, s, "maxAge: 0s")
	client, _ := start(t, s)
	ask := func(q Query, changes bool, want ...int) string {
		t.Helper()
		a, err := client.Ask(t.Context(), q)
		if err != nil || a.Changes != changes || !slices.Equal(ids(a.Samples), want) || a.Cursor == "" {
			t.Errorf("%+v: %v, changes %v, %v", q, ids(a.Samples), a.Changes, err)
		}
		return a.Cursor
	}
	first := ask(Query{}, false, 8, 9)
	second := ask(Query{Since: first}, true)
	stir(t, 9)
	ask(Query{Since: second}, true, 9)
	third := ask(Query{Since: first}, true, 9)
	ask(Query{Since: third}, true)
	ask(Query{Since: first, IDs: []string{"8"}}, true)
	for _, cursor := range []string{"x", "0-0", first + "9", "-1", strings.Split(first, "-")[0] + "-x"} {
		ask(Query{Since: cursor}, false, 8, 9)
	}
	run(t, "ip", "netns", "delete", "vs9") // who is told of changes alone could not know
	ask(Query{Since: third}, false, 8)
}

func TestInterfaces(t *testing.T) {
	s := three(t)
	run(t, "ip", "-n", "vs8", "link", "add", "eth1", "type", "veth", "peer", "name", "eth2")
	for _, test := range []struct {
		query, want string
		status      int
	}{
		{"?interface=eth0", "8:eth0 9:eth0", 200},
		{"?interface=eth1&interface=eth2", "8:eth2,eth1", 200},
		{"?interface=lo", "", 200},
		{"?id=9&interface=eth0", "9:eth0", 200},
		{"?id=9&interface=eth1", "", 404},
	} {
		w := get(s, "/stats"+test.query, nil)
		if got := interfacesIn(t, w.Body.String(), w.Code); w.Code != test.status || got != test.want && w.Code == 200 {
			t.Errorf("%s: %d %s, want %s\n%s", test.query, w.Code, got, test.want, w.Body)
		}
	}
}

func TestWatch(t *testing.T) {
	s := kept(t)
	client, stop := start(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []string
	for a, err := range client.Watch(ctx, Query{}, 200*time.Millisecond) {
		if err != nil { // ipmd has been stopped, below
			if !errors.Is(err, io.EOF) {
				t.Errorf("the end is %v", err)
			}
			break
		}
		got = append(got, fmt.Sprint(a.Changes, ids(a.Samples)))
		switch len(got) {
		case 1:
			stir(t, 9)
		case 2:
			run(t, "ip", "netns", "delete", "vs9")
		case 3:
			go stop()
		}
	}
	if want := []string{"false [8 9]", "true [9]", "false [8]"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// What was missed while ipmd could not be reached is told, by another one as everything.
func TestWatchGoesOn(t *testing.T) {
	s := three(t)
	client, stop := start(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	answers, failures := 0, 0
	for a, err := range client.Watch(ctx, Query{IDs: []string{"8"}}, 200*time.Millisecond) {
		if err != nil {
			if failures++; failures == 1 {
				again := &Server{Sources: s.Sources}
				listening := make(chan error, 1)
				serving, end := context.WithCancel(context.Background())
				go func() { listening <- again.ListenAndServe(serving, client.Socket) }()
				defer func() { end(); <-listening }()
			}
			continue
		}
		if answers++; answers == 1 {
			must(t, stop())
			continue
		}
		if a.Changes || !slices.Equal(ids(a.Samples), []int{8}) {
			t.Errorf("of another ipmd: %+v", a)
		}
		break
	}
	if answers != 2 || failures == 0 {
		t.Errorf("%d answers, %d failures", answers, failures)
	}
}

func TestWatchRefused(t *testing.T) {
	s := three(t)
	client, _ := start(t, s)
	for q, want := range map[string]error{"nobody": ErrNotFound} {
		for _, err := range client.Watch(t.Context(), Query{IDs: []string{q}}, 0) {
			if !errors.Is(err, want) {
				t.Errorf("%s: %v", q, err)
			}
		}
	}
	for _, query := range []string{"interval=1ms", "interval=2h", "interval=x", "maxAge=x"} {
		if w := get(s, "/stats/stream?"+query, nil); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
	configure(t, s, "limits: {watchers: 1}")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, err := range client.Watch(ctx, Query{}, 0) {
		must(t, err)
		if _, err := client.get(ctx, "/stats/stream", nil); !errors.Is(err, ErrBusy) {
			t.Errorf("a second watcher: %v", err)
		}
		break
	}
}

// A watcher who does not read is told the newest then, and holds up nobody.
func TestSlowWatcher(t *testing.T) {
	s := three(t)
	client, stop := start(t, s)
	res, err := client.get(t.Context(), "/stats/stream?interval=200ms", nil)
	must(t, err)
	defer res.Body.Close()
	for range 3 {
		stir(t, 8)
		if _, err := client.Stats(t.Context()); err != nil {
			t.Error(err)
		}
	}
	begun := time.Now()
	must(t, stop())
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("ipmd took %v to end", took)
	}
	text, _ := io.ReadAll(res.Body)
	if !strings.HasSuffix(string(text), "event: end\nretry: 1000\ndata: {}\n\n") {
		t.Errorf("ends with %.100q", text[max(0, len(text)-100):])
	}
}

// HEAD is answered as GET is, but there is nothing to wait for.
func TestHeadOfStreamEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	w := httptest.NewRecorder()
	three(t).ServeHTTP(w, asRoot(httptest.NewRequestWithContext(ctx, http.MethodHead, "/stats/stream", nil)))
	if ctx.Err() != nil || w.Code != http.StatusOK || w.Body.Len() > 0 || w.Header().Get("Content-Type") != "text/event-stream" {
		t.Errorf("%v: %d %v", ctx.Err(), w.Code, w.Header())
	}
}
