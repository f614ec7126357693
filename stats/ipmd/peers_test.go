package ipmd

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// hostile is a peer, b, that answers as it likes, and how to ask it.
func hostile(t *testing.T, answer http.HandlerFunc) *link {
	t.Helper()
	return hostileUntil(t, time.Now().Add(time.Hour), answer)
}

// hostileUntil is one whose certificate expires then.
func hostileUntil(t *testing.T, end time.Time, answer http.HandlerFunc) *link {
	t.Helper()
	ca, dir := lab.NewAuthority(t, "ca"), t.TempDir()
	ca.Issue(t, "a").Write(t, dir, ca)
	pair := ca.IssueUntil(t, "b", end)
	cert, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	must(t, err)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	must(t, err)
	server := &http.Server{Handler: answer, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan error)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	keys, err := filesIn(dir).read()
	must(t, err)
	link := newLink(Peer{"b", l.Addr().String()}, keys)
	t.Cleanup(link.close)
	return link
}

func askWithin(t *testing.T, l *link, d time.Duration) ([]finding, error) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, errTooLate)
	defer cancel()
	return l.ask(ctx, url.Values{})
}

const oneSample = `{"id":8,"name":"web","time":"2026-01-02T03:04:05Z","interfaces":[],"total":{},"mib":{}}`

// Whatever a peer sends, its answer is bounded, and is its own samples or an error.
func TestHostilePeer(t *testing.T) {
	sent := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(timeHeader, "2026-01-02T03:04:07Z")
			io.WriteString(w, text)
		}
	}
	var pulled atomic.Int64
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"good", sent("[ " + oneSample + " ]"), ""},
		{"nothing", sent(""), "its answer makes no sense: EOF"},
		{"cut off", sent("[" + oneSample), "its answer makes no sense: EOF"},
		{"an object", sent("{}"), "it is not an array"},
		{"numbers", sent("[1]"), "cannot unmarshal number"},
		{"null", sent("[null]"), "0 is no virtual server's number"},
		{"deep", sent(strings.Repeat("[", 1_000_000)), "exceeded max depth"},
		{"twice", sent("[" + oneSample + "," + oneSample + "]"), "8 is no virtual server's number, or there twice"},
		{"another node's", sent(`[{"NODE":"a",` + oneSample[1:] + "]"), "or another node's"},
		{"another age", sent(`[{"age":0,` + oneSample[1:] + "]"), "or another node's"},
		{"of another type", sent(`[{"id":8,"interfaces":{}}]`), "cannot unmarshal object"},
		{"no kernel's name", sent(`[{"id":8,"mib":{"\u001b":{}}}]`), "not a name of letters and digits"},
		{"without a time", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "[]") }, "its answer has no time"},
		{"elsewhere", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://192.0.2.1/", http.StatusFound)
		}, "it answers 302 Found"},
		{"refused", func(w http.ResponseWriter, _ *http.Request) { refuse(w, errors.New(strings.Repeat("x", 3000))) }, "it answers: xxxxxx"},
		{"not in JSON", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, "it answers 404 Not Found"},
		{"never ends", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(timeHeader, "2026-01-02T03:04:07Z")
			io.WriteString(w, "[\"")
			for block := bytes.Repeat([]byte("x"), 1<<20); ; pulled.Add(int64(len(block))) {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}, "its answer is larger than 128 MiB"},
		{"drips", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(timeHeader, "2026-01-02T03:04:07Z")
			for r.Context().Err() == nil {
				io.WriteString(w, "[ ")
				http.NewResponseController(w).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		}, "no answer in time"},
	} {
		wait := 20 * time.Second
		if test.name == "drips" {
			wait = 200 * time.Millisecond
		}
		found, err := askWithin(t, hostile(t, test.answer), wait)
		switch {
		case test.want == "":
			if err != nil || len(found) != 1 || found[0].age != 2 || found[0].node != "b" || string(found[0].text) != oneSample {
				t.Errorf("%s: %+v, %v", test.name, found, err)
			}
		case err == nil || !strings.Contains(err.Error(), test.want) || len(err.Error()) > 600:
			t.Errorf("%s: %v, want %s", test.name, err, test.want)
		case found != nil:
			t.Errorf("%s: %+v, %v", test.name, found, err)
		}
	}
	if n := pulled.Load(); n > maxAnswer*5/4 {
		t.Errorf("%d bytes were taken", n)
	}
}

// A peer that hangs is waited for once, and asked as soon as it answers again; one that
// is only down is asked each time.
func TestHangingPeer(t *testing.T) {
	var asked, tried atomic.Int64
	var hang atomic.Bool
	hang.Store(true)
	l := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			tried.Add(1)
		} else {
			asked.Add(1)
		}
		if hang.Load() {
			<-r.Context().Done()
			return
		}
		w.Header().Set(timeHeader, "2026-01-02T03:04:05Z")
		io.WriteString(w, "[]")
	})
	begun := time.Now()
	for range 100 {
		if _, err := askWithin(t, l, 500*time.Millisecond); !errors.Is(err, errTooLate) {
			t.Fatalf("%v", err)
		}
	}
	took := time.Since(begun)
	if asked.Load() != 1 || tried.Load() > 2+int64(took/peerTimeout) || took > 10*time.Second { // of the 50 s that all could wait
		t.Errorf("asked %d times, tried %d times, it took %v", asked.Load(), tried.Load(), took)
	}
	hang.Store(false)
	soon(t, "its answer", func() bool { _, err := askWithin(t, l, time.Second); return err == nil })
	// A hurried asker is none of others' business.
	hang.Store(true)
	askWithin(t, l, time.Millisecond)
	hang.Store(false)
	if _, err := askWithin(t, l, time.Second); err != nil {
		t.Errorf("after a hurried asker: %v", err)
	}

	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	refusing.Close()
	down := newLink(Peer{"b", refusing.Addr().String()}, l.keys)
	for range 3 {
		if _, err := askWithin(t, down, time.Second); err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("%v", err)
		}
	}
	// An asker that goes away says nothing about the peer.
	hang.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := l.ask(ctx, url.Values{}); !errors.Is(err, context.Canceled) || l.hung {
		t.Errorf("%v, %v", err, l.hung)
	}
}

// However many ask at once, a peer has a few connections, and they are kept.
func TestConnectionsToPeerAreBounded(t *testing.T) {
	var open, most atomic.Int64
	addresses := make(chan string, 1000)
	l := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), open.Add(1)))
		defer open.Add(-1)
		addresses <- r.RemoteAddr
		w.Header().Set(timeHeader, "2026-01-02T03:04:05Z")
		io.WriteString(w, "[]")
		http.NewResponseController(w).Flush()
		time.Sleep(time.Millisecond) // the end comes later
	})
	failed := make(chan error, 100)
	for range cap(failed) {
		go func() { _, err := askWithin(t, l, 10*time.Second); failed <- err }()
	}
	for range cap(failed) {
		must(t, <-failed)
	}
	close(addresses)
	conns := map[string]bool{}
	for a := range addresses {
		conns[a] = true
	}
	if most.Load() > maxConnections || len(conns) > maxConnections {
		t.Errorf("%d at once, %d in all", most.Load(), len(conns))
	}
}

// Who takes the connection and says nothing holds none of the few for long.
func TestSilentPeer(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer silent.Close()
	l := newLink(Peer{"b", silent.Addr().String()}, hostile(t, nil).keys)
	begun := time.Now()
	if _, err := askWithin(t, l, 2*peerTimeout); !errors.Is(err, errTooLate) || !l.hung {
		t.Errorf("%v", err)
	}
	if took := time.Since(begun); took > peerTimeout*3/2 {
		t.Errorf("it took %v", took)
	}
}

// One that is switched off is waited for once.
func TestAbsentPeer(t *testing.T) {
	h := lab.New(t)
	h.Segment("eth1")
	h.Run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "eth1")
	l := newLink(Peer{"b", "192.0.2.203:9118"}, hostile(t, nil).keys)
	for k := range 4 {
		begun := time.Now()
		_, err := askWithin(t, l, 2*peerTimeout)
		if took := time.Since(begun); err == nil || k > 0 && took > peerTimeout/2 {
			t.Errorf("question %d took %v: %v", k, took, err)
		}
	}
	h.Run(t, "ip", "addr", "flush", "dev", "eth1", "scope", "global")
	time.Sleep(peerTimeout) // a trial may be under way
	l.close()
}

// A kept connection ends with the certificate that the peer has shown on it.
func TestPeerExpires(t *testing.T) {
	end := time.Now().Add(2 * time.Second).Truncate(time.Second)
	l := hostileUntil(t, end, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(timeHeader, "2026-01-02T03:04:05Z")
		io.WriteString(w, "[]")
	})
	_, err := askWithin(t, l, time.Second)
	must(t, err)
	time.Sleep(time.Until(end.Add(time.Second)))
	if _, err := askWithin(t, l, time.Second); err == nil || !strings.Contains(err.Error(), "certificate has expired") {
		t.Errorf("%v", err)
	}
}

func FuzzDecodeSamples(f *testing.F) {
	f.Add([]byte("[" + oneSample + "]"))
	f.Add([]byte(`[{"id":1,"ID":2,"mib":{"Ip":{"InReceives":1}},"use":{"memory":1},"services":[{"name":"a"}]}]`))
	f.Add([]byte(` [ {"id" : 4094 , "interfaces":[{"name":"\u001b[2J","rxBytes":1}]}]x`))
	f.Add([]byte(`[{"id":8,"node":"a"},null]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		found, err := decodeSamples(bytes.NewReader(text), "b", time.Now())
		if err != nil {
			return
		}
		// Whatever was let through is what a client can read, as it was let through.
		var out bytes.Buffer
		must(t, writeCluster(&out, found, ClusterAnswer{}))
		var answer ClusterAnswer
		if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
			t.Fatalf("%v: %s", err, &out)
		}
		for i, s := range answer.Samples {
			if s.Node != "b" || s.Age != found[i].age && fmt.Sprintf("%.6f", s.Age) != fmt.Sprintf("%.6f", found[i].age) || s.ID != found[i].src.ID || s.Name != found[i].src.Name {
				t.Errorf("%+v became %+v", found[i], s)
			}
		}
	})
}
