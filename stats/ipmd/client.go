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
	"strings"
	"syscall"
	"time"

	"github.com/vsrun/vsrun/stats"
)

// ErrNotRunning is the error when nobody listens on the socket.
var ErrNotRunning = errors.New("ipmd is not running")

// A Client asks the ipmd that listens on Socket.
type Client struct {
	Socket string
}

// Stats reads the counters of virtual servers, by number or name, or of all
// without ids. It takes 10 s at most. Errors: ErrNotRunning when no ipmd is
// there, ErrNotFound when one of the ids is not; others when it failed.
func (c Client) Stats(ctx context.Context, ids ...string) ([]stats.Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	res, err := c.get(ctx, "/stats?"+url.Values{"id": ids}.Encode())
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, c.refused(res)
	}
	var samples []stats.Sample
	if err := json.NewDecoder(res.Body).Decode(&samples); err != nil {
		return nil, fmt.Errorf("cannot read the answer of ipmd on %s: %w", c.Socket, err)
	}
	return samples, nil
}

// ClusterStats reads the counters of virtual servers on these nodes, or without nodes
// on all, by number or name, or of all without ids. Nodes may take 3 s, or three
// quarters of the time until ctx ends. Where a node does not answer, the rest is
// returned, and the answer's Nodes tell; that is an error only when what was asked
// for may be there, or when nothing is known. Other errors: ErrNotRunning when no ipmd
// is there, ErrNotFound when no node has one of the ids, ErrNoNode.
func (c Client) ClusterStats(ctx context.Context, nodes []string, ids ...string) (ClusterAnswer, error) {
	query := url.Values{"id": ids, "node": nodes}
	if end, ok := ctx.Deadline(); ok {
		query.Set("timeout", max(min(time.Until(end)*3/4, peerTimeout), time.Millisecond).String())
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	res, err := c.get(ctx, "/cluster/stats?"+query.Encode())
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
	default:
		return answer, c.refused(res)
	}
	switch {
	case answer.Error == "":
		return answer, nil
	case res.StatusCode != http.StatusNotFound:
		return answer, errors.New(answer.Error)
	case answer.Nodes == nil: // none was asked
		return answer, fmt.Errorf("%w: %s", ErrNoNode, strings.Join(nodes, ", "))
	}
	return answer, notFoundError(answer.Error)
}

func (c Client) get(ctx context.Context, path string) (*http.Response, error) {
	// The host is for the HTTP header alone.
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://ipmd"+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := (&http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // or a connection would outlive the Client
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", c.Socket)
		},
	}}).Do(req)
	switch {
	case err == nil:
		return res, nil
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w on %s", ErrNotRunning, c.Socket)
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
	switch {
	case err != nil || body.Error == "":
		return fmt.Errorf("cannot ask ipmd on %s: it answers %s", c.Socket, res.Status)
	case res.StatusCode == http.StatusNotFound:
		return notFoundError(body.Error)
	}
	return errors.New(body.Error)
}

// A notFoundError is an ErrNotFound in the server's words.
type notFoundError string

func (e notFoundError) Error() string        { return string(e) }
func (e notFoundError) Is(target error) bool { return target == ErrNotFound }
