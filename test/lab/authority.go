package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An Authority signs certificates for a test.
type Authority struct {
	PEM  []byte // its own certificate
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// A Pair is a certificate and its key, in PEM.
type Pair struct{ Certificate, Key []byte }

const month = 30 * 24 * time.Hour

// NewAuthority makes an authority.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	key := newKey(t)
	template := template(name, time.Now().Add(-time.Hour), time.Now().Add(month))
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	cert := sign(t, template, template, key, key)
	return &Authority{encode("CERTIFICATE", cert.Raw), cert, key}
}

// Issue makes a certificate that has the name as its DNS name and its subject's,
// for both ends of a connection, good for a month.
func (a *Authority) Issue(t testing.TB, name string) Pair {
	return a.IssueUntil(t, name, time.Now().Add(month))
}

// IssueUntil makes one that expires then; certificates have whole seconds.
func (a *Authority) IssueUntil(t testing.TB, name string, until time.Time) Pair {
	t.Helper()
	template := template(name, time.Now().Add(-2*time.Hour), until)
	template.DNSNames = []string{name}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	key := newKey(t)
	cert := sign(t, template, a.cert, key, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return Pair{encode("CERTIFICATE", cert.Raw), encode("PRIVATE KEY", der)}
}

// Write puts a pair and what it is to be judged by into a directory, as
// node.crt, node.key and authorities.crt, each renamed into place.
func (p Pair) Write(t testing.TB, dir string, authorities ...*Authority) {
	t.Helper()
	Replace(t, filepath.Join(dir, "node.crt"), p.Certificate)
	Replace(t, filepath.Join(dir, "node.key"), p.Key)
	var all []byte
	for _, a := range authorities {
		all = append(all, a.PEM...)
	}
	Replace(t, filepath.Join(dir, "authorities.crt"), all)
}

// Replace renames a new file over an old one.
func Replace(t testing.TB, path string, text []byte) {
	t.Helper()
	next := filepath.Join(filepath.Dir(path), ".next")
	if err := os.WriteFile(next, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func template(name string, from, until time.Time) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	return &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: until}
}

func sign(t testing.TB, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
