package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime"
)

// A question is what a client sends first; events follow, a line each.
type question struct {
	Follow bool `json:"follow"` // also those to come
}

// ErrNotRunning says that no agent listens.
var ErrNotRunning = errors.New("vsd is not running")

// Socket is where the agent of a run directory tells of events, to root alone.
func Socket(runDir string) string { return filepath.Join(runDir, "vsd.sock") }

// Listen makes the socket of a run directory. One that another agent listens on is
// runtime.ErrTaken: Store.BeAgent knows only those of its state directory.
func Listen(ctx context.Context, runDir string) (net.Listener, error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(runDir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil { // two that start at once
		return nil, fmt.Errorf("cannot lock %s: %w", runDir, err)
	}
	path := Socket(runDir)
	switch conn, err := net.Dial("unix", path); {
	case err == nil:
		conn.Close()
		return nil, taken(runDir)
	case errors.Is(err, syscall.EAGAIN): // its queue is full
		return nil, taken(runDir)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// bind gives the socket's file the socket's own mode, less the umask.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		ctl := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) })
		return errors.Join(ctl, err)
	}}
	l, err := config.Listen(ctx, "unix", path)
	if err != nil && !errors.Is(err, syscall.EADDRINUSE) { // its file is there, where nobody could listen
		os.Remove(path)
	}
	return l, err
}

func taken(runDir string) error {
	return &plumbing.Refusal{
		Err:  fmt.Errorf("%w, on %s", runtime.ErrTaken, runDir),
		Cure: "give each its own run directory: --run-dir",
	}
}

// Serve tells whoever connects to l of events, until ctx ends.
func (a *Agent) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil: // out of descriptors, for now
			a.log.Warn("cannot take a connection", "err", err)
			time.Sleep(time.Second)
			continue
		}
		serving.Go(func() { a.answer(ctx, conn) })
	}
}

// answer serves one client.
func (a *Agent) answer(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var q question
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err := json.NewDecoder(io.LimitReader(conn, 1000)).Decode(&q); err != nil {
		conn.Close()
		return
	}
	latest, next, end := a.journal.listen()
	defer end()
	defer conn.Close()
	write := func(e Event) bool {
		conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		return json.NewEncoder(conn).Encode(e) == nil
	}
	for _, e := range latest {
		if !write(e) {
			return
		}
	}
	if !q.Follow {
		return
	}
	conn.SetReadDeadline(time.Time{})
	go func() { // the client says no more: it can only go
		io.Copy(io.Discard, conn)
		cancel()
	}()
	for {
		select {
		case e, open := <-next:
			if !open || !write(e) {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// Events hands the latest events to each, and with follow those to come until ctx ends.
// ErrNotRunning when no agent listens, or it ends meanwhile.
func Events(ctx context.Context, runDir string, follow bool, each func(Event) error) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", Socket(runDir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return ErrNotRunning
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := json.NewEncoder(conn).Encode(question{follow}); err != nil {
		return fmt.Errorf("cannot ask vsd: %w", err)
	}
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("cannot understand vsd: %w", err)
		}
		if err := each(e); err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil
	case lines.Err() != nil:
		return fmt.Errorf("cannot hear vsd: %w", lines.Err())
	case follow:
		return ErrNotRunning
	}
	return nil
}
