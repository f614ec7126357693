package ipmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/vsrun/vsrun/stats"
)

// A Peer is another node of the cluster. Its certificate must have its name
// among its DNS names (or, for an IP address, its addresses).
type Peer struct {
	Name    string `yaml:"name"`
	Address string `yaml:"address"` // with port
}

const (
	// maxAnswer bounds a peer's answer, in bytes: 4094 virtual servers with twice
	// the counters that Linux 6.18 has.
	maxAnswer = 64 << 20

	// maxConnections bounds the connections to one peer. Questions wait for one.
	maxConnections = 4

	// A peer that did not answer in time is not asked again at once, so that not
	// every question waits for it: first for minPause, twice that when it fails
	// again, and so on up to maxPause.
	minPause = 500 * time.Millisecond
	maxPause = 4 * time.Second
)

// A link is how one peer is asked, with one set of keys. Its connections are kept.
type link struct {
	peer   Peer
	keys   *keySet
	client http.Client

	mu    sync.Mutex
	pause time.Duration // 0 while it answers
	until time.Time
}

func newLink(p Peer, keys *keySet) *link {
	transport := &http.Transport{
		// The URL has the peer's name, since that is what its certificate is for.
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", p.Address)
		},
		TLSClientConfig:     keys.client(),
		MaxConnsPerHost:     maxConnections,
		MaxIdleConnsPerHost: maxConnections,
		IdleConnTimeout:     30 * time.Second,
		DisableCompression:  true, // the bound is on what was sent
	}
	return &link{peer: p, keys: keys, client: http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// close closes the connections that are not used. Those that are end 30 s after
// their last use.
func (l *link) close() { l.client.CloseIdleConnections() }

// ask asks for what the peer has itself. Its samples' age is measured by its own
// clock.
func (l *link) ask(ctx context.Context, query url.Values) ([]finding, error) {
	trial, err := l.enter()
	if err != nil {
		return nil, err
	}
	samples, err := l.get(ctx, query)
	l.leave(trial, err)
	return samples, err
}

// enter refuses during a pause. When it is over, one question is the trial, and
// the others wait for what comes of that.
func (l *link) enter() (trial bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Now().Before(l.until) {
		return false, fmt.Errorf("%w; it is asked again in a moment", errTooLate)
	}
	if l.pause > 0 {
		l.until = time.Now().Add(timeout)
	}
	return l.pause > 0, nil
}

func (l *link) leave(trial bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !errors.Is(err, errTooLate) && !errors.Is(err, context.Canceled):
		l.pause, l.until = 0, time.Time{}
	case errors.Is(err, errTooLate) && (trial || l.pause == 0):
		l.pause = min(max(2*l.pause, minPause), maxPause)
		l.until = time.Now().Add(l.pause)
	case trial: // the asker is gone: another one tries
		l.until = time.Time{}
	}
}

// errTooLate is the cause of the context that peers are asked with.
var errTooLate = errors.New("no answer in time")

func (l *link) get(ctx context.Context, query url.Values) ([]finding, error) {
	u := url.URL{Scheme: "https", Host: l.peer.Name, Path: "/stats", RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	res, err := l.client.Do(req)
	if err != nil {
		return nil, late(ctx, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, refusedBy(res)
	}
	now, err := time.Parse(time.RFC3339Nano, res.Header.Get(timeHeader))
	if err != nil {
		return nil, fmt.Errorf("its answer has no time: %w", err)
	}
	body := &io.LimitedReader{R: res.Body, N: maxAnswer + 1}
	samples, err := decodeSamples(body, l.peer.Name, now)
	switch {
	case body.N == 0:
		return nil, fmt.Errorf("its answer is larger than %d MiB", maxAnswer>>20)
	case err != nil:
		return nil, late(ctx, fmt.Errorf("its answer makes no sense: %w", err))
	}
	return samples, nil
}

// late is errTooLate where that is why err came, without the URL that nobody
// typed.
func late(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// refusedBy is what a peer says instead of an answer.
func refusedBy(res *http.Response) error {
	var body refusal
	err := json.NewDecoder(io.LimitReader(res.Body, 4<<10)).Decode(&body)
	if err != nil || body.Error == "" {
		return fmt.Errorf("it answers %.40s", res.Status)
	}
	return fmt.Errorf("it answers: %s", shorten(body.Error))
}

// decodeSamples reads the answer of a node at whose place it is now. It is another's
// word: what is no sample, or claims to be another node's, is refused.
func decodeSamples(r io.Reader, node string, now time.Time) ([]finding, error) {
	d := json.NewDecoder(r)
	if t, err := d.Token(); err != nil {
		return nil, err
	} else if t != json.Delim('[') {
		return nil, errors.New("it is not an array")
	}
	var all []finding
	known := map[int]bool{}
	for d.More() {
		var text json.RawMessage
		if err := d.Decode(&text); err != nil {
			return nil, err
		}
		var s struct {
			Node, Age any
			stats.Sample
		}
		if err := json.Unmarshal(text, &s); err != nil {
			return nil, err
		}
		if s.ID < 1 || s.ID > maxID || known[s.ID] || s.Node != nil || s.Age != nil {
			return nil, fmt.Errorf("%d is no virtual server's number, or there twice, or another node's", s.ID)
		}
		known[s.ID] = true
		all = append(all, finding{node, age(s.Time, now), stats.Source{ID: s.ID, Name: s.Name}, text})
	}
	_, err := d.Token()
	return all, err
}

// maxID is the highest number that a virtual server may have.
const maxID = 4094
