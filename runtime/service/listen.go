package service

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Socket is one that the virtual server's init opens for a service and holds as
// long as that is to run, so that nobody who connects while it is started anew is
// refused. The service finds it as sd_listen_fds(3) tells, and needs no right to
// bind it. Addresses are written as systemd.socket(5) has them: a port, an address
// with a port, the path of a unix socket, or @ and an abstract name. A port alone is
// that of all addresses; one with an IPv6 address is of IPv6 alone.
type Socket struct {
	Stream   string `json:"stream,omitempty" yaml:"stream,omitempty"`     // one to connect to
	Datagram string `json:"datagram,omitempty" yaml:"datagram,omitempty"` // one to send to
	Name     string `json:"name,omitempty" yaml:"name,omitempty"`         // in LISTEN_FDNAMES; empty: the service's
}

// kind is SOCK_STREAM or SOCK_DGRAM.
func (s Socket) kind() int {
	if s.Stream != "" {
		return unix.SOCK_STREAM
	}
	return unix.SOCK_DGRAM
}

func (s Socket) String() string { return s.Stream + s.Datagram }

// same reports whether both are one socket, whatever it is called.
func (s Socket) same(o Socket) bool { return s.Stream == o.Stream && s.Datagram == o.Datagram }

// port is the TCP port that it listens on, 0 for none.
func (s Socket) port() int {
	if s.Stream == "" {
		return 0
	}
	switch a, _ := parseListen(s.Stream); a := a.(type) {
	case *unix.SockaddrInet4:
		return a.Port
	case *unix.SockaddrInet6:
		return a.Port
	}
	return 0
}

// parseListen reads an address to listen on.
func parseListen(text string) (unix.Sockaddr, error) {
	wrong := fmt.Errorf("%q is none of 80, 192.0.2.8:80, [2001:db8::8]:80, /run/a.sock and @name", text)
	if text == "" || checkText(text) != nil {
		return nil, wrong
	}
	if text[0] == '/' || text[0] == '@' {
		if len(text) > 107 || len(text) < 2 || text[0] == '/' && path.Clean(text) != text { // unix(7)
			return nil, fmt.Errorf("%q is no path or name of a socket: 107 bytes at most", text)
		}
		return &unix.SockaddrUnix{Name: text}, nil
	}
	if port, err := strconv.ParseUint(text, 10, 16); err == nil && port > 0 {
		return &unix.SockaddrInet6{Port: int(port)}, nil
	}
	a, err := netip.ParseAddrPort(text)
	if err != nil || a.Port() == 0 || a.Addr().Zone() != "" {
		return nil, wrong
	}
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, nil
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}, nil
}

func (s Socket) validate() error {
	if (s.Stream == "") == (s.Datagram == "") {
		return errors.New("is one of stream and datagram")
	}
	if strings.ContainsFunc(s.Name, func(r rune) bool { return r <= ' ' || r == ':' || r > '~' }) || len(s.Name) > 255 {
		return fmt.Errorf("%q is no name for LISTEN_FDNAMES", s.Name)
	}
	_, err := parseListen(s.String())
	return err
}

// validateSockets also refuses to take for a sign of a service's what is there
// without it.
func validateSockets(s Service, add func(path string, err error)) {
	for i, one := range s.Sockets {
		at := fmt.Sprintf("sockets[%d]", i)
		add(at, one.validate())
		if slices.ContainsFunc(s.Sockets[:i], one.same) {
			add(at, fmt.Errorf("%s is there twice", one))
		}
		if port := one.port(); port != 0 && (port == s.Ready.TCP || port == s.Health.TCP) {
			add(at, fmt.Errorf("port %d is listened on before the service is started: take another sign than tcp", port))
		}
	}
}

// A listener is a Socket as it is held.
type listener struct {
	Socket
	fd int
}

// open opens the socket. Nothing of package os or net, whose descriptors do not
// block: how this one is, is the service's to say.
func (s Socket) open() (l listener, err error) {
	a, err := parseListen(s.String())
	if err != nil {
		return l, err
	}
	l = listener{s, -1}
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		err = l.bind(unix.AF_INET, a)
	case *unix.SockaddrInet6:
		err = l.bind(unix.AF_INET6, a)
		if errors.Is(err, unix.EAFNOSUPPORT) && a.Addr == [16]byte{} { // no IPv6
			err = l.bind(unix.AF_INET, &unix.SockaddrInet4{Port: a.Port})
		}
	case *unix.SockaddrUnix:
		err = l.bindUnix(a)
	}
	if err == nil && s.Stream != "" {
		err = unix.Listen(l.fd, unix.SOMAXCONN)
	}
	if err != nil {
		unix.Close(l.fd)
		return l, fmt.Errorf("cannot listen on %s: %w", s, err)
	}
	return l, nil
}

func (l *listener) bind(family int, a unix.Sockaddr) (err error) {
	if l.fd, err = unix.Socket(family, l.kind()|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	if family == unix.AF_UNIX {
		return unix.Bind(l.fd, a)
	}
	if l.Stream != "" { // connections of an earlier one may linger
		err = unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if _, port := strconv.Atoi(l.String()); err == nil && family == unix.AF_INET6 {
		only := 1
		if port == nil {
			only = 0
		}
		err = unix.SetsockoptInt(l.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
	}
	return errors.Join(err, unix.Bind(l.fd, a))
}

// bindUnix makes the socket's file, for everybody, in the place of one that nobody
// holds any more. Services may be able to write where it is to be, and the init may
// write everywhere: no symlink of theirs is followed.
func (l *listener) bindUnix(a *unix.SockaddrUnix) error {
	if a.Name[0] == '@' {
		return l.bind(unix.AF_UNIX, a)
	}
	name := unlinked(a.Name)
	err := clearSpot(name)
	if errors.Is(err, ErrTaken) {
		return unix.EADDRINUSE
	}
	if err == nil {
		err = l.bind(unix.AF_UNIX, &unix.SockaddrUnix{Name: name})
	}
	if err != nil {
		return err
	}
	return l.openUp(name)
}

// unlinked is the path with /var/run as /run where it is a symlink to that.
func unlinked(p string) string {
	for _, d := range inMemory {
		if target, err := filepath.EvalSymlinks(d.path); err == nil && within(p, d.path) {
			return target + strings.TrimPrefix(p, d.path)
		}
	}
	return p
}

// clearSpot removes what a socket of an earlier init has left.
func clearSpot(name string) error {
	dir, err := openParent(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return removeStale(filepath.Join(self(dir), path.Base(name)))
}

// openParent opens the directory that a path is in, and makes it where that is in
// memory.
func openParent(p string) (*os.File, error) {
	dir := path.Dir(p)
	fd, err := openPath(dir)
	if errors.Is(err, unix.ENOENT) && slices.ContainsFunc(inMemory, func(m memoryDir) bool { return within(dir, m.path) }) {
		above, err := openParent(dir)
		if err != nil {
			return nil, err
		}
		defer above.Close()
		if err := unix.Mkdirat(int(above.Fd()), path.Base(dir), 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, err
		}
		fd, err = openPath(dir)
		return os.NewFile(uintptr(fd), dir), err
	}
	if errors.Is(err, unix.ELOOP) {
		err = fmt.Errorf("there is a symlink on the way to it: %w", err)
	}
	return os.NewFile(uintptr(fd), dir), err
}

// unixFile is the request for the file that a socket is bound to (net/unix/af_unix.c,
// SIOCUNIXFILE).
const unixFile = 0x89e0

// openUp lets everybody connect to the socket's own file, whatever its name leads to
// by now; the socket goes if it was made elsewhere.
func (l *listener) openUp(name string) error {
	file, err := l.file(name)
	if err != nil {
		return err
	}
	defer file.Close()
	at, err := os.Readlink(self(file))
	if err != nil {
		return err
	}
	if at != name {
		return errors.Join(fmt.Errorf("it leads to %s", at), os.Remove(at))
	}
	return os.Chmod(self(file), 0o666)
}

// file is what a unix socket is bound to.
func (l listener) file(name string) (*os.File, error) {
	fd, err := unix.IoctlRetInt(l.fd, unixFile)
	if err != nil {
		return nil, fmt.Errorf("cannot open its file: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// close lets go of the socket, and of its file, unless that is another one's by now. Processes
// that have the socket from their parent, which has ended, may not be gone yet.
func (l listener) close() {
	defer unix.Close(l.fd)
	name := l.String()
	if name[0] != '/' {
		return
	}
	file, err := l.file(name)
	if err != nil {
		return
	}
	defer file.Close()
	dir, err := openParent(unlinked(name))
	if err != nil {
		return
	}
	defer dir.Close()
	at := filepath.Join(self(dir), path.Base(name))
	own, err := file.Stat()
	if now, failed := os.Lstat(at); err == nil && failed == nil && os.SameFile(own, now) {
		os.Remove(at)
	}
}

// listen makes the sockets that the unit holds those that its service names: one
// that is there already stays.
func (u *unit) listen() error {
	u.listeners = slices.DeleteFunc(u.listeners, func(l listener) bool {
		gone := !slices.Contains(u.service.Sockets, l.Socket)
		if gone {
			l.close()
		}
		return gone
	})
	var failed error
	for _, s := range u.service.Sockets {
		if slices.ContainsFunc(u.listeners, func(l listener) bool { return l.Socket == s }) {
			continue
		}
		l, err := s.open()
		if err != nil {
			failed = err
			continue
		}
		u.listeners = append(u.listeners, l)
	}
	slices.SortFunc(u.listeners, func(a, b listener) int {
		return slices.Index(u.service.Sockets, a.Socket) - slices.Index(u.service.Sockets, b.Socket)
	})
	return failed
}

// handOver gives each unit the sockets that its service is to have and that another has
// held until now, or it under another name: nobody is refused while one moves.
func (s *supervisor) handOver(units []*unit, want []Service) {
	for k, u := range units {
		for _, socket := range want[k].Sockets {
			for _, from := range s.units {
				i := slices.IndexFunc(from.listeners, func(l listener) bool { return socket.same(l.Socket) })
				to := slices.Index(units, from)
				if i < 0 || from != u && to >= 0 && slices.ContainsFunc(want[to].Sockets, socket.same) {
					continue
				}
				u.listeners = append(u.listeners, listener{socket, from.listeners[i].fd})
				from.listeners = slices.Delete(from.listeners, i, i+1)
				break
			}
		}
	}
}

// elsewhere reports whether a program that has been asked to end has a socket that the unit
// is to have: both would take connections from it.
func (s *supervisor) elsewhere(u *unit) bool {
	return slices.ContainsFunc(s.units, func(o *unit) bool {
		ends := o != u && (o.state == Stopping || o.state == Restarting)
		return ends && slices.ContainsFunc(o.launched.Sockets, func(had Socket) bool {
			return slices.ContainsFunc(u.service.Sockets, had.same)
		})
	})
}

// unlisten closes the unit's sockets: who connects is refused.
func (u *unit) unlisten() {
	for _, l := range u.listeners {
		l.close()
	}
	u.listeners = nil
}

// handed are the unit's sockets as its program gets them, and what tells it so, but
// for LISTEN_PID.
func (u *unit) handed() (fds []uintptr, env []string) {
	if len(u.listeners) == 0 {
		return nil, nil
	}
	var names []string
	for _, l := range u.listeners {
		// The program before may have liked it otherwise, or have shut it down.
		unix.SetNonblock(l.fd, false)
		if l.Stream != "" {
			unix.Listen(l.fd, unix.SOMAXCONN)
		}
		fds = append(fds, uintptr(l.fd))
		names = append(names, or(l.Name, u.service.Name))
	}
	return fds, []string{fmt.Sprintf("LISTEN_FDS=%d", len(fds)), "LISTEN_FDNAMES=" + strings.Join(names, ":")}
}
