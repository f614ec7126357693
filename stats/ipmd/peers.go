package ipmd

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"syscall"
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
	// maxAnswer bounds a peer's answer, in bytes: twice that of 4094 virtual servers
	// with all that Linux 6.18 counts.
	maxAnswer = 128 << 20

	// maxConnections bounds the connections to one peer. Questions wait for one.
	maxConnections = 4

	// A peer that did not answer in time is asked for its health first, so that not
	// every question waits for it: so often, and for as long at most. The question
	// that begins it waits a moment for that.
	trialPause    = time.Second
	trialPatience = 200 * time.Millisecond
)

// A link is how one peer is asked, with one set of keys. Its connections are kept.
type link struct {
	peer   Peer
	keys   *keySet
	client http.Client

	mu     sync.Mutex
	hung   bool // the last answer did not come in time
	trying bool
	next   time.Time // of a trial
}

func newLink(p Peer, keys *keySet) *link {
	config := keys.client()
	config.ServerName = p.Name
	// The time is for the handshake, too: net/http lets a dial go on when its question
	// has ended.
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: peerTimeout}, Config: config}
	transport := &http.Transport{
		// The URL has the peer's name, since that is what its certificate is for.
		// The connection ends when that expires.
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, "tcp", p.Address)
			if err != nil {
				return nil, err
			}
			return c, c.SetDeadline(expiry(c.(*tls.Conn).ConnectionState().VerifiedChains[0]))
		},
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
	if !l.answers(ctx) {
		return nil, fmt.Errorf("%w, nor before", errTooLate)
	}
	begun := time.Now()
	samples, err := l.get(ctx, query)
	if silent(err) && time.Since(begun) >= trialPatience { // else it is the asker who was hurried
		l.mu.Lock()
		l.hung = true
		l.mu.Unlock()
	}
	return samples, err
}

// answers is false for a peer that hangs, as far as is known.
func (l *link) answers(ctx context.Context) bool {
	l.mu.Lock()
	hung, begin := l.hung, l.hung && !l.trying && time.Now().After(l.next)
	l.trying = l.trying || begin
	l.mu.Unlock()
	if !begin {
		return !hung
	}
	answers := make(chan bool, 1)
	go func() { answers <- l.try() }()
	select {
	case ok := <-answers:
		return ok
	case <-time.After(trialPatience):
	case <-ctx.Done():
	}
	return false
}

// try asks a peer that hung for its health. An error that comes at once is as good
// as an answer: nobody waits for that.
func (l *link) try() (answers bool) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), trialPause, errTooLate)
	defer cancel()
	res, err := l.send(ctx, "/healthz", nil)
	if err == nil {
		finish(res.Body)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hung, l.trying, l.next = silent(err), false, time.Now().Add(trialPause)
	return !l.hung
}

// silent tells whether nobody has said anything, not even the peer's kernel. It takes a
// while until ours takes an address for one that nobody has: whoever asks meanwhile hears
// of it at once, and the next one waits as long again.
func silent(err error) bool {
	return errors.Is(err, errTooLate) || errors.Is(err, syscall.EHOSTUNREACH)
}

// errTooLate is the cause of the context that peers are asked with.
var errTooLate = errors.New("no answer in time")

func (l *link) send(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	u := url.URL{Scheme: "https", Host: l.peer.Name, Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	res, err := l.client.Do(req)
	if err != nil {
		return nil, late(ctx, err)
	}
	return res, nil
}

func (l *link) get(ctx context.Context, query url.Values) ([]finding, error) {
	res, err := l.send(ctx, "/stats", query)
	if err != nil {
		return nil, err
	}
	defer finish(res.Body)
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

// finish reads to the end that is near, without which the connection is not kept.
func finish(body io.ReadCloser) {
	io.CopyN(io.Discard, body, 4<<10)
	body.Close()
}

// late is errTooLate where that is why err came, without the URL that nobody
// typed.
func late(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		if u.Timeout() { // of the dial
			return errTooLate
		}
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
