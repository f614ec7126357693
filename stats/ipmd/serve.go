package ipmd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	maxHeader = 64 << 10        // bytes, the request line included
	idleMost  = 5 * time.Minute // how long a connection may be idle
)

// Serve answers on a listener until ctx ends: those who connect to a unix socket as
// its users, others by their certificate. At the end streams are ended, and the requests that are under way
// may finish, for up to 10 s. The listener is closed.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.prepare()
	streams, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	server := &http.Server{
		Handler: s,
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.Background(), endingKey{}, streams)
		},
		ConnContext:    s.withIdentity,
		ConnState:      stateChanged,
		ReadTimeout:    timeout,
		WriteTimeout:   2 * timeout, // from the request's head on: reading the counters is in it
		IdleTimeout:    idleMost,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(s.log().Handler(), slog.LevelError),
		Protocols:      new(http.Protocols),
	}
	server.Protocols.SetHTTP1(true) // where a connection is one request at a time
	server.RegisterOnShutdown(end)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
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

// endingKey is where a request finds the context that ends when streams are to.
type endingKey struct{}
