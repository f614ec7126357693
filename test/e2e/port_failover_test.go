package e2e_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

// every is the interval of a stream's datagrams.
const every = 10 * time.Millisecond

// A stream is numbered datagrams from a client to a virtual server that echoes them.
type stream struct {
	conn net.Conn
	done sync.WaitGroup

	mu   sync.Mutex
	sent []time.Time
	back map[uint32]bool // the numbers that have been answered
}

// startStream streams until stop, or the end of the test.
func startStream(t *testing.T, from, to *lab.Client, address string) *stream {
	t.Helper()
	var echo net.PacketConn
	err := to.Do(func() (err error) { echo, err = net.ListenPacket("udp", address); return err })
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{back: map[uint32]bool{}}
	if s.conn, err = from.Dial("udp", address); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	s.done.Go(func() {
		b := make([]byte, 64)
		for n, who, err := echo.ReadFrom(b); err == nil; n, who, err = echo.ReadFrom(b) {
			echo.WriteTo(b[:n], who) // an error means that it is lost
		}
	})
	s.done.Go(func() { s.send(stopped) })
	s.done.Go(s.receive)
	t.Cleanup(func() {
		close(stopped)
		echo.Close()
		s.conn.Close()
		s.done.Wait()
	})
	return s
}

func (s *stream) send(stopped chan struct{}) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for k := uint32(0); ; k++ {
		s.mu.Lock()
		s.sent = append(s.sent, time.Now())
		s.mu.Unlock()
		s.conn.Write(binary.BigEndian.AppendUint32(nil, k))
		select {
		case <-tick.C:
		case <-stopped:
			return
		}
	}
}

func (s *stream) receive() {
	b := make([]byte, 64)
	for {
		n, err := s.conn.Read(b)
		if err != nil && !errors.Is(err, unix.ECONNREFUSED) { // closed
			return
		}
		if n == 4 {
			s.mu.Lock()
			s.back[binary.BigEndian.Uint32(b)] = true
			s.mu.Unlock()
		}
	}
}

// gap waits until the stream flows again after since, and returns the longest time
// in which nothing that was sent was answered, and how many were lost.
func (s *stream) gap(t *testing.T, since time.Time) (longest time.Duration, lost int) {
	t.Helper()
	const flowing = 30 // in a row
	soon(t, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		longest, lost = 0, 0
		last, run := since, 0
		for k, at := range s.sent {
			switch {
			case at.Before(since):
			case s.back[uint32(k)]:
				longest, last = max(longest, at.Sub(last)), at
				run++
			case time.Since(at) > 100*time.Millisecond: // else it may be on its way
				lost++
				run = 0
			}
		}
		if run < flowing {
			return fmt.Errorf("%d datagrams in a row were answered", run)
		}
		return nil
	})
	return longest, lost
}

// gaps are what several failovers took.
type gaps struct {
	what  string
	times []time.Duration
	lost  int
}

func (g *gaps) add(longest time.Duration, lost int) {
	g.times = append(g.times, longest)
	g.lost += lost
}

func (g *gaps) log(t *testing.T, atMost time.Duration) {
	t.Helper()
	slices.Sort(g.times)
	worst := g.times[len(g.times)-1]
	t.Logf("%s: the client's gap is %d ms (median of %d), %d ms at worst; %d datagrams of %v were lost",
		g.what, g.times[len(g.times)/2].Milliseconds(), len(g.times), worst.Milliseconds(), g.lost, every)
	if worst > atMost {
		t.Errorf("%s: a gap of %v", g.what, worst)
	}
}

// An announced is an address of a virtual server, and where it is to be told.
type announced struct {
	addr, mac string
	vlan      int // −1: untagged
}

// segmentOfAll makes virtual servers of every kind on a bond.
func segmentOfAll(t *testing.T, s *site) []announced {
	t.Helper()
	s.addVS(t, 8, "--port", "bond0", "--no-probe")
	s.addVS(t, 9, "--port", "bond0", "--no-probe")
	s.addVS(t, 10, "--port", "bond0", "--vlan", "10", "--no-probe")
	s.addVS(t, 11, "--port", "bond0", "--vlan", "11", "--kind", "vlan", "--no-probe")
	var all []announced
	for id, vlan := range map[int]int{8: -1, 9: -1, 10: 10, 11: 11} {
		mac := s.mac(t, fmt.Sprint("vs", id), "eth0")
		all = append(all, announced{fmt.Sprint("192.0.2.", id), mac, vlan}, announced{fmt.Sprint("2001:db8::", id), mac, vlan})
	}
	return all
}

// mustAnnounce waits until each is announced, from its own MAC and on its own VLAN.
// No process of ours does it: the kernel hands NETDEV_NOTIFY_PEERS on to what sits on
// the bond, in whatever namespace.
func mustAnnounce(t *testing.T, wire *lab.Capture, since time.Time, all []announced) {
	t.Helper()
	fewest := 1000
	for _, a := range all {
		after := func(f lab.Frame) bool { return f.Time.After(since) && f.VLAN == a.vlan }
		got := wire.Await(1, 10*time.Second, lab.Announces(a.addr), lab.From(a.mac), after)
		if len(got) == 0 {
			t.Errorf("%s on vlan %d is not announced after the failover", a.addr, a.vlan)
		}
		fewest = min(fewest, len(got))
		for _, f := range got {
			checkAnnouncement(t, f, a.mac)
		}
	}
	t.Logf("each of %d addresses is announced %d times or more", len(all), fewest)
}

func portFailover(t *testing.T, s *site) {
	lab.Require(t, "kind:vlan")
	s.MustVsrun(t, "port", "create", "bond0", "--members", "eth1,eth2", "--mode", "active-backup", "--miimon", "100")
	all := segmentOfAll(t, s)
	if err := reach(s.client, "192.0.2.8"); err != nil {
		t.Fatal(err)
	}
	wire := s.client.Capture(t)
	flow := startStream(t, s.client, s.In("vs8"), "192.0.2.8:7")
	pulled := gaps{what: "active-backup, miimon 100, carrier lost"}
	active := "eth1"
	for range 3 {
		if got := s.port(t, "bond0"); got.Active != active {
			t.Fatalf("not %s is active: %+v", active, got)
		}
		other := map[string]string{"eth1": "eth2", "eth2": "eth1"}[active]
		since := time.Now()
		s.seg.SetCarrier(t, active, false)
		pulled.add(flow.gap(t, since))
		if len(pulled.times) == 1 {
			mustAnnounce(t, wire, since, all)
			got := s.port(t, "bond0")
			if got.State != "degraded" || got.Active != other || got.Members[0].Failures != 1 || got.members() != "eth1:down,eth2:up" {
				t.Errorf("without %s: %+v", active, got)
			}
			if r := s.Vsrun("diff"); r.Code != 0 { // nothing that could be mended
				t.Error(r)
			}
		}
		s.seg.SetCarrier(t, active, true)
		s.awaitMembers(t, "bond0", strings.Replace("eth1:up,eth2:up", active+":up", active+":backup", 1))
		active = other
	}
	pulled.log(t, 2*time.Second)

	gone := gaps{what: "active-backup, the active member deleted"}
	for range 1 {
		other := map[string]string{"eth1": "eth2", "eth2": "eth1"}[active]
		since := time.Now()
		putBack := s.seg.Remove(t, active)
		gone.add(flow.gap(t, since))
		if len(gone.times) == 1 {
			mustAnnounce(t, wire, since, all)
		}
		putBack()
		s.MustVsrun(t, "enable", "8", "--no-probe")
		s.awaitMembers(t, "bond0", strings.Replace("eth1:up,eth2:up", active+":up", active+":backup", 1))
		active = other
	}
	gone.log(t, 2*time.Second)
	for _, a := range []string{"192.0.2.8", "2001:db8::9"} {
		if err := reach(s.client, a); err != nil {
			t.Error(err)
		}
	}
}

// A switch that forwards no more, and yet has carrier, is noticed by asking.
func portFailoverByARP(t *testing.T, s *site) {
	s.MustVsrun(t, "port", "create", "bond0", "--members", "eth1,eth2", "--mode", "active-backup",
		"--arp-interval", "100", "--arp-target", "192.0.2.100")
	s.addVS(t, 8, "--port", "bond0", "--no-probe")
	s.addVS(t, 9, "--port", "bond0", "--no-probe")
	awaitLong(t, func() error {
		if got := s.port(t, "bond0"); got.State != "up" {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	var all []announced
	for _, id := range []string{"8", "9"} {
		mac := s.mac(t, "vs"+id, "eth0")
		all = append(all, announced{"192.0.2." + id, mac, -1}, announced{"2001:db8::" + id, mac, -1})
	}
	wire := s.client.Capture(t)
	flow := startStream(t, s.client, s.In("vs8"), "192.0.2.8:7")
	cut := gaps{what: "active-backup, ARP every 100 ms, switch silent"}
	pulled := gaps{what: "active-backup, ARP every 100 ms, carrier lost"}
	for k := range 2 {
		active := s.port(t, "bond0").Active
		if active == "" {
			t.Fatalf("none is active: %+v", s.port(t, "bond0"))
		}
		since := time.Now()
		if k%2 == 0 {
			s.seg.SetJoined(t, active, false)
			cut.add(flow.gap(t, since))
			s.seg.SetJoined(t, active, true)
		} else {
			s.seg.SetCarrier(t, active, false)
			pulled.add(flow.gap(t, since))
			s.seg.SetCarrier(t, active, true)
		}
		if k == 0 {
			mustAnnounce(t, wire, since, all)
		}
		awaitLong(t, func() error {
			if got := s.port(t, "bond0"); got.State != "up" {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
	}
	cut.log(t, 3*time.Second)
	pulled.log(t, 3*time.Second)
}

// sent counts the frames that a port of the host has sent.
func sent(t *testing.T, port string) int {
	t.Helper()
	b, err := os.ReadFile("/sys/class/net/" + port + "/statistics/tx_packets")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func portShare(t *testing.T, s *site) {
	s.MustVsrun(t, "port", "create", "bond0", "--members", "eth1,eth2", "--mode", "balance-rr")
	s.addVS(t, 8, "--port", "bond0", "--no-probe")
	if err := reach(s.client, "192.0.2.8"); err != nil {
		t.Fatal(err)
	}
	conn, err := s.In("vs8").Dial("udp", "192.0.2.100:9")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const count = 2000
	share := func(when string) (first, second float64) {
		t.Helper()
		a, b := sent(t, "eth1"), sent(t, "eth2")
		for range count {
			conn.Write([]byte("x")) // refused, says the client, and that is no matter
		}
		a, b = sent(t, "eth1")-a, sent(t, "eth2")-b
		t.Logf("balance-rr, %s: of %d datagrams eth1 sent %d frames, eth2 %d", when, count, a, b)
		return float64(a) / count, float64(b) / count
	}
	if a, b := share("both"); a < 0.4 || b < 0.4 {
		t.Errorf("eth1 carries %.2f, eth2 %.2f", a, b)
	}
	flow := startStream(t, s.client, s.In("vs8"), "192.0.2.8:7")
	pulled := gaps{what: "balance-rr, miimon 100, carrier lost"}
	for k := range 2 {
		since := time.Now()
		s.seg.SetCarrier(t, "eth1", false)
		pulled.add(flow.gap(t, since))
		if k == 0 {
			if a, b := share("eth1 pulled"); a > 0 || b < 0.99 {
				t.Errorf("without eth1 it carries %.2f, eth2 %.2f", a, b)
			}
		}
		s.seg.SetCarrier(t, "eth1", true)
		s.awaitMembers(t, "bond0", "eth1:up,eth2:up")
	}
	pulled.log(t, 2*time.Second)
	if a, b := share("eth1 back"); a < 0.4 || b < 0.4 {
		t.Errorf("eth1 carries %.2f, eth2 %.2f", a, b)
	}
}

// Who is active after the primary has come back.
func portPrimary(t *testing.T, s *site) {
	for _, tt := range []struct{ policy, after string }{
		{"", "eth1"}, {"better", "eth2"}, {"failure", "eth2"},
	} {
		args := []string{"port", "create", "bond0", "--members", "eth2,eth1", "--mode", "active-backup", "--primary", "eth1"}
		if tt.policy != "" {
			args = append(args, "--primary-reselect", tt.policy)
		}
		s.MustVsrun(t, args...)
		if tt.policy == "" {
			if got := s.port(t, "bond0"); got.Active != "eth1" {
				t.Errorf("%s: %+v", tt.policy, got)
			}
		}
		s.seg.SetCarrier(t, "eth1", false)
		s.awaitMembers(t, "bond0", "eth2:up,eth1:down")
		s.seg.SetCarrier(t, "eth1", true)
		members := map[string]string{"eth1": "eth2:backup,eth1:up", "eth2": "eth2:up,eth1:backup"}[tt.after]
		s.awaitMembers(t, "bond0", members)
		if got := s.port(t, "bond0"); got.Active != tt.after || got.State != "up" {
			t.Errorf("%q: the primary is back: %+v", tt.policy, got)
		}
		s.MustVsrun(t, "port", "destroy", "bond0")
	}
}

// A bond in 802.3ad needs one at the other end: both members are in one aggregate,
// and a pulled one is left.
func TestPortLACP(t *testing.T) {
	lab.Require(t, "kind:bond")
	h := bareHost(t)
	peer := h.Trunk("peer", []string{"eth1", "eth2"}, "802.3ad miimon 100 lacp_rate fast", "192.0.2.100/24")
	t.Cleanup(func() { cleanPorts(t, h) })
	h.MustVsrun(t, "port", "create", "bond0", "--members", "eth1,eth2", "--mode", "802.3ad", "--lacp-rate", "fast",
		"--hash-policy", "layer3+4", "--min-links", "1")
	h.MustVsrun(t, "create", "8", "--port", "bond0", "--address", "192.0.2.8/24", "--no-probe")
	awaitLong(t, func() error {
		out := h.Run(t, "ip", "-d", "link", "show", "dev", "bond0")
		if !strings.Contains(out, "ad_num_ports 2") {
			return fmt.Errorf("not both are in one aggregate: %s", out)
		}
		return reach(peer, "192.0.2.8")
	})
	s := &site{Host: h, client: peer}
	// Both ends may still move a link in and out before they agree for good.
	awaitLong(t, func() error {
		if got := s.port(t, "bond0"); got.State != "up" || got.members() != "eth1:up,eth2:up" {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	// Of many flows, each member carries some.
	a, b := sent(t, "eth1"), sent(t, "eth2")
	for k := range 64 {
		conn, err := h.In("vs8").Dial("udp", fmt.Sprintf("192.0.2.100:%d", 1000+k))
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			conn.Write([]byte("x"))
		}
		conn.Close()
	}
	a, b = sent(t, "eth1")-a, sent(t, "eth2")-b
	t.Logf("802.3ad, layer3+4: of 64 flows of 10 datagrams eth1 sent %d frames, eth2 %d", a, b)
	if a < 100 || b < 100 {
		t.Errorf("eth1 sent %d, eth2 %d", a, b)
	}
	flow := startStream(t, peer, h.In("vs8"), "192.0.2.8:7")
	pulled := gaps{what: "802.3ad, miimon 100, carrier lost"}
	for range 2 {
		since := time.Now()
		peer.Run(t, "ip", "link", "set", "dev", "eth1", "down")
		pulled.add(flow.gap(t, since))
		peer.Run(t, "ip", "link", "set", "dev", "eth1", "up")
		s.awaitMembers(t, "bond0", "eth1:up,eth2:up")
	}
	pulled.log(t, 3*time.Second)
}
