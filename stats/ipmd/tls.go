package ipmd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// handshakeTimeout is how long somebody may take to say who they are.
const handshakeTimeout = 5 * time.Second

// A tlsListener accepts connections of those whose certificate is good, and
// closes them when it no longer is. It shakes hands itself, many at once, since
// net/http says why it failed in prose alone.
type tlsListener struct {
	net.Listener
	credentials *credentials
	refused     refusals
	timeout     time.Duration // of a handshake

	ready  chan net.Conn
	failed chan error
	ctx    context.Context // ends when the listener is closed
	cancel context.CancelFunc

	mu   sync.Mutex
	open map[*peerConn]bool
}

// listenTCP listens on an address, which need not be there yet.
func listenTCP(ctx context.Context, address string) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if ctl := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
		}); ctl != nil {
			return ctl
		}
		return err
	}}
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	return l, nil
}

func newTLSListener(l net.Listener, credentials *credentials, timeout time.Duration) *tlsListener {
	t := &tlsListener{
		Listener:    l,
		credentials: credentials,
		refused:     refusals{log: credentials.log},
		timeout:     timeout,
		ready:       make(chan net.Conn),
		failed:      make(chan error, 1),
		open:        map[*peerConn]bool{},
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	credentials.onChange(t.judge)
	go t.serve()
	return t
}

// Accept is the next connection whose handshake is done.
func (t *tlsListener) Accept() (net.Conn, error) {
	select {
	case c := <-t.ready:
		return c, nil
	case err := <-t.failed:
		return nil, err
	}
}

// Close ends handshakes under way, and leaves what was accepted.
func (t *tlsListener) Close() error {
	t.cancel()
	return t.Listener.Close()
}

func (t *tlsListener) serve() {
	for {
		c, err := t.Listener.Accept()
		if err != nil {
			t.failed <- err // net/http asks again after what passes, as a lack of descriptors
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		go t.shake(c)
	}
}

// shake does the handshake on a connection, and hands it to Accept.
func (t *tlsListener) shake(raw net.Conn) {
	ctx, cancel := context.WithTimeout(t.ctx, t.timeout)
	defer cancel()
	p := &peerConn{Conn: raw, of: t}
	c := tls.Server(p, &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return t.credentials.current.Load().server, nil
		},
	})
	err := c.HandshakeContext(ctx)
	if err == nil {
		p.chain = c.ConnectionState().PeerCertificates
		t.add(p)
		select {
		case t.ready <- c:
			return
		case <-t.ctx.Done():
		}
	}
	if err != nil && t.ctx.Err() == nil {
		t.refused.add(raw.RemoteAddr(), err)
		answerPlain(err)
	}
	p.Close()
}

// answerPlain tells who has sent HTTP without TLS what is expected here.
func answerPlain(err error) {
	const get = "GET /"
	plain, ok := errors.AsType[tls.RecordHeaderError](err)
	if ok && plain.Conn != nil && string(plain.RecordHeader[:]) == get {
		plain.Conn.SetWriteDeadline(time.Now().Add(time.Second))
		plain.Conn.Write([]byte("HTTP/1.0 400 Bad Request\r\n\r\nipmd expects TLS here, and a certificate.\n"))
	}
}

// A peerConn is the TCP connection below an accepted one.
type peerConn struct {
	net.Conn
	of    *tlsListener
	chain []*x509.Certificate // what the other end has shown

	mu     sync.Mutex
	closed bool
	expiry *time.Timer
}

func (t *tlsListener) add(p *peerConn) {
	t.mu.Lock()
	t.open[p] = true
	t.mu.Unlock()
	p.judge()
}

// judge closes connections whose certificate is no longer good.
func (t *tlsListener) judge() {
	t.mu.Lock()
	var all []*peerConn
	for p := range t.open {
		all = append(all, p)
	}
	t.mu.Unlock()
	for _, p := range all {
		p.judge()
	}
}

// judge closes the connection when its certificate is not good any more, now or
// when that expires.
func (p *peerConn) judge() {
	until, err := p.of.credentials.current.Load().verify(p.chain, x509.ExtKeyUsageClientAuth)
	if err != nil {
		p.of.refused.add(p.RemoteAddr(), err)
		p.Close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.expiry != nil {
		p.expiry.Stop()
	}
	if !p.closed {
		p.expiry = time.AfterFunc(max(time.Until(until), time.Millisecond), p.judge)
	}
}

// Close closes the connection at once: no alert is waited for.
func (p *peerConn) Close() error {
	p.mu.Lock()
	p.closed = true
	if p.expiry != nil {
		p.expiry.Stop()
	}
	p.mu.Unlock()
	p.of.mu.Lock()
	delete(p.of.open, p)
	p.of.mu.Unlock()
	return p.Conn.Close()
}
