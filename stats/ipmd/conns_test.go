package ipmd

import (
	"net"
	"testing"
)

// The limits may be lower than what is open, after a reload. Who gives his idle
// connection for a new one, for which there is still no room, has none left.
func TestConnectionsBeyondLoweredLimits(t *testing.T) {
	var c conns
	admit := func(peer string, limits Limits) (*conn, bool) {
		end, other := net.Pipe()
		t.Cleanup(func() { end.Close(); other.Close() })
		fresh := &conn{Conn: end, conns: &c, peer: peer}
		return fresh, c.admit(fresh, limits)
	}
	for _, peer := range []string{"a", "b", "b"} {
		fresh, ok := admit(peer, Limits{Connections: 3, ConnectionsPerPeer: 2})
		if !ok {
			t.Fatalf("no room for %s", peer)
		}
		if peer == "b" {
			c.work(fresh)
		}
	}
	if _, ok := admit("a", Limits{Connections: 2, ConnectionsPerPeer: 1}); ok || c.open() != 2 {
		t.Errorf("%v, %d are open", ok, c.open())
	}
}
