package e2e_test

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/safchain/ethtool"

	"github.com/vsrun/vsrun/test/lab"
)

// A known number of bytes and packets goes between a client and a virtual server,
// and both count them: the one by iproute2, the other by vsrun stats. What each
// figure is, docs/billing.md says.
func TestStatsAddUp(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64")
	quieten(t, s)
	segmentation := []string{"tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-generic-segmentation"}
	for _, mode := range []struct {
		name string
		set  func()
		// alike tells that nothing on the way takes packets apart or together:
		// the interfaces at both ends have counted the same.
		alike bool
	}{
		{"as it comes", func() {}, true},
		{"without segmentation", func() {
			setFeatures(t, onHost, "eth1", false, segmentation...)
			setFeatures(t, s.client.Do, "eth0", false, segmentation...)
		}, false},
		{"with receive offload", func() { setFeatures(t, onHost, "eth1", true, "rx-gro") }, false},
	} {
		mode.set()
		for _, ip := range []*ipVersion{ipv4, ipv6} {
			for _, l := range loads {
				t.Run(mode.name+"/"+l.name+ip.version, func(t *testing.T) { checkLoad(t, s, ip, l, mode.alike) })
			}
		}
	}
}

// A virtual server's total is the sum of its interfaces, a host's that of its virtual
// servers; and the client, with whom alone they speak, has counted the same.
func TestStatsTotalsAreSums(t *testing.T) {
	s := newSite(t)
	s.client.Run(t, "ip", "addr", "add", "198.51.100.100/24", "dev", "eth0")
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24")
	s.MustVsrun(t, "attach", "8", "--no-probe", "--port", "eth1", "--address", "198.51.100.8/24")
	s.MustVsrun(t, "create", "9", "--no-probe", "--port", "eth1", "--address", "192.0.2.9/24")
	s.MustVsrun(t, "create", "10") // has loopback alone, which does not count
	on := map[string]string{"vs8 eth0": "192.0.2.8", "vs8 eth1": "198.51.100.8", "vs9 eth0": "192.0.2.9"}
	for _, address := range on {
		if err := reach(s.client, address); err != nil {
			t.Error(err)
		}
	}
	soon(t, func() error { // unless somebody else was on the wire, as neighbours are
		before, client0, err := sums(t, s.Host), clientFigures(t, s.client), error(nil)
		for name, address := range on {
			transfer(t, s, name[:3], address, 100_000)
		}
		after, client := sums(t, s.Host), clientFigures(t, s.client).since(client0)
		for name := range on {
			if sent := after[name].minus(before[name]).TxBytes; sent < 100_000 || sent > 110_000 {
				err = errors.Join(err, fmt.Errorf("%s has sent %d bytes, and should 100000", name, sent))
			}
		}
		all, line := after["all"].minus(before["all"]), after["line"].minus(before["line"])
		if all != line || all != client.mirrored() {
			err = errors.Join(err, fmt.Errorf("the sum is %+v, the last line %+v, and the client has counted %+v", all, line, client.counters))
		}
		return err
	})
}

// sums is what each interface has counted, all of them, and the last line of the
// table. It checks the totals between.
func sums(t *testing.T, h *lab.Host) map[string]counters {
	t.Helper()
	list := make(map[string]counters)
	var all, line counters
	for _, s := range readStats(t, h) {
		var total counters // no interface: nothing
		for _, i := range s.Interfaces {
			list[fmt.Sprintf("vs%d %s", s.ID, i.Name)] = i.counters
			total = total.plus(i.counters)
		}
		if total != s.Total {
			t.Errorf("vs%d: the sum is %+v, the total %+v", s.ID, total, s.Total)
		}
		all = all.plus(total)
	}
	table, _, _ := strings.Cut(h.MustVsrun(t, "stats"), "\n\n")
	_, last, _ := strings.Cut(table, "\nall ")
	if _, err := fmt.Sscanf(strings.Join(strings.Fields(last), " "), "- total %d %d %d %d %d %d %d %d",
		&line.RxBytes, &line.RxPackets, &line.RxErrors, &line.RxDropped, &line.TxBytes, &line.TxPackets, &line.TxErrors, &line.TxDropped); err != nil {
		t.Errorf("%v in %s", err, table)
	}
	list["all"], list["line"] = all, line
	return list
}

// An ipVersion is what differs between the two. Its header includes Ethernet's.
type ipVersion struct {
	version, address                   string
	header                             int64
	ip, octets, udp, icmp, echoReplies string // prefixes and names of counters
}

var (
	ipv4 = &ipVersion{"4", "192.0.2.8", 14 + 20, "Ip", "IpExt", "Udp", "Icmp", "EchoReps"}
	ipv6 = &ipVersion{"6", "2001:db8::8", 14 + 40, "Ip6", "Ip6", "Udp6", "Icmp6", "EchoReplies"}
)

// A load is traffic that moves between a client and a virtual server.
type load struct {
	name             string
	move             func(t *testing.T, s *site, address string)
	toServer, toBack sending
	// counted is what the virtual server's and the client's protocols count of it.
	counted func(ip *ipVersion) (server, client map[string]int64)
}

// A sending is what one side sends: bytes of payload in so many packets, each with a
// header beside IP's, and what is longer in the first one. TCP itself says how many
// packets it makes.
type sending struct{ payload, packets, header, first int64 }

const rounds = 40

var loads = []load{
	// SYN has 8 bytes more of options than the others, which have a time stamp.
	{"TCP", converse, sending{rounds * 20_000, 0, 32, 8}, sending{rounds * 30_000, 0, 32, 8}, func(*ipVersion) (server, client map[string]int64) {
		return map[string]int64{"TcpPassiveOpens": 1, "TcpInErrs": 0}, map[string]int64{"TcpActiveOpens": 1}
	}},
	{"UDP", datagrams, sending{rounds * 1000, rounds, 8, 0}, sending{rounds * 500, rounds, 8, 0}, func(ip *ipVersion) (server, client map[string]int64) {
		both := map[string]int64{ip.udp + "InDatagrams": rounds, ip.udp + "OutDatagrams": rounds}
		return both, both
	}},
	{"ICMP", pings, sending{5 * 100, 5, 8, 0}, sending{5 * 100, 5, 8, 0}, func(ip *ipVersion) (server, client map[string]int64) {
		return map[string]int64{ip.icmp + "InEchos": 5, ip.icmp + "Out" + ip.echoReplies: 5, ip.icmp + "InMsgs": 5, ip.icmp + "OutMsgs": 5},
			map[string]int64{ip.icmp + "OutEchos": 5, ip.icmp + "In" + ip.echoReplies: 5}
	}},
}

// checkLoad moves a load, once more if anything else was on the wire meanwhile.
func checkLoad(t *testing.T, s *site, ip *ipVersion, l load, alike bool) {
	for range 10 {
		server0, client0 := serverFigures(t, s.Host), clientFigures(t, s.client)
		l.move(t, s, ip.address)
		var server, client figures
		var err error
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) { // the last ACK may be on its way
			server, client = serverFigures(t, s.Host).since(server0), clientFigures(t, s.client).since(client0)
			if err = compare(ip, l, alike, server, client); err == nil {
				return
			}
			if server.stray()+client.stray() > 0 || time.Now().After(end) {
				break
			}
		}
		if server.stray()+client.stray() == 0 {
			t.Fatalf("%v\nthe virtual server %+v\nthe client %+v", err, server, client)
		}
	}
	t.Error("there was always something else on the wire")
}

func compare(ip *ipVersion, l load, alike bool, server, client figures) error {
	onServer, onClient := l.counted(ip)
	errs := []error{
		l.toServer.check("to the virtual server", ip, client, server),
		l.toBack.check("from the virtual server", ip, server, client),
		server.has("the virtual server's", onServer), client.has("the client's", onClient),
		// In a virtual server, IP and the interface see the same buffers.
		server.has("the virtual server's", map[string]int64{
			ip.ip + "InReceives": int64(server.RxPackets), ip.octets + "InOctets": int64(server.RxBytes - 14*server.RxPackets),
			ip.ip + "OutRequests": int64(server.TxPackets), ip.octets + "OutOctets": int64(server.TxBytes - 14*server.TxPackets),
		}),
	}
	if alike && server.counters != client.mirrored() {
		errs = append(errs, fmt.Errorf("the client's end of the wire has counted %+v", client.counters))
	}
	if alike && server.mib["TcpOutSegs"] > 0 && server.TxPackets == uint64(server.mib["TcpOutSegs"]) {
		errs = append(errs, errors.New("the test is pointless: nothing was segmented below the interface"))
	}
	return errors.Join(errs...)
}

// check checks what the sender and the receiver have counted: each buffer counts as
// one packet with one header, whatever it becomes on the wire.
func (s sending) check(way string, ip *ipVersion, from, to figures) error {
	packets := cmp.Or(s.packets, from.mib["TcpOutSegs"])
	header := ip.header + s.header
	wire := s.payload + packets*header + s.first
	return errors.Join(
		equal(way+", packets sent and received", packets, to.packetsIn(ip)),
		equal(way+", bytes and what the sender's interface counts", wire, int64(from.TxBytes)+(packets-int64(from.TxPackets))*header),
		equal(way+", bytes and what the receiver's interface counts", wire, int64(to.RxBytes)+(packets-int64(to.RxPackets))*header),
	)
}

func equal(what string, a, b int64) error {
	if a != b {
		return fmt.Errorf("%s: %d and %d", what, a, b)
	}
	return nil
}

// figures are those of a namespace: its protocols' by the names that nstat(8) has
// for them, and its interface's.
type figures struct {
	mib map[string]int64
	counters
}

func clientFigures(t *testing.T, c *lab.Client) figures {
	t.Helper()
	all := decoded[map[string]map[string]int64](t, c.Run(t, "nstat", "--ignore", "--noupdate", "--zero", "--json"))
	return figures{all["kernel"], clientCounters(t, c)}
}

func serverFigures(t *testing.T, h *lab.Host) figures {
	t.Helper()
	s := readStats(t, h, "8")[0]
	f := figures{make(map[string]int64), s.Total}
	for group, named := range s.MIB {
		for name, v := range named {
			f.mib[group+name] = v
		}
	}
	return f
}

func (f figures) since(before figures) figures {
	d := figures{make(map[string]int64), f.counters.minus(before.counters)}
	for name, v := range f.mib {
		d.mib[name] = v - before.mib[name]
	}
	return d
}

func (c counters) minus(o counters) counters {
	return counters{c.RxBytes - o.RxBytes, c.RxPackets - o.RxPackets, c.RxErrors - o.RxErrors, c.RxDropped - o.RxDropped,
		c.TxBytes - o.TxBytes, c.TxPackets - o.TxPackets, c.TxErrors - o.TxErrors, c.TxDropped - o.TxDropped}
}

// mirrored is what the other end of the wire has counted.
func (c counters) mirrored() counters {
	return counters{c.TxBytes, c.TxPackets, c.TxErrors, c.TxDropped, c.RxBytes, c.RxPackets, c.RxErrors, c.RxDropped}
}

func (f figures) has(whose string, want map[string]int64) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(want)) {
		errs = append(errs, equal(whose+" "+name, f.mib[name], want[name]))
	}
	return errors.Join(errs...)
}

// packetsIn are the packets received as they were on the wire, those that were put
// together on the way counted one by one (linux net/ipv4/ip_input.c, ip_rcv_core).
func (f figures) packetsIn(ip *ipVersion) (n int64) {
	for _, ecn := range []string{"NoECT", "ECT1", "ECT0", "CE"} {
		n += f.mib[ip.octets+"In"+ecn+"Pkts"]
	}
	return n
}

// stray counts what nobody asked for: segments sent twice, neighbours, listeners.
func (f figures) stray() int64 {
	return f.mib["TcpRetransSegs"] + f.mib["Ip6OutMcastPkts"] + f.mib["Ip6InMcastPkts"] +
		f.mib["Icmp6OutNeighborSolicits"] + f.mib["Icmp6InNeighborSolicits"]
}

// quieten has both ends know each other for good, so that nobody need ask.
func quieten(t *testing.T, s *site) {
	t.Helper()
	s.client.Run(t, "sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=0", "net.ipv6.conf.eth0.router_solicitations=0")
	vs := s.In("vs8")
	know := func(c *lab.Client, mac string, addresses ...string) {
		for _, a := range addresses {
			c.Run(t, "ip", "neigh", "replace", a, "lladdr", mac, "dev", "eth0", "nud", "permanent")
		}
	}
	know(s.client, vs.MAC(t), ipv4.address, ipv6.address)
	know(vs, s.client.MAC(t), "192.0.2.100", "2001:db8::100")
}

func onHost(do func() error) error { return do() }

// setFeatures switches offloads of a device, as ethtool -K does.
func setFeatures(t *testing.T, in func(func() error) error, dev string, on bool, features ...string) {
	t.Helper()
	want := make(map[string]bool)
	for _, f := range features {
		want[f] = on
	}
	err := in(func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer e.Close()
		return e.Change(dev, want)
	})
	if err != nil {
		t.Fatalf("cannot set %v of %s: %v", want, dev, err)
	}
}

// converse has a client and a virtual server send to each other in turn, more at
// once than a packet holds.
func converse(t *testing.T, s *site, address string) {
	t.Helper()
	listener := listenIn(t, s.In("vs8"), "tcp", net.JoinHostPort(address, "7"))
	defer listener.Close()
	take := func(conn net.Conn, n int64) error { _, err := io.CopyN(io.Discard, conn, n); return err }
	give := func(conn net.Conn, n int64) error { _, err := conn.Write(make([]byte, n)); return err }
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		for n := 0; err == nil && n < rounds; n++ {
			err = errors.Join(take(conn, 20_000), give(conn, 30_000))
		}
		if err == nil {
			_, err = io.Copy(io.Discard, conn)
			err = errors.Join(err, conn.Close())
		}
		served <- err
	}()
	conn, err := s.client.Dial("tcp", net.JoinHostPort(address, "7"))
	for n := 0; err == nil && n < rounds; n++ {
		err = errors.Join(give(conn, 20_000), take(conn, 30_000))
	}
	if err == nil {
		err = conn.(*net.TCPConn).CloseWrite()
		_, cut := io.Copy(io.Discard, conn) // until it has closed, too
		err = errors.Join(err, cut, conn.Close())
	}
	if err := errors.Join(err, <-served); err != nil {
		t.Fatal(err)
	}
}

// datagrams sends one after another, each answered by half of it.
func datagrams(t *testing.T, s *site, address string) {
	t.Helper()
	var server net.PacketConn
	err := s.In("vs8").Do(func() (err error) {
		server, err = net.ListenPacket("udp", net.JoinHostPort(address, "7"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	conn, err := s.client.Dial("udp", net.JoinHostPort(address, "7"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b := make([]byte, 1000)
	for range rounds {
		_, lost := conn.Write(b)
		n, from, unread := server.ReadFrom(b)
		_, unsent := server.WriteTo(b[:n/2], from)
		_, unanswered := conn.Read(b)
		if err := errors.Join(lost, unread, unsent, unanswered); err != nil {
			t.Fatal(err)
		}
	}
}

func pings(t *testing.T, s *site, address string) {
	t.Helper()
	s.client.Run(t, "ping", "-n", "-q", "-c", "5", "-i", "0.01", "-s", "100", address)
}
