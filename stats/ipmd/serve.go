package ipmd

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
)

// Serve answers on a listener until ctx ends: those who connect to a unix socket as
// its users, others by their certificate. config is nil for a unix socket, and has
// others show one. The requests that are under way at the end may finish, for up to
// 10 s. The listener is closed.
func (s *Server) Serve(ctx context.Context, l net.Listener, config *tls.Config) error {
	server := &http.Server{
		Handler:      s,
		ConnContext:  s.withIdentity,
		ReadTimeout:  timeout,
		WriteTimeout: 2 * timeout, // from the request's head on: reading the counters is in it
		TLSConfig:    config,
		ErrorLog:     slog.NewLogLogger(s.log().Handler(), slog.LevelError),
		Protocols:    new(http.Protocols),
	}
	server.Protocols.SetHTTP1(true) // where a connection is one request at a time
	serve := server.Serve
	if config != nil {
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	served := make(chan error, 1)
	go func() { served <- serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("cannot serve on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		server.Close()
		return fmt.Errorf("cannot end all requests on %s: %w", l.Addr(), err)
	}
	return nil
}
