package ipmd

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// A journal is what was logged.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) count(words string) int { return strings.Count(j.String(), words) }

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// soon waits for what is to become true in a moment.
func soon(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func filesIn(dir string) Endpoint {
	return Endpoint{
		Certificate: filepath.Join(dir, "node.crt"),
		Key:         filepath.Join(dir, "node.key"),
		Authorities: filepath.Join(dir, "authorities.crt"),
	}
}

// load makes credentials of a directory.
func load(t *testing.T, dir string, log *slog.Logger) *credentials {
	t.Helper()
	c := &credentials{log: log}
	must(t, c.use(filesIn(dir)))
	return c
}

// What is broken is refused, with the file's name, and the old ones are kept.
func TestReloadRefuses(t *testing.T) {
	ca, dir := lab.NewAuthority(t, "ca"), t.TempDir()
	good, other := ca.Issue(t, "a"), ca.Issue(t, "a")
	good.Write(t, dir, ca)
	c := load(t, dir, slog.New(slog.DiscardHandler))
	before := c.current.Load()
	must(t, c.use(filesIn(dir)))
	if c.current.Load() != before {
		t.Error("the same files made other credentials")
	}
	half := func(b []byte) []byte { return bytes.Clone(b[:len(b)/2]) }
	for _, test := range []struct {
		file string
		text []byte
		want string
	}{
		{"node.crt", nil, "there is no certificate in it"},
		{"node.crt", half(good.Certificate), "there is no certificate in it"},
		{"node.crt", append(bytes.Clone(good.Certificate), half(ca.PEM)...), "one of its certificates is cut off"},
		{"node.crt", other.Certificate, "private key does not match public key"},
		{"node.crt", good.Key, `"PRIVATE KEY" where a certificate should be`},
		{"node.crt", bytes.Repeat([]byte("x"), maxPEM+1), "is larger than 1 MiB"},
		{"node.key", nil, "failed to find any PEM data in key input"},
		{"node.key", half(good.Key), "failed to find any PEM data in key input"},
		{"node.key", other.Key, "private key does not match public key"},
		{"authorities.crt", nil, "there is no certificate in it"},
		{"authorities.crt", append(bytes.Clone(ca.PEM), half(ca.PEM)...), "one of its certificates is cut off"},
		{"authorities.crt", slices.Concat(half(ca.PEM), ca.PEM, ca.PEM), "one of its certificates is cut off"},
	} {
		lab.Replace(t, filepath.Join(dir, test.file), test.text)
		err := c.use(filesIn(dir))
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.file) {
			t.Errorf("%s: %v, want %s", test.file, err, test.want)
		}
		if c.current.Load() != before {
			t.Fatalf("%s: taken", test.want)
		}
		good.Write(t, dir, ca)
	}
	must(t, os.Remove(filepath.Join(dir, "node.key")))
	if err := c.use(filesIn(dir)); err == nil || !strings.Contains(err.Error(), "node.key: no such file") {
		t.Errorf("%v", err)
	}
}

// Watch takes what is renewed; what is broken is said once.
func TestWatchCredentials(t *testing.T) {
	ca, dir := lab.NewAuthority(t, "ca"), t.TempDir()
	ca.Issue(t, "a").Write(t, dir, ca)
	var log journal
	c := load(t, dir, log.logger())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.watch(ctx, filesIn(dir)) }()
	first := c.current.Load()

	lab.Replace(t, filepath.Join(dir, "node.crt"), nil)
	soon(t, "an error in the log", func() bool { return log.count("the old ones are kept") == 1 })
	lab.Replace(t, filepath.Join(dir, "node.crt"), nil)
	second := ca.Issue(t, "a2")
	second.Write(t, dir, ca)
	soon(t, "other credentials", func() bool { return c.current.Load() != first })
	if got := namesIn(c.current.Load().certificate.Leaf); len(got) != 1 || got[0] != "a2" {
		t.Errorf("%q", got)
	}
	if n := log.count("the old ones are kept"); n != 1 {
		t.Errorf("said %d times:\n%s", n, &log)
	}
	cancel()
	must(t, <-ended)
}

// A certificate that others are bound to refuse is taken, and that is said.
func TestWarnsOfCertificate(t *testing.T) {
	ca, other, dir := lab.NewAuthority(t, "ca"), lab.NewAuthority(t, "other"), t.TempDir()
	for _, test := range []struct {
		pair lab.Pair
		by   *lab.Authority
		warn string
	}{
		{ca.Issue(t, "a"), ca, ""},
		{ca.IssueUntil(t, "a", time.Now().Add(-time.Minute)), ca, "certificate has expired"},
		{ca.Issue(t, "a"), other, "signed by unknown authority"},
	} {
		test.pair.Write(t, dir, test.by)
		var log journal
		load(t, dir, log.logger())
		if warned := log.count("level=WARN") > 0; warned != (test.warn != "") || !strings.Contains(log.String(), test.warn) {
			t.Errorf("want a warning of %q:\n%s", test.warn, &log)
		}
	}
}

// Certificates that are taken are all that are there.
func FuzzParseCertificates(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----BEGIN X-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseCertificates(text)
		if (err == nil) != (len(all) > 0) {
			t.Errorf("%d certificates, %v", len(all), err)
		}
	})
}
