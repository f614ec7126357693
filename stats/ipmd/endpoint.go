package ipmd

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// An Endpoint is where other nodes, and other remote askers, are answered over
// TCP, and this node's credentials, in files of PEM.
type Endpoint struct {
	Address     string `yaml:"address"`     // with port; without a host, all of this one's
	Certificate string `yaml:"certificate"` // the node's, and those that lead from it to an authority
	Key         string `yaml:"key"`         // its private key
	Authorities string `yaml:"authorities"` // certificates of those who may sign others'
}

func (e Endpoint) validate(add func(path, format string, args ...any)) {
	if e == (Endpoint{}) {
		return
	}
	if err := checkAddress(e.Address, func(host string) bool { return host == "" || isIP(host) }); err != nil {
		add("listen.address", "%w", err)
	}
	for _, file := range []struct{ name, path string }{
		{"certificate", e.Certificate}, {"key", e.Key}, {"authorities", e.Authorities},
	} {
		if !filepath.IsAbs(file.path) {
			add("listen."+file.name, "%q is not the absolute path of the file for %s", file.path, file.name)
		}
	}
}

// node is this one's name.
func (c Config) node() string {
	host, _ := os.Hostname()
	if host = strings.ToLower(host); !isHost(host) {
		host = "localhost"
	}
	return cmp.Or(c.Node, host)
}

func (c Config) validatePeers(add func(path, format string, args ...any)) {
	if c.Node != "" && !isHost(c.Node) {
		add("node", "%q cannot be a certificate's name: small letters, digits, dashes and dots", c.Node)
	}
	if len(c.Peers) > 0 && c.Listen == (Endpoint{}) {
		add("peers", "peers are asked with the certificate of listen, which is missing")
	}
	known := map[string]bool{c.node(): true}
	for k, p := range c.Peers {
		path := fmt.Sprintf("peers[%d].", k)
		switch {
		case !isHost(p.Name):
			add(path+"name", "%q cannot be a certificate's name: small letters, digits, dashes and dots", p.Name)
		case known[p.Name]:
			add(path+"name", "%s is there twice, or is this node", p.Name)
		}
		known[p.Name] = true
		if err := checkAddress(p.Address, isHost); err != nil {
			add(path+"address", "%w", err)
		}
	}
}

// checkAddress checks an address with port.
func checkAddress(address string, valid func(string) bool) error {
	host, port, err := net.SplitHostPort(address)
	n, notPort := strconv.ParseUint(port, 10, 16)
	if err != nil || !valid(host) || notPort != nil || n == 0 {
		return fmt.Errorf("%q is not an address with port, such as 192.0.2.1:9118", address)
	}
	return nil
}

var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// isHost tells whether s is an IP address, or a DNS name in small letters.
func isHost(s string) bool { return isIP(s) || len(s) <= 253 && hostName.MatchString(s) }

// A remote answers those who are not on this host, at one endpoint.
type remote struct {
	Endpoint
	unseen func() // ends the look at the files
	close  func() // lets requests under way finish
}

// configureRemote goes by an endpoint from now on. On an error nothing has
// changed.
func (s *Server) configureRemote(e Endpoint) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.credentials.log == nil {
		s.credentials.log = s.log()
	}
	was := s.remote
	if was != nil && was.Address == e.Address {
		if err := s.credentials.use(e); err != nil {
			return err
		}
		if was.Endpoint != e {
			was.unseen()
			s.remote = &remote{e, s.look(e), was.close}
		}
		return nil
	}
	var next *remote
	if e != (Endpoint{}) {
		l, err := listenTCP(context.Background(), e.Address)
		if err != nil {
			return err
		}
		if err := s.credentials.use(e); err != nil {
			l.Close()
			return err
		}
		next = &remote{e, s.look(e), s.serveRemote(l)}
	}
	if s.remote = next; was != nil {
		was.unseen()
		go was.close()
	}
	return nil
}

// look has the credentials read again when they change, until it is ended.
func (s *Server) look(e Endpoint) (end func()) {
	return background(func(ctx context.Context) {
		if err := s.credentials.watch(ctx, e); err != nil {
			s.log().Error(err.Error())
		}
	})
}

func (s *Server) serveRemote(l net.Listener) (end func()) {
	s.log().Info("ipmd is listening", "address", l.Addr().String())
	return background(func(ctx context.Context) {
		if err := s.Serve(ctx, newTLSListener(s.count(l), &s.credentials, handshakeTimeout)); err != nil {
			s.log().Error(err.Error())
		}
	})
}

// background runs fn until end is called, which waits for it.
func background(fn func(context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn(ctx)
	}()
	return func() { cancel(); <-done }
}

// closeRemote answers nobody any more, when requests under way are done.
func (s *Server) closeRemote() {
	s.mu.Lock()
	r := s.remote
	s.mu.Unlock()
	if r != nil {
		r.unseen()
		r.close()
	}
}
