package ipmd

import (
	"container/list"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// conns are the open connections of all listeners. Beyond a limit, the one that has
// been idle for longest is closed for a new one: of the same peer if he has too many,
// of any if all together have. HTTP lets a server close what is idle at any time, and
// clients try again (RFC 9112, section 9.3.1.1).
type conns struct {
	refused atomic.Uint64
	leaving atomic.Int32 // refused ones that are still told so

	mu    sync.Mutex
	count int
	idle  list.List // of *conn, the one that is idle for longest first
	peers map[string]*peer
}

// A peer is a user of this host, or an address of another.
type peer struct {
	count int
	idle  list.List // of *conn, as that of conns
}

// A conn is counted, and idle until a request of it has been read.
type conn struct {
	net.Conn
	conns  *conns
	peer   string
	who    Identity // of a unix socket's peer
	places *[2]*list.Element
	closed bool // the last three are guarded by conns.mu
}

func (c *conns) open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// count is the listener with its connections counted, and bounded.
func (s *Server) count(l net.Listener) net.Listener { return &doorkeeper{l, s} }

type doorkeeper struct {
	net.Listener
	server *Server
}

// tooMany is the answer to a connection for which there is no room.
const tooMany = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n" +
	"Content-Type: application/json\r\nContent-Length: 52\r\n\r\n" + `{"error":"ipmd has too many connections that work"}` + "\n"

func (d *doorkeeper) Accept() (net.Conn, error) {
	for {
		raw, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: raw, conns: &d.server.conns}
		if c.peer, c.who, err = endOf(raw); err != nil { // it is gone
			raw.Close()
			continue
		}
		if c.conns.admit(c, d.server.configuration().Limits) {
			return c, nil
		}
		c.conns.refused.Add(1)
		if !c.who.Local { // who speaks TLS would not understand it
			raw.Close()
			continue
		}
		go c.conns.refuse(raw)
	}
}

// Of those that are refused, so many are told why at once, and so long.
const (
	farewells = 64
	farewell  = time.Second
)

// refuse answers a request, once there is one: before that, clients take an answer for a
// mistake. What they are still writing then is read, for a socket that is closed before takes
// the answer along (ECONNRESET; unix_release_sock() in net/unix/af_unix.c).
func (c *conns) refuse(raw net.Conn) {
	defer raw.Close()
	defer c.leaving.Add(-1)
	if c.leaving.Add(1) > farewells {
		return
	}
	raw.SetDeadline(time.Now().Add(farewell))
	raw.Read(make([]byte, 1))
	io.WriteString(raw, tooMany)
	if half, ok := raw.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	io.Copy(io.Discard, io.LimitReader(raw, http.DefaultMaxHeaderBytes))
}

// endOf is who is at the other end of a connection.
func endOf(raw net.Conn) (peer string, who Identity, err error) {
	if unixConn, ok := raw.(*net.UnixConn); ok {
		who, err := localPeer(syscall.Conn(unixConn))
		return who.String(), who, err
	}
	host, _, err := net.SplitHostPort(raw.RemoteAddr().String())
	return host, Identity{}, err
}

// admit counts the connection, and makes room for it; false when all are at work.
func (c *conns) admit(fresh *conn, limits Limits) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.of(fresh.peer)
	if p.count >= limits.ConnectionsPerPeer && !c.evict(&p.idle) ||
		c.count >= limits.Connections && !c.evict(&c.idle) {
		c.forget(fresh.peer)
		return false
	}
	p = c.of(fresh.peer) // with his last one that was evicted he was forgotten
	c.count++
	p.count++
	c.rest(fresh)
	return true
}

func (c *conns) of(name string) *peer {
	if c.peers == nil {
		c.peers = make(map[string]*peer)
	}
	if c.peers[name] == nil {
		c.peers[name] = new(peer)
	}
	return c.peers[name]
}

// evict closes the connection that has been idle for longest.
func (c *conns) evict(idle *list.List) bool {
	longest := idle.Front()
	if longest == nil {
		return false
	}
	victim := longest.Value.(*conn)
	c.drop(victim)
	c.refused.Add(1)
	victim.Conn.Close()
	return true
}

// rest and work note what the connection does. They and drop are called with mu held.
func (c *conns) rest(conn *conn) {
	if conn.places == nil && !conn.closed {
		conn.places = &[2]*list.Element{c.idle.PushBack(conn), c.peers[conn.peer].idle.PushBack(conn)}
	}
}

func (c *conns) work(conn *conn) {
	if conn.places != nil {
		c.idle.Remove(conn.places[0])
		c.peers[conn.peer].idle.Remove(conn.places[1])
		conn.places = nil
	}
}

func (c *conns) drop(conn *conn) {
	if conn.closed {
		return
	}
	c.work(conn)
	conn.closed = true
	c.count--
	c.peers[conn.peer].count--
	c.forget(conn.peer)
}

// forget drops a peer without connections.
func (c *conns) forget(peer string) {
	if p := c.peers[peer]; p != nil && p.count == 0 {
		delete(c.peers, peer)
	}
}

func (c *conn) Close() error {
	c.conns.mu.Lock()
	c.conns.drop(c)
	c.conns.mu.Unlock()
	return c.Conn.Close()
}

// stateChanged is told by package http what a connection does.
func stateChanged(nc net.Conn, state http.ConnState) {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	if p, ok := nc.(*peerConn); ok {
		nc = p.Conn
	}
	c, ok := nc.(*conn)
	if !ok {
		return
	}
	c.conns.mu.Lock()
	defer c.conns.mu.Unlock()
	switch state {
	case http.StateActive:
		c.conns.work(c)
	case http.StateIdle:
		c.conns.rest(c)
	}
}
