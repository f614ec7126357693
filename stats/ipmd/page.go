package ipmd

import (
	"embed"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

//go:embed page
var pageFiles embed.FS

// contentPolicy lets the page have what ipmd serves and nothing else: no script or
// style in its text, nothing of others, no frame around it (CSP Level 3).
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// servePage serves the web page, which holds no figures: it asks /stats for them as
// whoever opened the connection may.
func servePage() http.Handler {
	files, err := fs.Sub(pageFiles, "page")
	if err != nil {
		panic(err) // only of a name that is no path
	}
	server := http.FileServerFS(files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache") // an ipmd that was upgraded has another page
		server.ServeHTTP(w, r)
	})
}

// guardBrowsers keeps the pages of others out of what a browser that reaches ipmd,
// as by ssh -L, may read: they may not load it, and may not give a name of theirs
// this address (DNS rebinding). Such a name has a dot; those that only this machine
// or its network gives, and addresses, are ipmd's own. With TLS the certificate
// tells.
func guardBrowsers(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	if _, err := netip.ParseAddr(host); err == nil || !identify(r).Local || !strings.Contains(strings.TrimSuffix(host, "."), ".") {
		return nil
	}
	return &misdirected{host}
}

// misdirected is a request for a host that ipmd is not.
type misdirected struct{ host string }

func (e *misdirected) Error() string { return fmt.Sprintf("ipmd is not called %q here", e.host) }
func (e *misdirected) Hint() string {
	return "ask for localhost; a proxy in between has to set the Host header to it"
}
