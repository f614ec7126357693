package ipmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
)

// socketMode lets root ask, and whom root lets in by giving the socket a group.
// Counters tell one tenant what another one does, and every question makes a
// process with CAP_SYS_ADMIN work: nobody should find that open to all.
const socketMode = 0o660

// Listen makes the unix socket at path, which must be absolute, and its
// directory. A socket that a crash left is replaced; one that is listened on,
// and a file that is no socket, are errors. Closing the listener removes the
// socket.
func Listen(path string) (*net.UnixListener, error) {
	l, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	return l, nil
}

func listen(path string) (*net.UnixListener, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%q is not an absolute path", path)
	}
	if len(path) >= len(syscall.RawSockaddrUnix{}.Path) { // bind says only "invalid argument"
		return nil, fmt.Errorf("%s is longer than the %d bytes that a socket's name may have",
			path, len(syscall.RawSockaddrUnix{}.Path)-1)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	// Of two that start at once, the second must not take the socket that the
	// first has just made for a stale one.
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := bind(path)
	if err != nil {
		if !errors.Is(err, syscall.EADDRINUSE) { // its file is there, where nobody could listen
			os.Remove(path)
		}
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil { // what the umask took away
		l.Close()
		return nil, err
	}
	return l, nil
}

func bind(path string) (*net.UnixListener, error) {
	config := net.ListenConfig{Control: closeToOthers}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// closeToOthers sets the mode that bind gives the socket's file (unix_bind takes
// the socket's own, less the umask): there is no moment when others may connect.
func closeToOthers(_, _ string, c syscall.RawConn) error {
	var err error
	if ctl := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), socketMode) }); ctl != nil {
		return ctl
	}
	return err
}

func lockDir(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		d.Close()
		return nil, fmt.Errorf("cannot lock %s: %w", dir, err)
	}
	return func() { d.Close() }, nil
}

// removeStale removes a socket that nobody listens on.
func removeStale(path string) error {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case fi.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there, and is not a socket", path)
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("ipmd is already running on %s", path)
	case errors.Is(err, syscall.EAGAIN): // more wait to be accepted than fit in the queue
		return fmt.Errorf("ipmd is already running on %s", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		err = os.Remove(path)
	}
	if errors.Is(err, fs.ErrNotExist) { // its listener was just ending
		return nil
	}
	return err
}

// ListenAndServe listens on path and answers until ctx ends, as Serve does, and as
// long at the configuration's endpoint. Then it removes the socket. One that systemd
// has passed takes the place of the one at path, and stays.
func (s *Server) ListenAndServe(ctx context.Context, path string) error {
	defer s.closeRemote()
	context.AfterFunc(ctx, s.closeRemote) // both end at once
	l, err := s.listen(path)
	if err != nil {
		return err
	}
	s.log().Info("ipmd is listening", "socket", l.Addr().String())
	return s.Serve(ctx, s.count(l))
}

// listen is the socket that systemd has passed, whose mode is the unit's and which
// stays when ipmd ends (sd_listen_fds(3)), or else a new one at path.
func (s *Server) listen(path string) (net.Listener, error) {
	passed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("cannot take the socket of systemd: %w", err)
	}
	if len(passed) > 0 {
		l, ok := passed[0].(*net.UnixListener)
		if len(passed) > 1 || !ok {
			return nil, errors.New("cannot take the sockets of systemd: one is expected, a stream (ListenStream=/run/…)")
		}
		return l, nil
	}
	l, err := Listen(path)
	if err != nil {
		return nil, err
	}
	if err := s.setSocket(path); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// setSocket has the configuration decide who may connect to the socket at path.
func (s *Server) setSocket(path string) error {
	s.mu.Lock()
	s.socket = path
	s.mu.Unlock()
	return s.openSocket(s.configuration())
}

// openSocket opens the socket to all while there are rules to judge them by.
func (s *Server) openSocket(c Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.socket == "" {
		return nil
	}
	mode := fs.FileMode(socketMode)
	if len(c.Access) > 0 {
		mode |= 0o006
	}
	if err := os.Chmod(s.socket, mode); err != nil {
		return fmt.Errorf("cannot set who may connect: %w", err)
	}
	return nil
}
