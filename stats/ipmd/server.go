package ipmd

import (
	"context"
	"encoding/json"
	"errors"
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

// ErrBusy is the error when more ask than may at once.
var ErrBusy = errors.New("ipmd is busy: more ask than may at once")

// A Server answers stats requests. It is an http.Handler; Serve and ListenAndServe
// serve it, and only they know who asks.
type Server struct {
	// Sources lists the virtual servers, those without a namespace, too. What it has
	// returned does not change, and the same slice again says that nothing has.
	Sources func(context.Context) ([]stats.Source, error)

	// Reader is what reads them. Whoever gives one keeps it from holding namespaces
	// whose name is gone. Nil: each is opened and closed for each reading.
	Reader *stats.Reader

	// ReadBy tells how counters are read now, and why so, for /metrics; nil: it is not told.
	ReadBy func() (way, why string)

	// Log is told of virtual servers that /metrics has to leave out; nil is
	// slog.Default.
	Log *slog.Logger

	config atomic.Pointer[Config] // nil: DefaultConfig

	prepared sync.Once
	mux      http.ServeMux
	patterns []string // of mux
	life     string   // tells this ipmd's cursors from another's
	sampler  *sampler
	gate     gate
	conns    conns
	watchers atomic.Int64
	tally    tally

	credentials credentials
	cluster     cluster

	mu      sync.Mutex
	socket  string         // "": the listener is another
	remote  *remote        // nil: nobody is answered over TCP
	failing map[int]string // what was logged, by the virtual server's ID
	index   *index         // of the last list
}

// prepare makes a Server out of its fields.
func (s *Server) prepare() {
	s.prepared.Do(func() {
		read := readOnce
		if s.Reader != nil {
			read = s.Reader.Read
		}
		s.sampler = newSampler(read)
		if s.Reader != nil {
			s.sampler.among = s.Reader.ReadAmong
		}
		s.sampler.crowded = s.gate.giveWay
		s.life = strconv.FormatInt(time.Now().UnixNano(), 36)
		s.route("GET /stats", askStats, s.limited(s.serveStats))
		s.route("GET /stats/stream", askStream, s.serveStream)
		s.route("GET /cluster/stats", askCluster, s.limited(s.serveCluster))
		s.route("GET /metrics", askMetrics, s.limited(s.serveMetrics))
		s.handle("GET /healthz", serveHealth)
		s.handle("GET /openapi.yaml", serveOpenAPI)
		s.handle("GET /", servePage().ServeHTTP)
	})
}

func readOnce(src stats.Source, into *stats.Sample) (err error) {
	*into, err = stats.Read(src)
	return err
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
	if err := s.openSocket(c); err != nil {
		return err
	}
	if err := s.configureRemote(c.Listen); err != nil {
		return errors.Join(err, s.openSocket(s.configuration()))
	}
	s.config.Store(&c)
	s.cluster.forget(c.Peers)
	s.prepare()
	s.sampler.forget() // somebody may see now what he could not before
	return nil
}

func (s *Server) configuration() Config {
	if c := s.config.Load(); c != nil {
		return *c
	}
	return DefaultConfig()
}

// handle adds what is answered to everybody who can connect.
func (s *Server) handle(pattern string, answer http.HandlerFunc) {
	s.patterns = append(s.patterns, pattern)
	s.mux.HandleFunc(pattern, answer)
}

// route adds what is answered to those who may ask for it: what is of askable.
func (s *Server) route(pattern, what string, answer func(http.ResponseWriter, *http.Request, grant)) {
	s.handle(pattern, func(w http.ResponseWriter, r *http.Request) {
		g, err := s.configuration().grant(identify(r), what)
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, r, g)
	})
}

// limited answers within 10 s, and only so many at once.
func (s *Server) limited(answer func(http.ResponseWriter, *http.Request, grant)) func(http.ResponseWriter, *http.Request, grant) {
	return func(w http.ResponseWriter, r *http.Request, g grant) {
		begun := time.Now()
		t, ok := s.gate.enter(w, s.configuration().Limits.Requests)
		if !ok {
			refuse(w, ErrBusy)
			s.tally.answered(r.URL.Path, http.StatusServiceUnavailable, 0)
			return
		}
		defer t.leave()
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		answer(t, r.WithContext(ctx), g)
		s.tally.answered(r.URL.Path, t.status, time.Since(begun))
	}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.prepare()
	if err := guardBrowsers(w, r); err != nil {
		refuse(w, err)
		return
	}
	if r.ContentLength != 0 { // nothing that is asked has a body, and nobody shall wait for one
		w.Header().Set("Connection", "close")
		http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
		refuse(w, errBody)
		return
	}
	s.mux.ServeHTTP(w, r)
}

var errBody = errors.New("a request with a body is not answered")

func serveHealth(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write([]byte("ok\n"))
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
	case errors.Is(err, errBody):
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, ErrBusy), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "1")
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

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.Default()
	}
	return s.Log
}
