package push

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// timeout is the most that one request may take.
const timeout = 30 * time.Second

const minBackoff, maxBackoff = time.Second, time.Minute

// A sender sends one request at a time: a receiver wants a series' samples in order.
type sender struct {
	Config
	client  *http.Client
	waiting *queue
	log     *slog.Logger

	failing string // what was logged
	refused int    // requests, for good, since then
}

func (s *sender) run(ctx context.Context) {
	for {
		b, err := s.waiting.take(ctx)
		refused := s.refused
		for k := 0; err == nil && k < len(b.requests); k++ {
			err = s.deliver(ctx, b.requests[k])
		}
		if err != nil { // ctx has ended
			return
		}
		if s.refused == refused {
			s.recovered()
		}
	}
}

// deliver sends a request until it has arrived, or is refused for good. The error is
// that ctx has ended.
func (s *sender) deliver(ctx context.Context, body []byte) error {
	for backoff := minBackoff; ; backoff = min(2*backoff, maxBackoff) {
		failure := s.send(ctx, body)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if failure == nil {
			return nil
		}
		s.report(failure)
		if failure.final {
			return nil
		}
		if err := pause(ctx, max(backoff, failure.after)); err != nil {
			return err
		}
	}
}

// A failure is why a request has not arrived; again would not help where it is final.
type failure struct {
	cause string
	final bool
	after time.Duration // what the receiver asks for
}

func (s *sender) send(ctx context.Context, body []byte) *failure {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := s.request(ctx, body)
	if err != nil {
		return &failure{cause: err.Error()}
	}
	res, err := s.client.Do(req)
	if err != nil {
		return &failure{cause: err.Error()}
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(res.Body, 512))
	if res.StatusCode/100 == 2 {
		return nil
	}
	seconds, _ := strconv.Atoi(res.Header.Get("Retry-After"))
	return &failure{
		cause: fmt.Sprintf("%s: %s", res.Status, strings.TrimSpace(string(said))),
		final: res.StatusCode/100 != 5 && res.StatusCode != http.StatusTooManyRequests,
		after: min(max(0, time.Duration(seconds)*time.Second), maxBackoff),
	}
}

func (s *sender) request(ctx context.Context, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for _, headers := range []map[string]string{protocol, s.Headers} {
		for name, value := range headers {
			req.Header.Set(name, value)
		}
	}
	switch { // read each time: secrets are replaced
	case s.BearerTokenFile != "":
		token, err := os.ReadFile(s.BearerTokenFile)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	case s.User != "":
		password, err := os.ReadFile(s.PasswordFile)
		if err != nil {
			return nil, err
		}
		req.SetBasicAuth(s.User, strings.TrimRight(string(password), "\r\n"))
	}
	return req, nil
}

// report logs a failure once, until it is another one.
func (s *sender) report(f *failure) {
	if f.final {
		s.refused++
	}
	if f.cause != s.failing {
		s.failing = f.cause
		s.log.Warn("cannot push", "url", s.URL, "err", f.cause, "lost", f.final)
	}
}

// recovered logs that all of a push has arrived, after a failure.
func (s *sender) recovered() {
	if s.failing != "" {
		s.log.Info("pushing works again", "url", s.URL, "pushes lost", s.waiting.losses(), "requests refused", s.refused)
		s.failing, s.refused = "", 0
	}
}

// client has the certificates. Its own is read for each connection.
func (c Config) client() (*http.Client, error) {
	config := &tls.Config{}
	if c.Authorities != "" {
		pem, err := os.ReadFile(c.Authorities)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificates", c.Authorities)
		}
	}
	if c.Certificate != "" {
		own := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
			return &pair, err
		}
		if _, err := own(); err != nil {
			return nil, err
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own() }
	}
	return &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true},
		// A redirect would have the metrics, and the secret, go elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}
