package ipmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vsrun/vsrun/stats"
)

// timeout is the most that one request may take, on either side.
const timeout = 10 * time.Second

// ErrNotFound is the error for a virtual server that there is none of.
var ErrNotFound = errors.New("no such virtual server")

// A Server answers stats requests. It is an http.Handler; ListenAndServe serves
// it on a unix socket.
type Server struct {
	// Sources lists the virtual servers. Those without a namespace may be among
	// them.
	Sources func(context.Context) ([]stats.Source, error)

	// Log is told of virtual servers that /metrics has to leave out; nil is
	// slog.Default.
	Log *slog.Logger

	config atomic.Pointer[Config] // nil: DefaultConfig

	routes sync.Once
	mux    http.ServeMux

	mu      sync.Mutex
	failing map[int]string // what was logged, by the virtual server's ID
}

// Configure has the server go by a configuration from now on. On an error
// nothing has changed.
func (s *Server) Configure(c Config) error {
	s.config.Store(&c)
	return nil
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.routes.Do(func() {
		s.mux.HandleFunc("GET /stats", s.serveStats)
		s.mux.HandleFunc("GET /metrics", s.serveMetrics)
		s.mux.HandleFunc("GET /healthz", serveHealth)
	})
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	s.mux.ServeHTTP(w, r.WithContext(ctx))
}

func serveHealth(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write([]byte("ok\n"))
}

func (s *Server) serveStats(w http.ResponseWriter, r *http.Request) {
	samples, err := s.samples(r.Context(), r.URL.Query()["id"])
	if err != nil {
		refuse(w, err)
		return
	}
	b, err := json.Marshal(samples)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(b, '\n'))
}

// refusal is the body of an answer that is an error.
type refusal struct {
	Error string `json:"error"`
}

func refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	if errors.Is(err, ErrNotFound) {
		status = http.StatusNotFound
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(refusal{err.Error()})
}

// samples reads the virtual servers asked for, or all without ids.
func (s *Server) samples(ctx context.Context, ids []string) ([]stats.Sample, error) {
	sources, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	if len(ids) > 0 {
		if sources, err = pick(sources, ids); err != nil {
			return nil, err
		}
	}
	samples := []stats.Sample{}
	for _, src := range sources {
		sample, err := read(ctx, src)
		switch {
		case err == nil:
			samples = append(samples, sample)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		case len(ids) > 0: // who asks for this one must not take nothing for an answer
			return nil, fmt.Errorf("%w: vs%d is not running", ErrNotFound, src.ID)
		}
	}
	return samples, nil
}

func (s *Server) list(ctx context.Context) ([]stats.Source, error) {
	sources, err := s.Sources(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot list the virtual servers: %w", err)
	}
	return sources, nil
}

// read is stats.Read, for as long as somebody waits for the answer.
func read(ctx context.Context, src stats.Source) (stats.Sample, error) {
	if err := ctx.Err(); err != nil {
		return stats.Sample{}, fmt.Errorf("cannot read the counters in time: %w", err)
	}
	return stats.Read(src)
}

// pick is the sources asked for, each once. A number is an ID before it is a
// name.
func pick(sources []stats.Source, ids []string) ([]stats.Source, error) {
	var picked []stats.Source
	for _, id := range ids {
		i := slices.IndexFunc(sources, func(s stats.Source) bool { return strconv.Itoa(s.ID) == id })
		if i < 0 {
			i = slices.IndexFunc(sources, func(s stats.Source) bool { return s.Name == id })
		}
		if i < 0 {
			return nil, fmt.Errorf("%w: %q", ErrNotFound, id)
		}
		if !slices.Contains(picked, sources[i]) {
			picked = append(picked, sources[i])
		}
	}
	return picked, nil
}

func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) {
	sources, err := s.list(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	var samples []stats.Sample
	for _, src := range sources {
		sample, err := read(r.Context(), src)
		if r.Context().Err() != nil {
			http.Error(w, "cannot read the counters in time", http.StatusServiceUnavailable)
			return
		}
		if err == nil {
			samples = append(samples, sample)
		}
		s.report(src, err)
	}
	format := acceptedFormat(r.Header.Values("Accept"))
	w.Header().Set("Content-Type", format.ContentType())
	w.Header().Set("Vary", "Accept")
	stats.WriteMetrics(w, samples, format) // fails only when the client is gone
}

// report logs that a virtual server cannot be read, once and not at each scrape,
// until it can be read again or fails for another reason.
func (s *Server) report(src stats.Source, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		delete(s.failing, src.ID)
		return
	}
	if s.failing[src.ID] == err.Error() {
		return
	}
	if s.failing == nil {
		s.failing = make(map[int]string)
	}
	s.failing[src.ID] = err.Error()
	s.log().Error(err.Error())
}

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.Default()
	}
	return s.Log
}
