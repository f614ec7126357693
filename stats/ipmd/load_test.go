package ipmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/stats"
)

func interfacesIn(t *testing.T, body string, status int) string {
	t.Helper()
	if status != http.StatusOK {
		return ""
	}
	var samples []stats.Sample
	if err := json.Unmarshal([]byte(body), &samples); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	var all []string
	for _, s := range samples {
		var names []string
		for _, i := range s.Interfaces {
			names = append(names, i.Name)
		}
		all = append(all, fmt.Sprintf("%d:%s", s.ID, strings.Join(names, ",")))
	}
	return strings.Join(all, " ")
}

// dial opens n connections, and sends text on each.
func dial(t *testing.T, socket string, n int, text string) {
	t.Helper()
	for range n {
		c, err := connect(t.Context(), socket)
		must(t, err)
		t.Cleanup(func() { c.Close() })
		if text != "" {
			c.Write([]byte(text)) // fails where there was no room
		}
	}
}

// Connections that do nothing, or never end their request, give way to one that asks.
func TestIdleConnections(t *testing.T) {
	for name, text := range map[string]string{"idle": "", "half a request": "GET /stats HTTP/1.1\r\nHost: i"} {
		s := serverOf()
		configure(t, s, "limits: {connections: 50, connectionsPerPeer: 40}")
		client, _ := start(t, s)
		dial(t, client.Socket, 200, text)
		for range 5 {
			if _, err := client.Stats(t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := s.conns.open(); n > 40 {
			t.Errorf("%s: %d connections are open", name, n)
		}
	}
}

func TestTenThousandIdleConnections(t *testing.T) {
	s := three(t)
	client, _ := start(t, s)
	n := 10_000
	var limit syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	if most := DefaultConfig().Limits.ConnectionsPerPeer + 500; uint64(n+most) > limit.Cur {
		n = int(limit.Cur) - most
		t.Logf("only %d: no more descriptors are to be had", n)
	}
	dial(t, client.Socket, n, "")
	begun := time.Now()
	if _, err := client.Stats(t.Context()); err != nil {
		t.Error(err)
	}
	t.Logf("answered in %v beside %d connections, of which %d are open", time.Since(begun), n, s.conns.open())
	if open := s.conns.open(); open > DefaultConfig().Limits.ConnectionsPerPeer {
		t.Errorf("%d are open", open)
	}
}

// When all connections are at work, one more is told so.
func TestTooManyConnections(t *testing.T) {
	asked, answer := make(chan bool, 10), make(chan bool)
	s := &Server{Sources: func(context.Context) ([]stats.Source, error) {
		asked <- true
		<-answer
		return nil, nil
	}}
	configure(t, s, "limits: {connectionsPerPeer: 2}")
	client, _ := start(t, s)
	failed := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := client.Stats(context.Background())
			failed <- err
		}()
		<-asked
	}
	for range 30 {
		if _, err := client.Stats(t.Context()); !errors.Is(err, ErrBusy) || err.Error() != "ipmd has too many connections that work" {
			t.Errorf("%v", err)
		}
	}
	late, err := connect(t.Context(), client.Socket)
	must(t, err)
	defer late.Close()
	soon(t, "it is refused", func() bool { return s.conns.refused.Load() == 31 })
	for _, part := range []string{"GET /stats HTTP/1.1\r\n", "Host: ipmd\r\n", "\r\n"} {
		_, err := io.WriteString(late, part)
		must(t, err)
	}
	if text, err := io.ReadAll(late); err != nil || string(text) != tooMany {
		t.Errorf("who writes late gets %q, %v", text, err)
	}
	dial(t, client.Socket, 2*farewells, "")
	soon(t, "all others have been refused", func() bool { return s.conns.refused.Load() == 31+2*farewells })
	soon(t, "and closed", func() bool { return s.conns.leaving.Load() == 0 })
	close(answer)
	for range 2 {
		must(t, <-failed)
	}
	if _, err := client.Stats(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTooManyRequests(t *testing.T) {
	asked, answer := make(chan bool, 10), make(chan bool)
	s := &Server{Sources: func(context.Context) ([]stats.Source, error) {
		asked <- true
		<-answer
		return nil, nil
	}}
	configure(t, s, "limits: {requests: 1}")
	first := make(chan int)
	go func() { first <- get(s, "/stats", nil).Code }()
	<-asked
	for _, path := range []string{"/stats", "/metrics"} {
		w := get(s, path, nil)
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), ErrBusy.Error()) {
			t.Errorf("%s: %d %v %s", path, w.Code, w.Header(), w.Body)
		}
	}
	close(answer)
	if code := <-first; code != http.StatusOK {
		t.Errorf("the first one: %d", code)
	}
	if w := get(s, "/stats", nil); w.Code != http.StatusOK {
		t.Errorf("after it: %d %s", w.Code, w.Body)
	}
}

// Those who ask for much and read nothing are cut off when others want their place.
func TestSlowReadersGiveWay(t *testing.T) {
	s := three(t)
	configure(t, s, "limits: {requests: 3}")
	client, _ := start(t, s)
	dial(t, client.Socket, 3, strings.Repeat("GET /stats HTTP/1.1\r\nHost: ipmd\r\n\r\n", 500))
	for full := false; !full; time.Sleep(time.Millisecond) {
		s.gate.mu.Lock()
		full = s.gate.inside.Len() == 3
		s.gate.mu.Unlock()
	}
	begun := time.Now()
	for {
		_, err := client.Stats(t.Context())
		if err == nil {
			break
		}
		if !errors.Is(err, ErrBusy) || time.Since(begun) > 10*time.Second {
			t.Fatalf("after %v: %v", time.Since(begun), err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestHugeRequests(t *testing.T) {
	client, _ := start(t, three(t))
	for name, test := range map[string]struct {
		request string
		status  string
	}{
		"a path":            {"GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\nHost: i\r\n\r\n", "431"},
		"a header":          {"GET /stats HTTP/1.1\r\nHost: i\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", "431"},
		"many headers":      {"GET /stats HTTP/1.1\r\nHost: i\r\n" + strings.Repeat("X: x\r\n", 1<<18) + "\r\n", "431"},
		"a body":            {"GET /stats HTTP/1.1\r\nHost: i\r\nContent-Length: 99999999\r\n\r\nx", "413"},
		"an endless body":   {"POST /stats HTTP/1.1\r\nHost: i\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "413"},
		"what is no HTTP":   {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400"},
		"many ids":          {"GET /stats?" + strings.Repeat("id=8&", 5000) + " HTTP/1.1\r\nHost: i\r\nConnection: close\r\n\r\n", "200"},
		"a broken encoding": {"GET /stats?id=%zz HTTP/1.1\r\nHost: i\r\nConnection: close\r\n\r\n", "400"},
	} {
		c, err := net.Dial("unix", client.Socket)
		must(t, err)
		c.SetDeadline(time.Now().Add(10 * time.Second))
		go c.Write([]byte(test.request))
		answer, _ := io.ReadAll(c)
		if !strings.HasPrefix(string(answer), "HTTP/1.1 "+test.status) && !strings.HasPrefix(string(answer), "HTTP/1.0 "+test.status) {
			t.Errorf("%s: %.100q", name, answer)
		}
		c.Close()
	}
	if _, err := client.Stats(t.Context()); err != nil {
		t.Error(err)
	}
}

// The connections of a client that is kept are used again, and closed with it.
func TestOpenClient(t *testing.T) {
	s := three(t)
	simple, _ := start(t, s)
	client := Open(simple.Socket)
	for range 10 {
		if _, err := client.Stats(t.Context()); err != nil {
			t.Error(err)
		}
	}
	soon(t, "one connection for questions one after another", func() bool { return s.conns.open() == 1 })
	client.Close()
	for end := time.Now().Add(10 * time.Second); s.conns.open() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a connection stays")
		}
	}
}

func TestOwnMetrics(t *testing.T) {
	s := three(t)
	simple, _ := start(t, s)
	client := Open(simple.Socket)
	defer client.Close()
	for range 3 {
		client.Stats(t.Context(), "8")
		client.Stats(t.Context(), "nobody")
	}
	var text strings.Builder
	soon(t, "one connection", func() bool { // net/http drops one when its goroutines are kept waiting
		text.Reset()
		must(t, client.Metrics(t.Context(), &text))
		return strings.Contains(text.String(), "\nipmd_connections 1\n")
	})
	for _, line := range []string{
		`ipmd_requests_total{path="/stats",status="200"} 3`,
		`ipmd_requests_total{path="/stats",status="404"} 3`,
		`ipmd_request_duration_seconds_count{path="/stats"} 6`,
		`ipmd_request_duration_seconds_bucket{path="/stats",le="+Inf"} 6`,
		"# TYPE ipmd_samples_taken_total counter",
	} {
		if !strings.Contains(text.String(), line+"\n") {
			t.Errorf("lacks %s", line)
		}
	}
}
