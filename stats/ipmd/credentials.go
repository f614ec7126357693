package ipmd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// credentials are what this node shows to others, and judges them by. The zero
// value, with a log, has none. Safe for concurrent use.
type credentials struct {
	log     *slog.Logger
	current atomic.Pointer[keySet] // nil before the first use

	mu      sync.Mutex // held while files are read
	changed func()
}

// A keySet is what was in the files at one time.
type keySet struct {
	text        [3][]byte
	certificate tls.Certificate
	authorities *x509.CertPool
	server      *tls.Config
}

// use reads the files of an endpoint. What is broken, or was written by half, is
// an error, and changes nothing.
func (c *credentials) use(files Endpoint) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next, err := files.read()
	if err != nil {
		return fmt.Errorf("cannot take the certificate, key and authorities: %w", err)
	}
	if was := c.current.Load(); was != nil && was.same(next) {
		return nil
	}
	c.current.Store(next)
	c.log.Info("ipmd has read its certificate", "file", files.Certificate,
		"names", namesIn(next.certificate.Leaf), "expires", next.certificate.Leaf.NotAfter.UTC())
	next.warn(c.log)
	if c.changed != nil {
		c.changed()
	}
	return nil
}

// onChange has tell called after each change, and nobody else.
func (c *credentials) onChange(tell func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed = tell
}

// settle is how long files are left alone after one has changed: those who renew
// a certificate write its key next.
const settle = 100 * time.Millisecond

// watch reads the files now and when they change, until ctx ends: those who renew
// certificates rename them into place, or a symlink on the way to them.
func (c *credentials) watch(ctx context.Context, files Endpoint) error {
	w, err := newPathWatch()
	if err != nil {
		return fmt.Errorf("cannot watch the certificate's file: %w", err)
	}
	defer w.close()
	var told string
	for {
		w.follow(files.Certificate, files.Key, files.Authorities)
		now := ""
		if err := c.use(files); err != nil { // after the look, so that no change is missed
			now = err.Error() + "; the old ones are kept"
		}
		if now != "" && now != told {
			c.log.Error(now)
		}
		told = now
		select {
		case <-ctx.Done():
			return nil
		case <-w.hits:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(settle):
		}
	}
}

// maxPEM bounds what is read of one file, in bytes.
const maxPEM = 1 << 20

func (f Endpoint) read() (*keySet, error) {
	k := &keySet{}
	for i, path := range []string{f.Certificate, f.Key, f.Authorities} {
		var err error
		if k.text[i], err = readPEM(path); err != nil {
			return nil, err
		}
	}
	if _, err := parseCertificates(k.text[0]); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Certificate, err)
	}
	authorities, err := parseCertificates(k.text[2])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Authorities, err)
	}
	if k.certificate, err = tls.X509KeyPair(k.text[0], k.text[1]); err != nil {
		return nil, fmt.Errorf("%s and %s: %w", f.Certificate, f.Key, err)
	}
	k.authorities = x509.NewCertPool()
	for _, a := range authorities {
		k.authorities.AddCert(a)
	}
	k.server = &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{k.certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    k.authorities,
		// A ticket would outlive what the certificate was judged by.
		SessionTicketsDisabled: true,
	}
	return k, nil
}

func readPEM(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(text) > maxPEM {
		err = fmt.Errorf("%s is larger than %d MiB", path, maxPEM>>20)
	}
	return text, err
}

// parseCertificates refuses what x509.CertPool would pass over: a block that is
// cut off, or is something else.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	begun := bytes.Count(text, []byte("-----BEGIN "))
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%.40q where a certificate should be", block.Type)
		}
		one, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	switch {
	case len(all) == 0:
		return nil, errors.New("there is no certificate in it")
	case len(all) != begun:
		return nil, errors.New("one of its certificates is cut off")
	}
	return all, nil
}

func (k *keySet) same(other *keySet) bool {
	return slices.EqualFunc(k.text[:], other.text[:], bytes.Equal)
}

// client is how to connect to another node: it must have the name that the
// connection is made for.
func (k *keySet) client() *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{k.certificate},
		RootCAs:      k.authorities,
	}
}

// warn says why other nodes will refuse this one, where that can be known: they
// may have other authorities, so it is no error.
func (k *keySet) warn(log *slog.Logger) {
	chain, err := parseCertificates(k.text[0])
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err == nil {
			_, err = k.verify(chain, usage)
		}
	}
	if err != nil {
		log.Warn("other nodes may refuse the certificate of this one", "err", err)
	}
}

// verify judges another's certificate by the authorities. It is good until the
// time that is returned.
func (k *keySet) verify(chain []*x509.Certificate, usage x509.ExtKeyUsage) (until time.Time, err error) {
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	paths, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         k.authorities,
		Intermediates: intermediates,
		KeyUsages:     []x509.ExtKeyUsage{usage},
	})
	for _, path := range paths {
		if end := expiry(path); end.After(until) {
			until = end
		}
	}
	return until, err
}

// expiry is when the first certificate of a chain expires.
func expiry(chain []*x509.Certificate) time.Time {
	return slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }).NotAfter
}

// namesIn are what a certificate calls its owner: its subject's common name, and
// its alternative names.
func namesIn(c *x509.Certificate) []string {
	all := append(hostsIn(c), c.Subject.CommonName)
	for _, u := range c.URIs {
		all = append(all, u.String())
	}
	all = slices.DeleteFunc(all, func(name string) bool { return name == "" })
	slices.Sort(all)
	return slices.Compact(all)
}

// hostsIn are the DNS names and addresses in a certificate: what an authority's name
// constraints are for, and a node is asked by (RFC 5280, section 4.2.1.10).
func hostsIn(c *x509.Certificate) []string {
	all := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}
