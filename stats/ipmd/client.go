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
	"syscall"
	"time"

	"github.com/vsrun/vsrun/stats"
)

// ErrNotRunning is the error when nobody listens on the socket.
var ErrNotRunning = errors.New("ipmd is not running")

// A Client asks the ipmd that listens on Socket. Each question of the simple
// Client{Socket: path} has a connection of its own; Open keeps them. It is safe for
// concurrent use.
//
// Errors: ErrNotRunning when no ipmd is there, ErrForbidden for what the asker may not
// ask, ErrNotFound when a virtual server that was asked for is not there, ErrBusy when
// ipmd has too much to do; others when it failed. Those of ipmd may have a Hint() string.
type Client struct {
	Socket string
	kept   *http.Client // nil: one for each question
}

// Open is a client that uses its connections again, until it is closed.
func Open(socket string) Client {
	return Client{socket, newHTTPClient(socket, false)}
}

// Close closes the connections that are kept. It ends no question.
func (c Client) Close() {
	if c.kept != nil {
		c.kept.CloseIdleConnections()
	}
}

func newHTTPClient(socket string, once bool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives:   once, // or a connection would outlive the Client
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     idleMost / 2, // before ipmd would end it
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return connect(ctx, socket) },
	}}
}

// connect waits while more connect at once than the kernel lets wait: other than for
// TCP, that is an error (unix(7), EAGAIN).
func connect(ctx context.Context, socket string) (net.Conn, error) {
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if !errors.Is(err, syscall.EAGAIN) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// Now is the MaxAge of counters that are read for the question.
const Now time.Duration = -1

// A Query is what to ask for. Its zero value is everything.
type Query struct {
	IDs        []string      // numbers and names; none: all
	Interfaces []string      // none: all, and the MIB
	WithoutMIB bool          // nor what goes with it; most of an answer is that
	MaxAge     time.Duration // how old samples may be: Now, or up to 1 h; 0: as ipmd is configured

	// Since is the cursor of an earlier answer: only those are asked for whose
	// figures have changed since.
	Since string
}

func (q Query) values() url.Values {
	v := url.Values{"id": q.IDs, "interface": q.Interfaces}
	if q.WithoutMIB {
		v.Set("mib", "no")
	}
	if q.MaxAge != 0 {
		v.Set("maxAge", max(q.MaxAge, 0).String())
	}
	if q.Since != "" {
		v.Set("since", q.Since)
	}
	return v
}

// An Answer is what ipmd tells.
type Answer struct {
	Samples []stats.Sample

	// Changes tells that only those are there that have changed; else it is
	// everything that was asked for.
	Changes bool

	// Cursor is for Query.Since.
	Cursor string
}

// Ask asks for counters. It takes 10 s at most.
func (c Client) Ask(ctx context.Context, q Query) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	res, err := c.get(ctx, "/stats?"+q.values().Encode(), nil)
	if err != nil {
		return Answer{}, err
	}
	defer res.Body.Close()
	a := Answer{Cursor: res.Header.Get(cursorHeader), Changes: res.Header.Get(answerHeader) == changes}
	if err := json.NewDecoder(res.Body).Decode(&a.Samples); err != nil {
		return Answer{}, fmt.Errorf("cannot read the answer of ipmd on %s: %w", c.Socket, err)
	}
	io.Copy(io.Discard, res.Body) // the end of the line, or the connection could not be used again
	return a, nil
}

// Stats reads the counters of virtual servers now, by number or name, or of all without
// ids.
func (c Client) Stats(ctx context.Context, ids ...string) ([]stats.Sample, error) {
	a, err := c.Ask(ctx, Query{IDs: ids, MaxAge: Now})
	return a.Samples, err
}

// ClusterStats reads the counters of virtual servers now on these nodes, or without nodes
// on all, by number or name, or of all without ids. Nodes may take 3 s, or three
// quarters of the time until ctx ends. Where a node does not answer, the rest is
// returned, and the answer's Nodes tell; that is an error only when what was asked
// for may be there, or when nothing is known. Other errors: ErrNotRunning when no ipmd
// is there, ErrNotFound when no node has one of the ids, ErrNoNode.
func (c Client) ClusterStats(ctx context.Context, nodes []string, ids ...string) (ClusterAnswer, error) {
	query := url.Values{"id": ids, "node": nodes, "maxAge": {"0s"}}
	if end, ok := ctx.Deadline(); ok {
		query.Set("timeout", max(min(time.Until(end)*3/4, peerTimeout), time.Millisecond).String())
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	res, err := c.send(ctx, "/cluster/stats?"+query.Encode(), nil)
	if err != nil {
		return ClusterAnswer{}, err
	}
	defer res.Body.Close()
	var answer ClusterAnswer
	switch res.StatusCode {
	case http.StatusOK, http.StatusNotFound, http.StatusBadGateway, http.StatusGatewayTimeout:
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
			return answer, fmt.Errorf("cannot read the answer of ipmd on %s: %w", c.Socket, err)
		}
		io.Copy(io.Discard, res.Body) // as Ask does
	default:
		return answer, c.refused(res)
	}
	switch {
	case answer.Error == "":
		return answer, nil
	case res.StatusCode != http.StatusNotFound:
		return answer, errors.New(answer.Error)
	case answer.Nodes == nil: // none was asked
		return answer, &answeredError{answer.Error, "", ErrNoNode}
	}
	return answer, &answeredError{answer.Error, "", ErrNotFound}
}

// Metrics writes what Prometheus would be told, in its text format.
func (c Client) Metrics(ctx context.Context, w io.Writer) error {
	res, err := c.get(ctx, "/metrics", nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(w, res.Body); err != nil {
		return fmt.Errorf("cannot copy the metrics of ipmd on %s: %w", c.Socket, err)
	}
	return nil
}

// get is the answer to a request, if that is not an error.
func (c Client) get(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	res, err := c.send(ctx, path, header)
	if err != nil || res.StatusCode == http.StatusOK {
		return res, err
	}
	defer res.Body.Close()
	return nil, c.refused(res)
}

func (c Client) send(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	// The host is for the HTTP header alone.
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://ipmd"+path, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	client := c.kept
	if client == nil {
		client = newHTTPClient(c.Socket, true)
	}
	res, err := client.Do(req)
	switch {
	case err == nil:
		return res, nil
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w on %s", ErrNotRunning, c.Socket)
	case errors.Is(err, syscall.EACCES):
		return nil, &answeredError{"cannot connect to " + c.Socket, "let the user by a rule under access: in ipmd's configuration file, and reload ipmd", ErrForbidden}
	}
	if u, ok := errors.AsType[*url.Error](err); ok { // it names a URL that nobody typed
		err = u.Err
	}
	return nil, fmt.Errorf("cannot ask ipmd on %s: %w", c.Socket, err)
}

// refused is the error that an answer other than 200 holds.
func (c Client) refused(res *http.Response) error {
	var body refusal
	err := json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&body)
	if err != nil || body.Error == "" {
		return fmt.Errorf("cannot ask ipmd on %s: it answers %s", c.Socket, res.Status)
	}
	return &answeredError{body.Error, body.Hint, kinds[res.StatusCode]}
}

var kinds = map[int]error{
	http.StatusForbidden:          ErrForbidden,
	http.StatusNotFound:           ErrNotFound,
	http.StatusServiceUnavailable: ErrBusy,
}

// An answeredError is an error in the server's words.
type answeredError struct {
	words, hint string
	kind        error
}

func (e *answeredError) Error() string        { return e.words }
func (e *answeredError) Is(target error) bool { return e.kind != nil && target == e.kind }
func (e *answeredError) Hint() string         { return e.hint }
