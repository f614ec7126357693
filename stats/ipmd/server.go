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

	// Reader is what reads them. Whoever gives one keeps it from holding namespaces
	// whose name is gone. Nil: each is opened and closed for each reading.
	Reader *stats.Reader

	// Log is told of virtual servers that /metrics has to leave out; nil is
	// slog.Default.
	Log *slog.Logger

	config atomic.Pointer[Config] // nil: DefaultConfig

	routes sync.Once
	mux    http.ServeMux

	credentials credentials
	cluster     cluster

	mu      sync.Mutex
	socket  string         // "": the listener is another
	remote  *remote        // nil: nobody is answered over TCP
	failing map[int]string // what was logged, by the virtual server's ID
}

// Configure has the server go by a configuration from now on, for connections that
// are open, too. On an error nothing has changed.
func (s *Server) Configure(c Config) error {
	c.Access = slices.Clone(c.Access)
	for k := range c.Access {
		if err := c.Access[k].resolve(); err != nil {
			return err
		}
	}
	if err := s.configureRemote(c.Listen); err != nil {
		return err
	}
	s.config.Store(&c)
	return s.openSocket()
}

func (s *Server) configuration() Config {
	if c := s.config.Load(); c != nil {
		return *c
	}
	return DefaultConfig()
}

// route adds what is answered to those who may ask for it: what is of askable.
func (s *Server) route(pattern, what string, answer func(http.ResponseWriter, *http.Request, grant)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		g, err := s.configuration().grant(identify(r), what)
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, r, g)
	})
}

// ServeHTTP answers one request. Who asks is known on connections of Serve; on
// others, it is nobody.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.routes.Do(func() {
		s.route("GET /stats", askStats, s.serveStats)
		s.route("GET /cluster/stats", askCluster, s.serveCluster)
		s.route("GET /metrics", askMetrics, s.serveMetrics)
		s.mux.HandleFunc("GET /healthz", serveHealth)
		s.mux.Handle("GET /", servePage())
	})
	if err := guardBrowsers(w, r); err != nil {
		refuse(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	s.mux.ServeHTTP(w, r.WithContext(ctx))
}

func serveHealth(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write([]byte("ok\n"))
}

func (s *Server) serveStats(w http.ResponseWriter, r *http.Request, g grant) {
	query := r.URL.Query()
	samples, err := s.samples(r.Context(), g, query["id"], query.Get("absent") == "omit")
	if err != nil {
		refuse(w, err)
		return
	}
	if query.Get("mib") == "no" {
		samples = withoutMIB(samples)
	}
	b, err := json.Marshal(samples)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set(timeHeader, time.Now().UTC().Format(time.RFC3339Nano))
	w.Write(append(b, '\n'))
}

// withoutMIB leaves out what makes most of an answer, and not everybody wants.
func withoutMIB(samples []stats.Sample) []stats.Sample {
	samples = slices.Clone(samples)
	for i := range samples {
		samples[i].MIB = nil
	}
	return samples
}

// refusal is the body of an answer that is an error.
type refusal struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"` // the cure
}

func refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, errBadRequest):
		status = http.StatusBadRequest
	case errors.As(err, new(*misdirected)):
		status = http.StatusMisdirectedRequest
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrNoNode):
		status = http.StatusNotFound
	case errors.Is(err, ErrForbidden):
		status = http.StatusForbidden
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		status = http.StatusServiceUnavailable
	}
	body := refusal{Error: err.Error()}
	if h, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok {
		body.Hint = h.Hint()
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

// samples reads the virtual servers asked for, or without ids all that the asker may
// see. One that is not there is an error, unless it may be absent.
func (s *Server) samples(ctx context.Context, g grant, ids []string, absent bool) ([]stats.Sample, error) {
	sources, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	if sources, err = pick(sources, g, ids, absent); err != nil {
		return nil, err
	}
	samples := []stats.Sample{}
	for _, src := range sources {
		sample, err := s.read(ctx, src)
		switch {
		case err == nil:
			samples = append(samples, sample)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		case len(ids) > 0 && !absent: // who asks for this one must not take nothing for an answer
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

// read reads, for as long as somebody waits for the answer.
func (s *Server) read(ctx context.Context, src stats.Source) (stats.Sample, error) {
	if err := ctx.Err(); err != nil {
		return stats.Sample{}, fmt.Errorf("cannot read the counters in time: %w", err)
	}
	if s.Reader == nil {
		return stats.Read(src)
	}
	var sample stats.Sample
	err := s.Reader.Read(src, &sample)
	return sample, err
}

// pick is the sources asked for, each once, or without ids all that the asker may
// see. A number is an ID before it is a name.
func pick(sources []stats.Source, g grant, ids []string, absent bool) ([]stats.Source, error) {
	var picked []stats.Source
	if len(ids) == 0 {
		for _, src := range sources {
			if g.sees(src) {
				picked = append(picked, src)
			}
		}
		return picked, nil
	}
	for _, id := range ids {
		i := slices.IndexFunc(sources, func(s stats.Source) bool { return strconv.Itoa(s.ID) == id })
		if i < 0 {
			i = slices.IndexFunc(sources, func(s stats.Source) bool { return s.Name == id })
		}
		switch {
		case !g.all && (i < 0 || !g.sees(sources[i])): // nor whether there is one
			return nil, &forbidden{g.who, fmt.Sprintf("virtual server %q", id)}
		case i < 0 && absent:
			continue
		case i < 0:
			return nil, fmt.Errorf("%w: %q", ErrNotFound, id)
		}
		if !slices.Contains(picked, sources[i]) {
			picked = append(picked, sources[i])
		}
	}
	return picked, nil
}

func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request, g grant) {
	sources, err := s.list(r.Context())
	if err == nil {
		sources, err = pick(sources, g, nil, false)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	var samples []stats.Sample
	for _, src := range sources {
		sample, err := s.read(r.Context(), src)
		if late := r.Context().Err(); late != nil {
			refuse(w, fmt.Errorf("cannot read the counters in time: %w", late))
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
