package ipmd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Refused connections are logged once an address and reason in refusalWindow,
// and so many at most: who can connect must not be able to fill the log.
const (
	refusalWindow = time.Hour
	maxRefusals   = 100
)

// refusals logs whose connections are refused. The zero value, with a log, is
// ready.
type refusals struct {
	log *slog.Logger

	mu     sync.Mutex
	since  time.Time // of the window
	logged map[refusedFor]bool
	silent int // those that were not logged
}

type refusedFor struct {
	from   netip.Addr
	reason string
}

func (r *refusals) add(from net.Addr, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(time.Now())
	who := refusedFor{addressOf(from), reason(err)}
	switch {
	case r.logged[who] || len(r.logged) > maxRefusals:
		r.silent++
	case len(r.logged) == maxRefusals:
		r.silent++
		r.logged[refusedFor{}] = true // one more, so that this is said once
		r.log.Warn("too many connections are refused to log each", "until", r.since.Add(refusalWindow))
	default:
		r.logged[who] = true
		r.log.Warn("refused a connection", "from", who.from, "reason", who.reason, "err", shorten(err.Error()))
	}
}

// turn begins another window when it is time.
func (r *refusals) turn(now time.Time) {
	if now.Sub(r.since) < refusalWindow {
		return
	}
	if r.silent > 0 {
		r.log.Warn("more connections were refused", "count", r.silent, "since", r.since)
	}
	r.since, r.silent, r.logged = now, 0, map[refusedFor]bool{}
}

// addressOf is an address without its port.
func addressOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// shorten bounds what another has a say in.
func shorten(s string) string {
	const most = 300
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// reason is why a handshake failed, one of a few.
func reason(err error) string {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	var plain tls.RecordHeaderError
	var network *net.OpError
	switch {
	case errors.As(err, &plain):
		return "it does not speak TLS"
	case errors.As(err, &unknown):
		return "its certificate is signed by no authority of ours"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate has expired, or is not valid yet"
	case errors.As(err, &invalid):
		return "its certificate is not for this"
	case strings.Contains(err.Error(), "didn't provide a certificate"): // no type
		return "it has no certificate"
	case strings.Contains(err.Error(), "unsupported versions"):
		return "it does not speak TLS 1.3"
	case errors.As(err, &network) && network.Op == "remote error": // an alert
		return "it refuses the certificate of this node"
	case errors.Is(err, context.DeadlineExceeded):
		return "it does not finish the handshake"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return "it hangs up"
	}
	return "the handshake fails"
}
