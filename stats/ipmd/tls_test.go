package ipmd

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// A tlsTest is a server on 127.0.0.1 that answers everything, and its files.
type tlsTest struct {
	ca      *lab.Authority
	dir     string
	creds   *credentials
	address string
	log     journal
}

// serveTLS gives handshakes that time.
func serveTLS(t *testing.T, handshake time.Duration) *tlsTest {
	t.Helper()
	s := &tlsTest{ca: lab.NewAuthority(t, "ca"), dir: t.TempDir()}
	s.ca.Issue(t, "a").Write(t, s.dir, s.ca)
	s.creds = load(t, s.dir, s.log.logger())
	l, err := listenTCP(t.Context(), "127.0.0.1:0")
	must(t, err)
	s.address = l.Addr().String()
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Join(namesIn(r.TLS.PeerCertificates[0]), " "))
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(newTLSListener(l, s.creds, handshake)) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-served; err != http.ErrServerClosed {
			t.Error(err)
		}
	})
	return s
}

// dial connects with a certificate, or without. Whether the server takes it is
// seen when one reads: the client's handshake is over before that in TLS 1.3.
func (s *tlsTest) dial(t *testing.T, pair *lab.Pair, change ...func(*tls.Config)) (*tls.Conn, error) {
	t.Helper()
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "a"}
	config.RootCAs.AppendCertsFromPEM(s.ca.PEM)
	if pair != nil {
		cert, err := tls.X509KeyPair(pair.Certificate, pair.Key)
		must(t, err)
		// As given, whatever authorities the server says it has.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	for _, c := range change {
		c(config)
	}
	c, err := tls.Dial("tcp", s.address, config)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// getOn asks once on a connection.
func getOn(c net.Conn) (string, error) {
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		return "", err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

// Who shows no good certificate is refused, and logged once.
func TestTLSRefuses(t *testing.T) {
	s := serveTLS(t, time.Second)
	issue := func(a *lab.Authority, until time.Duration) *lab.Pair {
		p := a.IssueUntil(t, "b", time.Now().Add(until))
		return &p
	}
	good := issue(s.ca, time.Hour)
	c, err := s.dial(t, good)
	must(t, err)
	if got, err := getOn(c); got != "b" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	if v := c.ConnectionState().Version; v != tls.VersionTLS13 {
		t.Errorf("version %x", v)
	}
	tries := []struct {
		reason string
		try    func() error
	}{
		{"it has no certificate", func() error { return s.ask(t, nil) }},
		{"its certificate is signed by no authority of ours", func() error { return s.ask(t, issue(lab.NewAuthority(t, "ca"), time.Hour)) }},
		{"its certificate has expired, or is not valid yet", func() error { return s.ask(t, issue(s.ca, -time.Minute)) }},
		{"it does not speak TLS 1.3", func() error {
			return s.ask(t, good, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })
		}},
		{"it refuses the certificate of this node", func() error {
			return s.ask(t, good, func(c *tls.Config) { c.ServerName = "b" })
		}},
		{"it does not speak TLS", func() error {
			c, err := net.Dial("tcp", s.address)
			must(t, err)
			defer c.Close()
			got, err := getOn(c)
			if err == nil && !strings.Contains(got, "expects TLS") {
				t.Errorf("%q", got)
			}
			return fmt.Errorf("%q, %w", got, err)
		}},
		{"it does not finish the handshake", func() error {
			c, err := net.Dial("tcp", s.address)
			must(t, err)
			defer c.Close()
			_, err = io.ReadAll(c) // until it is closed
			return fmt.Errorf("closed (%w)", err)
		}},
		{"it hangs up", func() error {
			c, err := net.Dial("tcp", s.address)
			must(t, err)
			return c.Close()
		}},
	}
	for range 3 {
		for _, test := range tries {
			if err := test.try(); err == nil && test.reason != "it hangs up" {
				t.Errorf("%s, and is answered", test.reason)
			}
		}
	}
	for _, test := range tries {
		soon(t, test.reason, func() bool { return s.log.count(`reason="`+test.reason+`"`) == 1 })
	}
	if n := s.log.count("level=WARN"); n != len(tries) {
		t.Errorf("%d lines for %d reasons:\n%s", n, len(tries), &s.log)
	}
	if got, err := getOn(c); got != "b" || err != nil {
		t.Errorf("the good one, after that: %q, %v", got, err)
	}
}

func (s *tlsTest) ask(t *testing.T, pair *lab.Pair, change ...func(*tls.Config)) error {
	c, err := s.dial(t, pair, change...)
	if err == nil {
		_, err = getOn(c)
	}
	return err
}

// Those who do not finish the handshake do not keep others from theirs.
func TestHalfOpenHandshakes(t *testing.T) {
	s := serveTLS(t, handshakeTimeout)
	for range 200 {
		c, err := net.Dial("tcp", s.address)
		must(t, err)
		defer c.Close()
	}
	good := s.ca.Issue(t, "b")
	must(t, s.ask(t, &good))
}

// A connection ends when its certificate expires, or its authority goes, and
// only then.
func TestEstablishedConnections(t *testing.T) {
	s := serveTLS(t, handshakeTimeout)
	other := lab.NewAuthority(t, "other")
	own := s.ca.Issue(t, "a")
	own.Write(t, s.dir, s.ca, other)
	must(t, s.creds.use(filesIn(s.dir)))

	connect := func(a *lab.Authority, until time.Duration) *tls.Conn {
		p := a.IssueUntil(t, "b", time.Now().Add(until))
		c, err := s.dial(t, &p)
		must(t, err)
		_, err = getOn(c)
		must(t, err)
		return c
	}
	stays, removed, expires := connect(s.ca, time.Hour), connect(other, time.Hour), connect(s.ca, 2*time.Second)

	s.ca.Issue(t, "a").Write(t, s.dir, s.ca) // renewed, and one authority less
	must(t, s.creds.use(filesIn(s.dir)))
	for name, c := range map[string]*tls.Conn{"its authority is gone": removed, "it has expired": expires} {
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := getOn(stays); got != "b" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for _, words := range []string{"signed by no authority", "its certificate has expired"} {
		if s.log.count(words) != 1 {
			t.Errorf("%q is not logged once:\n%s", words, &s.log)
		}
	}
}

// Whoever can connect cannot fill the log.
func TestRefusalsAreBounded(t *testing.T) {
	var log journal
	r := refusals{log: log.logger()}
	from := func(i int) net.Addr {
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), uint16(i)))
	}
	for i := range 10 * maxRefusals {
		r.add(from(i), fmt.Errorf("%d: %s", i, strings.Repeat("x", 10_000)))
		r.add(from(0), context.DeadlineExceeded)
	}
	if lines := log.count("\n"); lines != maxRefusals+1 {
		t.Errorf("%d lines", lines)
	}
	if size := len(log.String()); size > 100_000 {
		t.Errorf("%d bytes", size)
	}
	if log.count("too many connections are refused to log each") != 1 {
		t.Error("not said that there are more")
	}
	r.since = r.since.Add(-refusalWindow)
	r.add(from(1), io.EOF)
	if log.count("more connections were refused") != 1 || log.count("it hangs up") != 1 {
		t.Errorf("the next hour: %s", log.String()[len(log.String())-1000:])
	}
}

// A listener can have an address that its host does not have yet, as at boot.
func TestListenTCPBeforeAddress(t *testing.T) {
	for _, address := range []string{"192.0.2.1:9118", "[2001:db8::1]:9118"} {
		l, err := listenTCP(t.Context(), address)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		l.Close()
	}
	if _, err := listenTCP(t.Context(), "192.0.2.1:http:x"); err == nil || !strings.HasPrefix(err.Error(), "cannot listen: ") {
		t.Errorf("%v", err)
	}
}
