package ipmd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vsrun/vsrun/stats"
	"github.com/vsrun/vsrun/test/lab"
)

// Each asks as another user of this host, on the real socket.
func TestAccess(t *testing.T) {
	lab.NeedRoot(t, "several users ask")
	s := three(t)
	configure(t, s, `
access:
- {user: 1001, servers: [8]}
- {user: 1002, servers: [finance, 10], ask: [stats]}
- {group: 55, servers: ["9"]}
- {group: 55, servers: [all], ask: [metrics]}
- {group: 56, servers: [all]}
- {certificate: node2, servers: [all]}
`)
	socket := openSocket(t, s)
	for _, test := range []struct {
		uid, gid uint32
		groups   []uint32
		path     string
		status   int
		has, not string // the answer
	}{
		{0, 0, nil, "/stats", 200, `"id":9`, ""},
		{1001, 1, nil, "/stats", 200, `"id":8`, `"id":9`},
		{1001, 1, nil, "/stats?id=finance", 200, `"id":8`, `"id":9`},
		{1001, 1, nil, "/metrics", 200, `vs="8"`, `vs="9"`},
		{1001, 1, nil, "/stats?id=9", 403, `{"error":"user 1001 may not ask for virtual server \"9\"","hint":"let it by a rule under access: in ipmd's configuration file, and reload ipmd"}`, ""},
		{1001, 1, nil, "/stats?id=8&id=nobody", 403, `user 1001 may not ask for virtual server \"nobody\"`, ""},
		{1001, 1, []uint32{54, 56}, "/stats", 200, `"id":9`, ""},
		{1002, 1, nil, "/stats", 200, `"id":8`, `"id":9`},
		{1002, 1, nil, "/stats?id=10", 404, "vs10 is not running", ""},
		{1002, 1, nil, "/metrics", 403, "user 1002 may not ask for metrics", ""},
		{1003, 1, nil, "/stats", 403, "user 1003 may not ask for stats", ""},
		{1003, 1, nil, "/healthz", 200, "ok", ""},
		{1003, 55, nil, "/stats", 200, `"id":9`, `"id":8`},
		{1003, 55, nil, "/stats?id=8", 403, "may not ask for", ""}, // whose name is 8 is another
		{1003, 1, []uint32{55}, "/metrics", 200, `vs="8"`, ""},
		{1002, 1, []uint32{55}, "/stats", 200, `"id":9`, ""},
		{1003, 1, manyGroups(56), "/stats", 200, `"id":9`, ""},
	} {
		name := fmt.Sprintf("user %d of %d and %d others asks for %s", test.uid, test.gid, len(test.groups), test.path)
		status, body := askAs(t, socket, test.path, &syscall.Credential{Uid: test.uid, Gid: test.gid, Groups: test.groups})
		if status != test.status || !strings.Contains(body, test.has) || test.not != "" && strings.Contains(body, test.not) {
			t.Errorf("%s: %d, want %d\n%s", name, status, test.status, body)
		}
	}
}

// Without rules the socket's mode decides; with rules it is open to all.
func TestAccessFollowsTheConfiguration(t *testing.T) {
	s := serverOf()
	socket := openSocket(t, s)
	for text, want := range map[string]os.FileMode{"{}": 0o660, "access: [{user: 1001, servers: [all]}]": 0o666} {
		configure(t, s, text)
		if fi, err := os.Stat(socket); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v", text, fi.Mode(), err)
		}
	}
}

// Who is accepted without rules, but connected while the socket was open to all, has
// nothing to say; its owner and its group do.
func TestAccessWhenTheRulesAreRemoved(t *testing.T) {
	lab.NeedRoot(t, "several users ask")
	s := three(t)
	socket := openSocket(t, s)
	must(t, os.Chown(socket, 0, 55))
	must(t, os.Chmod(socket, 0o666)) // as between the two steps of a reload
	for _, test := range []struct {
		who    syscall.Credential
		status int
	}{
		{syscall.Credential{Uid: 1001, Gid: 1}, 403},
		{syscall.Credential{Uid: 1001, Gid: 55}, 200},
		{syscall.Credential{Uid: 1001, Gid: 1, Groups: []uint32{55}}, 200},
		{syscall.Credential{Uid: 0, Gid: 1}, 200},
	} {
		if status, body := askAs(t, socket, "/stats", &test.who); status != test.status {
			t.Errorf("%+v: %d, want %d\n%s", test.who, status, test.status, body)
		}
	}
}

// A configuration that cannot be taken changes nothing.
func TestConfigureWithoutTheSocket(t *testing.T) {
	s := serverOf()
	socket := openSocket(t, s)
	must(t, os.Remove(socket))
	config, err := ReadConfig(strings.NewReader("access: [{user: 1001, servers: [all]}]"), "config")
	must(t, err)
	if err := s.Configure(config); err == nil || len(s.configuration().Access) != 0 {
		t.Errorf("%v, and then %+v", err, s.configuration().Access)
	}
}

func TestAccessByCertificate(t *testing.T) {
	s := serverOf(stats.Source{ID: 8}, stats.Source{ID: 9})
	configure(t, s, "access:\n- {certificate: node2, servers: [8]}\n- {certificate: node3, servers: [all], ask: [cluster]}\n")
	for _, test := range []struct {
		subject, dns string
		status       int
	}{
		{"node2", "", 200},
		{"", "node2", 200},
		{"node3", "node2.example.test", 403},
		{"", "", 403},
	} {
		r := httptest.NewRequest(http.MethodGet, "/stats", nil)
		leaf := &x509.Certificate{Subject: pkix.Name{CommonName: test.subject}, DNSNames: []string{test.dns}}
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != test.status {
			t.Errorf("%+v: %d %s", test, w.Code, w.Body)
		}
	}
	// Authorities may be kept from giving hosts' names, but not from giving others.
	peers := Config{Peers: []Peer{{Name: "node4"}}}
	for _, leaf := range []*x509.Certificate{{DNSNames: []string{"node4"}}, {Subject: pkix.Name{CommonName: "node4"}}, {URIs: []*url.URL{{Path: "node4"}}}} {
		who := identify(&http.Request{TLS: &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}})
		if _, err := peers.grant(who, askStats); (err == nil) != (len(leaf.DNSNames) > 0) {
			t.Errorf("%s: %v", who, err)
		}
	}
	for name, state := range map[string]*tls.ConnectionState{"nobody": nil, "an unverified one": {PeerCertificates: []*x509.Certificate{{}}}} {
		r := httptest.NewRequest(http.MethodGet, "/stats", nil)
		r.TLS = state
		w := httptest.NewRecorder()
		serverOf().ServeHTTP(w, r) // no rules
		if w.Code != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

func configure(t *testing.T, s *Server, text string) {
	t.Helper()
	config, err := ReadConfig(strings.NewReader(text), "config")
	must(t, err)
	must(t, s.Configure(config))
}

// openSocket is the socket of a server, where every user gets to it.
func openSocket(t *testing.T, s *Server) string {
	t.Helper()
	client, _ := start(t, s)
	for dir := filepath.Dir(client.Socket); dir != os.TempDir(); dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	client.Stats(t.Context()) // who answers has set the socket's mode
	return client.Socket
}

func manyGroups(last uint32) []uint32 {
	var groups []uint32
	for id := range uint32(200) {
		groups = append(groups, 5000+id)
	}
	return append(groups, last)
}

const askPath = "IPMD_TEST_ASK" // has the test binary ask for the path, on the socket that is its argument

func askAs(t *testing.T, socket, path string, who *syscall.Credential) (status int, body string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", socket)
	cmd.Env = append(os.Environ(), askPath+"="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	if _, err := fmt.Sscan(string(out), &status); err != nil {
		t.Fatal(err)
	}
	return status, string(out)
}

func ask(socket, path string) error {
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	res, err := client.Get("http://ipmd" + path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	fmt.Println(res.StatusCode)
	_, err = io.Copy(os.Stdout, res.Body)
	return err
}
