package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sockets are made with bare system calls: package net would cost every init
// more memory than everything else in it.

// checkSocketPath refuses a path that sockaddr_un cannot hold (unix(7)).
func checkSocketPath(path string) error {
	if len(path) > 107 {
		return fmt.Errorf("%s is too long for a socket: %d bytes, 107 are possible", path, len(path))
	}
	return nil
}

func newSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	return fd, os.NewSyscallError("socket", err)
}

// listen makes the init's socket, and takes the place of one that a dead init
// left.
func listen(path string) (*os.File, error) {
	if err := checkSocketPath(path); err != nil {
		return nil, err
	}
	var f *os.File
	err := locked(filepath.Dir(path), func() (err error) {
		if err := removeStale(path); err != nil {
			return err
		}
		f, err = bindAndListen(path)
		return err
	})
	return f, err
}

// backlog is how many connections may wait until the init takes them.
const backlog = 64

func bindAndListen(path string) (*os.File, error) {
	fd, err := newSocket()
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot make the socket %s: %w", path, err)
	}
	// Nobody can connect before listen, so the mode is never wider than this.
	if err := errors.Join(os.Chmod(path, 0o600), unix.Listen(fd, backlog)); err != nil {
		f.Close()
		os.Remove(path)
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	return f, nil
}

// locked runs fn while nobody else does so for the directory. Whoever looks
// whether a socket is stale and then replaces it has to: otherwise two inits
// that start at once take each other's socket away.
func locked(dir string, fn func() error) error {
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("cannot lock %s: %w", dir, err)
	}
	// Clear may have removed it meanwhile, and what has its name now has a lock
	// of its own.
	if err := stillAt(d, dir); err != nil {
		return err
	}
	return fn()
}

// stillAt is fs.ErrNotExist unless the path leads to the open directory.
func stillAt(d *os.File, path string) error {
	own, err := d.Stat()
	if err != nil {
		return err
	}
	now, err := os.Stat(path)
	if err == nil && !os.SameFile(own, now) {
		err = &fs.PathError{Op: "lock", Path: path, Err: fs.ErrNotExist}
	}
	return err
}

// Clear removes the directory of an init's socket, once no init listens there.
// ErrTaken when one does, and nothing has changed: whoever found none a moment
// ago may now Dial it. An init that is about to listen there fails, and ends.
func Clear(socket string) error {
	dir := filepath.Dir(socket)
	err := locked(dir, func() error {
		if err := removeStale(socket); err != nil {
			return err
		}
		return os.RemoveAll(dir)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ErrTaken says that an init listens on a socket.
var ErrTaken = errors.New("another init listens there")

// removeStale removes the socket that nobody listens on any more; ErrTaken when
// somebody does.
func removeStale(path string) error {
	switch fi, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case fi.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is not a socket, but a file of somebody's", path)
	}
	conn, err := connect(path)
	switch {
	case err == nil:
		conn.Close()
		fallthrough
	case errors.Is(err, ErrSilent):
		return fmt.Errorf("cannot make the socket %s: %w", path, ErrTaken)
	case errors.Is(err, ErrNotRunning):
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return err
}

// connect opens a connection to the init behind the socket; ErrNotRunning when
// none listens, ErrSilent when its queue is full.
func connect(path string) (*os.File, error) {
	if err := checkSocketPath(path); err != nil {
		return nil, err
	}
	fd, err := newSocket()
	if err != nil {
		return nil, err
	}
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	if err == nil {
		return os.NewFile(uintptr(fd), path), nil
	}
	unix.Close(fd)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOTDIR):
		return nil, ErrNotRunning
	case errors.Is(err, unix.EAGAIN):
		return nil, ErrSilent
	}
	return nil, fmt.Errorf("cannot connect to %s: %w", path, err)
}

// accept waits for the next connection.
func accept(listener syscall.RawConn) (*os.File, error) {
	var fd int
	var err error
	ready := func(l uintptr) bool {
		fd, _, err = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return !errors.Is(err, unix.EAGAIN)
	}
	if err := listener.Read(ready); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "connection"), nil
}

// peer is who is at the other end: of an accepted connection whoever
// connected, of a connected one whoever called listen.
func peer(conn *os.File) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); e != nil {
		return nil, e
	}
	return cred, err
}

// checkPeer refuses who may not command this init: all but processes of the
// PID namespace host. A process outside the reader's PID namespace has no number
// in it and is shown as 0, so any other is a process of the virtual server
// itself.
func checkPeer(conn *os.File, host uint64) error {
	cred, err := peer(conn)
	if err != nil {
		return err
	}
	home, err := peerNamespace(conn)
	switch {
	case err != nil:
		return err
	case cred.Uid != 0 && int(cred.Uid) != os.Geteuid():
		return fmt.Errorf("user %d may not command this virtual server", cred.Uid)
	case cred.Pid != 0:
		return errors.New("a virtual server's own processes may not command it")
	case home != 0 && home != host:
		return errors.New("only processes of the host may command a virtual server")
	}
	return nil
}

// pidfdGetPidNamespace is PIDFD_GET_PID_NAMESPACE of include/uapi/linux/pidfd.h.
const pidfdGetPidNamespace = 0xff05

// peerNamespace is the PID namespace of whoever connected, by its inode number;
// 0 where the kernel does not tell (before Linux 6.11).
func peerNamespace(conn *os.File) (uint64, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	pidfd := -1
	if e := raw.Control(func(fd uintptr) {
		pidfd, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	}); e != nil {
		return 0, e
	}
	if errors.Is(err, unix.ENOPROTOOPT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cannot see who asks: %w", err)
	}
	defer unix.Close(pidfd)
	ns, err := unix.IoctlRetInt(pidfd, pidfdGetPidNamespace)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cannot see where who asks is: %w", err)
	}
	defer unix.Close(ns)
	var st unix.Stat_t
	err = unix.Fstat(ns, &st)
	return st.Ino, err
}
