package ipmd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An Identity is who asks: a user of this host, by the unix socket, or the owner
// of a certificate.
type Identity struct {
	// Local tells that UID, the effective user at the time of connecting, and
	// GIDs, all of its groups, count.
	Local bool
	UID   uint32
	GIDs  []uint32

	// Certificates are the names in the certificate: its subject's common name,
	// and its alternative ones.
	Certificates []string

	// hosts are those of them that a peer may have.
	hosts []string

	// stray tells that it could connect only because the socket was open to all.
	stray bool
}

// String names it in messages.
func (id Identity) String() string {
	switch {
	case id.Local:
		return fmt.Sprintf("user %d", id.UID)
	case len(id.Certificates) > 0:
		return "the certificate of " + strings.Join(id.Certificates, ", ")
	}
	return "nobody"
}

// root tells whether it is root, or whoever runs ipmd.
func (id Identity) root() bool {
	return id.Local && (id.UID == 0 || int(id.UID) == os.Geteuid())
}

type identityKey struct{}

// withIdentity notes who is at the other end of a unix socket's connection.
func (s *Server) withIdentity(ctx context.Context, nc net.Conn) context.Context {
	c, ok := nc.(*conn)
	if !ok || !c.who.Local {
		return ctx
	}
	who := c.who
	who.stray = s.isStray(who)
	return context.WithValue(ctx, identityKey{}, who)
}

// isStray judges by whose the socket is, and not by its mode: it may have been another
// when who is accepted now connected. That of systemd has the mode of its unit.
func (s *Server) isStray(who Identity) bool {
	s.mu.Lock()
	socket := s.socket
	s.mu.Unlock()
	if socket == "" {
		return len(s.configuration().Access) > 0
	}
	var file unix.Stat_t
	err := unix.Stat(socket, &file)
	return err != nil || who.UID != file.Uid && !slices.Contains(who.GIDs, file.Gid)
}

// identify is who makes a request.
func identify(r *http.Request) Identity {
	if id, ok := r.Context().Value(identityKey{}).(Identity); ok {
		return id
	}
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return Identity{}
	}
	leaf := r.TLS.VerifiedChains[0][0]
	return Identity{Certificates: namesIn(leaf), hosts: hostsIn(leaf)}
}

// localPeer is who connected to a unix socket.
func localPeer(conn syscall.Conn) (Identity, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Identity{}, err
	}
	id := Identity{Local: true}
	ctl := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil {
			return
		}
		id.UID = cred.Uid
		id.GIDs, err = peerGroups(fd)
		id.GIDs = append(id.GIDs, cred.Gid)
	})
	return id, errors.Join(ctl, err)
}

// peerGroups are the supplementary groups of whoever connected. The x/sys module
// has no call for an option that is a list.
func peerGroups(fd uintptr) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups)) * 4
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == unix.ERANGE: // size is what it takes
			groups = make([]uint32, size/4)
		case errno != 0:
			return nil, os.NewSyscallError("getsockopt", errno)
		default:
			return groups[:size/4], nil
		}
	}
}
