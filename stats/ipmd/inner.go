package ipmd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
)

// WriteMetrics writes what /metrics tells root, in the Prometheus text format.
func (s *Server) WriteMetrics(ctx context.Context, w io.Writer) error {
	self := Identity{Local: true, UID: uint32(os.Geteuid())}
	req, err := http.NewRequestWithContext(context.WithValue(ctx, identityKey{}, self), http.MethodGet, "/metrics", nil)
	if err != nil {
		return err
	}
	answer := innerAnswer{to: w, header: make(http.Header), status: http.StatusOK}
	s.ServeHTTP(&answer, req)
	if answer.status != http.StatusOK {
		return fmt.Errorf("cannot read the metrics: %s", bytes.TrimSpace(answer.refusal))
	}
	return answer.err
}

// An innerAnswer is the answer to a request of this program's own.
type innerAnswer struct {
	to      io.Writer
	header  http.Header
	status  int
	refusal []byte
	err     error // to's
}

func (a *innerAnswer) Header() http.Header    { return a.header }
func (a *innerAnswer) WriteHeader(status int) { a.status = status }

func (a *innerAnswer) Write(p []byte) (int, error) {
	if a.status != http.StatusOK {
		a.refusal = append(a.refusal, p...)
		return len(p), nil
	}
	n, err := a.to.Write(p)
	if a.err == nil {
		a.err = err
	}
	return n, err
}
