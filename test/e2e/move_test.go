package e2e_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

const moveDocument = `
id: 8
interfaces:
- {name: eth0, port: eth1, mac: "02:00:00:00:00:08", addresses: [192.0.2.8/24, 192.0.2.9/24, "2001:db8::8/64"], gateways: [192.0.2.100, "2001:db8::100"], table: 77}
routes: [{to: 198.51.100.0/24, via: 192.0.2.7, metric: 50}]
`

// A beat is a message again and again from a client to a virtual server, which sends it
// back.
type beat struct {
	conn net.Conn

	mu       sync.Mutex
	sent     int
	answered int
	last     time.Time // of the answers
	longest  time.Duration
}

func newBeat(t testing.TB, every time.Duration, from, to *lab.Client, network, address string) *beat {
	t.Helper()
	echoIn(t, to, network, address)
	conn, err := from.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	b := &beat{conn: conn}
	var working sync.WaitGroup
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop); conn.Close(); working.Wait() })
	working.Go(func() {
		var number [8]byte
		for tick := time.NewTicker(every); ; {
			select {
			case <-tick.C:
			case <-stop:
				tick.Stop()
				return
			}
			b.mu.Lock()
			b.sent++
			binary.BigEndian.PutUint64(number[:], uint64(b.sent))
			b.mu.Unlock()
			conn.Write(number[:]) // an error is a message that is lost
		}
	})
	working.Go(func() {
		var number [8]byte
		for {
			if _, err := io.ReadFull(conn, number[:]); err != nil && network == "tcp" {
				return
			} else if err != nil {
				select {
				case <-stop:
					return
				default:
					continue
				}
			}
			b.mu.Lock()
			now := time.Now()
			if !b.last.IsZero() {
				b.longest = max(b.longest, now.Sub(b.last))
			}
			b.last, b.answered = now, b.answered+1
			b.mu.Unlock()
		}
	})
	soon(t, func() error { return b.goesOn(10) })
	return b
}

// echoIn sends what comes to an address back, until the end of the test.
func echoIn(t testing.TB, in *lab.Client, network, address string) {
	t.Helper()
	var l io.Closer
	var serving sync.WaitGroup
	err := in.Do(func() error {
		if network == "udp" {
			conn, err := net.ListenPacket(network, address)
			if err == nil {
				l = conn
				serving.Go(func() { echoPackets(conn) })
			}
			return err
		}
		tcp, err := net.Listen(network, address)
		if err == nil {
			l = tcp
			serving.Go(func() { echoOne(tcp) })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); serving.Wait() })
}

func echoPackets(conn net.PacketConn) {
	b := make([]byte, 100)
	for {
		n, from, err := conn.ReadFrom(b)
		if err != nil {
			return
		}
		conn.WriteTo(b[:n], from)
	}
}

func echoOne(l net.Listener) {
	conn, err := l.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn})
}

// goesOn is nil when there have been so many answers.
func (b *beat) goesOn(n int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.answered < n {
		return fmt.Errorf("%d of %d messages were answered, want %d", b.answered, b.sent, n)
	}
	return nil
}

// since begins anew, and returns the longest time without an answer until then, and how
// many messages have none; one or two are under way.
func (b *beat) since() (gap time.Duration, lost int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	gap, lost = b.longest, b.sent-b.answered
	b.longest, b.sent, b.answered = 0, 0, 0
	return max(gap, time.Since(b.last)), lost
}

// holdings is what a virtual server has: its addresses and routes.
func holdings(t *testing.T, c *lab.Client) string {
	t.Helper()
	var b strings.Builder
	for _, what := range []string{"-br address", "route show table all", "-6 route show table all", "rule", "-6 rule"} {
		for line := range strings.Lines(c.Run(t, append([]string{"ip"}, strings.Fields(what)...)...)) {
			if !strings.Contains(line, "fe80::") && !strings.Contains(line, "ff00::") {
				b.WriteString(line[strings.Index(line, "@if")+1:])
			} else if strings.HasPrefix(line, "eth") {
				b.WriteString(strings.Join(slices.DeleteFunc(strings.Fields(line), func(w string) bool {
					return strings.Contains(w, "@if") || strings.HasPrefix(w, "fe80::") || w == "UP" || w == "UNKNOWN" // which Linux 6.1 finds out later
				}), " ") + "\n")
			}
		}
	}
	return b.String()
}

// holdsStill is nil when vs8 has what it had.
func (s *site) holdsStill(t *testing.T, before string) error {
	if after := holdings(t, s.In("vs8")); after != before {
		return fmt.Errorf("vs8 had\n%s\nand has\n%s", before, after)
	}
	return nil
}

// on is the port that an interface inside sits on.
func on(t *testing.T, s *site, ns, dev string) string {
	t.Helper()
	link := decoded[[]struct {
		LinkIndex int `json:"link_index"`
	}](t, s.In(ns).Run(t, "ip", "-j", "link", "show", "dev", dev))[0].LinkIndex
	for _, l := range decoded[[]struct {
		Ifindex int
		Ifname  string
	}](t, s.Run(t, "ip", "-j", "link")) {
		if l.Ifindex == link {
			return l.Ifname
		}
	}
	return ""
}

// An interface that is moved keeps everything, and nobody who talks to it is kept waiting.
func TestMove(t *testing.T) {
	s := newSite(t, "eth1", "eth2")
	s.must(t, s.VsrunIn(moveDocument, "create", "-f", "-"))
	before := holdings(t, s.In("vs8"))
	beats := map[string]*beat{
		"UDP":       newBeat(t, 10*time.Millisecond, s.client, s.In("vs8"), "udp", "192.0.2.8:7"),
		"UDP, IPv6": newBeat(t, 10*time.Millisecond, s.client, s.In("vs8"), "udp", "[2001:db8::8]:7"),
		"TCP":       newBeat(t, 10*time.Millisecond, s.client, s.In("vs8"), "tcp", "192.0.2.9:7"),
		"TCP, IPv6": newBeat(t, 10*time.Millisecond, s.client, s.In("vs8"), "tcp", "[2001:db8::8]:7"),
	}
	vsd := startVSD(t, s.Host)
	wire := s.seg.Capture(t, "eth2")
	check := func(what, port string) {
		t.Helper()
		for name, b := range beats {
			gap, lost := b.since()
			t.Logf("%s: %s had no answer for %v, %d messages without", what, name, gap.Round(time.Millisecond), lost)
			soon(t, func() error { return b.goesOn(10) })
		}
		if got := on(t, s, "vs8", "eth0"); got != port {
			t.Errorf("%s: it is on %s, want %s", what, got, port)
		}
		if err := s.holdsStill(t, before); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got := s.mac(t, "vs8", "eth0"); got != "02:00:00:00:00:08" {
			t.Errorf("%s: its MAC is %s", what, got)
		}
		if r := s.Vsrun("diff"); r.Code != 0 || r.Stdout != "" {
			t.Errorf("%s: %v", what, r)
		}
	}
	if out := s.MustVsrun(t, "move", "8", "eth0", "--port", "eth2"); out != "vs8 moved: eth0 from eth1 to eth2\n" {
		t.Error(out)
	}
	check("moved", "eth2")
	if n := len(wire.Await(3, 10*time.Second, func(f lab.Frame) bool {
		return f.EtherType == unix.ETH_P_ARP && lab.From("02:00:00:00:00:08")(f) && slices.Equal(f.Payload[14:18], f.Payload[24:28])
	})); n < 3 {
		t.Errorf("%d gratuitous ARPs were seen on eth2", n)
	}
	if out := s.MustVsrun(t, "move", "8", "eth0", "--port", "eth2"); out != "vs8 unchanged: eth0 is on eth2\n" {
		t.Error(out)
	}
	s.must(t, s.VsrunIn(moveDocument, "apply", "-f", "-"))
	check("applied", "eth1")
	for k, port := range []string{"eth2", "eth1"} {
		s.MustVsrun(t, "move", "8", "eth0", "--port", port, "--no-probe")
		check(fmt.Sprint("again ", k), port)
	}
	vsd.Stop()
	// All that IP has sent has left by an interface, and is counted once.
	l := s.ledger(t, "8")
	if ip := uint64(l.MIB["IpExt"]["OutOctets"] + l.MIB["Ip6"]["OutOctets"]); l.Gaps != 0 || len(l.Interfaces) != 1 || l.Total.TxBytes < ip || l.Total.TxBytes > ip+ip/2 {
		t.Errorf("IP has sent %d bytes, and the ledger says %+v", ip, l)
	}
}

// What cannot be is refused before anything is touched.
func TestMoveRefused(t *testing.T) {
	s := newSite(t)
	other := s.Segment("eth2")
	other.Client("holder", "192.0.2.8/24")
	s.must(t, s.VsrunIn(moveDocument, "create", "-f", "-", "--no-probe"))
	s.MustVsrun(t, "create", "9", "--no-probe", "--port", "eth2", "--address", "192.0.2.9/24")
	tcp := dialEcho(t, s.client, s.In("vs8"), "192.0.2.8:7")
	for _, tt := range []struct{ args, want string }{
		{"move 8 eth0 --port eth7", "no port eth7 on this host"},
		{"move 8 eth3 --port eth1", "it has no interface eth3"},
		{"move 8 eth0 --port eth2", "vs9 already has address 192.0.2.9 on port eth2"},
	} {
		if r := s.Vsrun(strings.Fields(tt.args)...); r.Code != 1 || !strings.Contains(r.Stderr, tt.want) {
			t.Error(r)
		}
	}
	s.MustVsrun(t, "destroy", "9")
	if r := s.Vsrun("move", "8", "eth0", "--port", "eth2"); r.Code != 1 || !strings.Contains(r.Stderr, "192.0.2.8 is in use on the segment by") {
		t.Error(r)
	}
	if got := on(t, s, "vs8", "eth0"); got != "eth1" {
		t.Errorf("it is on %s", got)
	}
	if err := tcp.goesOn(); err != nil {
		t.Error(err)
	}
	if r := s.Vsrun("diff"); r.Code != 0 {
		t.Error(r)
	}
	if r := s.Vsrun("move", "8", "eth0"); r.Code != 2 {
		t.Error(r)
	}
}

// Killed at any moment, the same command completes it; who is connected notices nothing.
func TestMoveKilled(t *testing.T) {
	s := newSite(t, "eth1", "eth2")
	s.must(t, s.VsrunIn(moveDocument, "create", "-f", "-", "--no-probe"))
	before := holdings(t, s.In("vs8"))
	tcp := dialEcho(t, s.client, s.In("vs8"), "192.0.2.9:7")
	ports := []string{"eth2", "eth1"}
	move := func(k int) []string { return []string{"move", "8", "eth0", "--no-probe", "--port", ports[k%2]} }
	whole := max(crash(t, time.Minute, "", move(0)...), crash(t, time.Minute, "", move(1)...))
	const runs = 10
	for k := range runs {
		delay := whole * time.Duration(k+1) / runs
		crash(t, delay, "", move(k)...)
		again := k
		if k%5 == 4 { // it is to go back instead
			again++
		}
		s.MustVsrun(t, move(again)...)
		if got := on(t, s, "vs8", "eth0"); got != ports[again%2] {
			t.Errorf("killed after %v, and again: it is on %s", delay, got)
		}
		s.MustVsrun(t, move(k)...)
		if err := s.holdsStill(t, before); err != nil {
			t.Errorf("killed after %v, and again: %v", delay, err)
		}
		if r := s.Vsrun("diff"); r.Code != 0 || r.Stdout != "" {
			t.Errorf("killed after %v, and again: %v", delay, r)
		}
		if err := tcp.goesOn(); err != nil {
			t.Fatalf("killed after %v, and again: %v", delay, err)
		}
	}
}

// BenchmarkMove tells how long a client has no answer when an interface is moved, each
// millisecond a question: the median and the worst.
//
//	go test -run '^$' -bench Move -benchtime 100x ./test/e2e
func BenchmarkMove(b *testing.B) {
	s := newSite(b, "eth1", "eth2")
	s.must(b, s.VsrunIn(moveDocument, "create", "-f", "-", "--no-probe"))
	ports := []string{"eth2", "eth1"}
	for _, network := range []string{"udp", "tcp"} {
		for _, address := range []string{"192.0.2.8:7", "[2001:db8::8]:7"} {
			b.Run(network+" "+address, func(b *testing.B) {
				beat := newBeat(b, time.Millisecond, s.client, s.In("vs8"), network, address)
				var gaps []time.Duration
				missed := 0
				for k := 0; b.Loop(); k++ {
					beat.since()
					s.MustVsrun(b, "move", "8", "eth0", "--port", ports[k%2], "--no-probe")
					soon(b, func() error { return beat.goesOn(10) })
					time.Sleep(20 * time.Millisecond)
					gap, lost := beat.since()
					gaps, missed = append(gaps, gap), missed+lost
				}
				slices.Sort(gaps)
				b.ReportMetric(float64(gaps[len(gaps)/2].Microseconds())/1000, "median-ms")
				b.ReportMetric(float64(gaps[len(gaps)-1].Microseconds())/1000, "worst-ms")
				b.ReportMetric(float64(missed)/float64(len(gaps)), "unanswered/move")
			})
		}
	}
}
