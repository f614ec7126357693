package stats

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/test/lab"
)

func source(id int) Source {
	return Source{ID: id, Name: fmt.Sprintf("name%d", id), Path: path(id)}
}

func TestReadLoopback(t *testing.T) {
	ns := publish(t, lab.New(t), 8)
	for _, test := range []struct {
		addr, group, octets string
		header              int64
	}{
		{"127.0.0.1", "Udp", "IpExt OutOctets", 20 + 8},
		{"::1", "Udp6", "Ip6 OutOctets", 40 + 8},
	} {
		before := read(t, 8)
		send(t, ns, ns, netip.MustParseAddr(test.addr), 7, 100)
		after := read(t, 8)
		moved(t, before, after, test.group+" OutDatagrams", 7)
		moved(t, before, after, test.group+" InDatagrams", 7)
		moved(t, before, after, test.octets, 7*(100+test.header))
		if len(after.Interfaces) != 0 || after.Interfaces == nil || after.Total != (Counters{}) {
			t.Errorf("interfaces %#v, total %v", after.Interfaces, after.Total)
		}
	}
}

func TestReadTCP(t *testing.T) {
	ns := publish(t, lab.New(t), 8)
	before := read(t, 8)
	do(t, ns, func() error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		return c.Close()
	})
	after := read(t, 8)
	moved(t, before, after, "Tcp ActiveOpens", 1)
	moved(t, before, after, "Tcp PassiveOpens", 1)
}

func TestReadInterfaces(t *testing.T) {
	a, b := pair(t, lab.New(t))
	const count, size, frame = 10, 1000, 1000 + 8 + 20 + 14
	beforeA, beforeB := read(t, 1), read(t, 2)
	send(t, a, b, netip.MustParseAddr("192.0.2.2"), count, size)
	send(t, b, a, netip.MustParseAddr("198.51.100.1"), 3, 50)
	afterA, afterB := read(t, 1), read(t, 2)

	for i, name := range []string{"eth0", "eth1"} {
		sent, received := afterA.Interfaces[i], afterB.Interfaces[i]
		if sent.Name != name || received.Name != name {
			t.Errorf("%s is called %s and %s", name, sent.Name, received.Name)
		}
		if sent.TxBytes != received.RxBytes || sent.RxBytes != received.TxBytes ||
			sent.TxPackets != received.RxPackets || sent.RxPackets != received.TxPackets {
			t.Errorf("%s: the two ends differ:\n%+v\n%+v", name, sent, received)
		}
	}
	first := afterA.Interfaces[0].Counters
	if n := first.TxPackets - beforeA.Interfaces[0].TxPackets; n != count {
		t.Errorf("eth0 sent %d packets, want %d", n, count)
	}
	if n := first.TxBytes - beforeA.Interfaces[0].TxBytes; n != count*frame {
		t.Errorf("eth0 sent %d bytes, want %d", n, count*frame)
	}
	if sum := first.Plus(afterA.Interfaces[1].Counters); afterA.Total != sum || sum.RxPackets < 3 {
		t.Errorf("total %+v, want %+v", afterA.Total, sum)
	}
	moved(t, beforeB, afterB, "Udp InDatagrams", count)
	moved(t, beforeA, afterA, "Udp InDatagrams", 3)
}

func TestSampleJSON(t *testing.T) {
	pair(t, lab.New(t))
	s := read(t, 1)
	if age := time.Since(s.Time); age < 0 || age > time.Minute || s.Time.Location() != time.UTC {
		t.Errorf("time %v", s.Time)
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var again Sample
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, again); diff != "" {
		t.Error(diff)
	}
	var keys struct {
		Top        map[string]any
		Interfaces []map[string]any
		Total      map[string]any
		MIB        map[string]map[string]int64
	}
	if err := errors.Join(json.Unmarshal(b, &keys), json.Unmarshal(b, &keys.Top)); err != nil {
		t.Fatal(err)
	}
	counters := []string{"rxBytes", "rxDropped", "rxErrors", "rxPackets", "txBytes", "txDropped", "txErrors", "txPackets"}
	delete(keys.Top, "conntrack") // not every kernel has it
	sameKeys(t, keys.Top, "id", "interfaces", "life", "mib", "name", "sockets", "time", "total")
	sameKeys(t, keys.Interfaces[1], append([]string{"name"}, counters...)...)
	sameKeys(t, keys.Total, counters...)
	for _, group := range []string{"Ip", "Icmp", "Tcp", "Udp", "Ip6", "Icmp6", "Udp6", "TcpExt", "IpExt"} {
		if len(keys.MIB[group]) == 0 {
			t.Errorf("the MIB lacks %s", group)
		}
	}
}

func TestReadWithoutIPv6(t *testing.T) {
	publish(t, lab.New(t), 8)
	var r Reader
	defer r.Close()
	var s Sample
	if err := r.Read(source(8), &s); err != nil {
		t.Fatal(err)
	}
	ns := r.kept[path(8)]
	for i, f := range procFiles {
		if f.name == "snmp6" {
			unix.Close(ns.open[i])
			ns.open[i] = -1
		}
	}
	if err := r.Read(source(8), &s); err != nil {
		t.Fatal(err)
	}
	for _, g := range s.MIB {
		if strings.HasSuffix(g.Name, "6") {
			t.Errorf("group %s is there", g.Name)
		}
	}
	if _, ok := s.MIB.Lookup("TcpExt", "ListenDrops"); !ok {
		t.Error("the groups after it are not")
	}
}

func TestReadGoneNamespace(t *testing.T) {
	publish(t, lab.New(t), 8)
	read(t, 8)
	if err := nsutil.Unpublish(path(8)); err != nil {
		t.Fatal(err)
	}
	_, err := Read(source(8))
	want := "cannot read the counters of vs8: open /run/netns/vs8: no such file or directory"
	if !errors.Is(err, fs.ErrNotExist) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if err := os.WriteFile(path(8), nil, 0o600); err != nil { // what a crash leaves
		t.Fatal(err)
	}
	if _, err := Read(source(8)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty file: %v", err)
	}
	if err := os.WriteFile(path(8), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(source(8)); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("somebody's file: %v", err)
	}
}

// A host whose /proc is broken must not look like one without virtual servers.
func TestReadWithoutProc(t *testing.T) {
	publish(t, lab.New(t), 8)
	if err := unix.Mount("tmpfs", "/proc", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	_, err := Read(source(8))
	if err := unix.Unmount("/proc", unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestReadKeepsNothing(t *testing.T) {
	a, _ := pair(t, lab.New(t))
	before := openCounters(t, a)
	for range 20 {
		read(t, 1)
	}
	if after := openCounters(t, a); after != before {
		t.Errorf("%d descriptors into the namespace, %d before", after, before)
	}
	// With its last descriptor the namespace goes, and its end of the pair with it.
	a.Close()
	if err := nsutil.Unpublish(path(1)); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); len(read(t, 2).Interfaces) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the namespace is still there after 10 s")
		}
	}
}

func TestReadManyAtOnce(t *testing.T) {
	h := lab.New(t)
	for id := 1; id <= 4; id++ {
		publish(t, h, id)
		h.Run(t, "ip", "-n", fmt.Sprintf("vs%d", id), "link", "add", fmt.Sprintf("own%d", id), "type", "veth", "peer", "name", "peer")
	}
	done := make(chan error)
	for id := 1; id <= 4; id++ {
		go func() {
			var err error
			for range 100 {
				s, e := Read(source(id))
				if e == nil && (!hasInterface(s, fmt.Sprintf("own%d", id))) {
					e = fmt.Errorf("vs%d has %+v", id, s.Interfaces)
				}
				err = errors.Join(err, e)
			}
			done <- err
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	publish(b, lab.New(b), 8)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(source(8)); err != nil {
			b.Fatal(err)
		}
	}
}

// pair joins vs1 and vs2 with two links that carry nothing on their own: eth0 is
// 192.0.2.0/24, eth1 is 198.51.100.0/24, with static neighbours and no IPv6.
func pair(t *testing.T, h *lab.Host) (a, b *nsutil.Namespace) {
	t.Helper()
	a, b = publish(t, h, 1), publish(t, h, 2)
	for _, ns := range []*nsutil.Namespace{a, b} {
		do(t, ns, func() error {
			return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
		})
	}
	for i, subnet := range []string{"192.0.2.", "198.51.100."} {
		dev := fmt.Sprintf("eth%d", i)
		mac := func(side int) string { return fmt.Sprintf("02:00:00:00:%02x:%02x", side, i) }
		h.Run(t, "ip", "-n", "vs1", "link", "add", dev, "address", mac(1),
			"type", "veth", "peer", "name", dev, "netns", "vs2", "address", mac(2))
		for side := 1; side <= 2; side++ {
			vs, other := fmt.Sprintf("vs%d", side), 3-side
			h.Run(t, "ip", "-n", vs, "address", "add", fmt.Sprintf("%s%d/24", subnet, side), "dev", dev)
			h.Run(t, "ip", "-n", vs, "link", "set", dev, "up")
			h.Run(t, "ip", "-n", vs, "neighbour", "replace", fmt.Sprintf("%s%d", subnet, other),
				"lladdr", mac(other), "nud", "permanent", "dev", dev)
		}
	}
	for _, ns := range []*nsutil.Namespace{a, b} {
		awaitLinks(t, ns)
	}
	return a, b
}

// awaitLinks waits until the kernel has set the links going: before, it drops what is
// sent.
func awaitLinks(t *testing.T, ns *nsutil.Namespace) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		var links []net.Interface
		do(t, ns, func() (err error) { links, err = net.Interfaces(); return err })
		if !slices.ContainsFunc(links, func(l net.Interface) bool { return l.Flags&net.FlagRunning == 0 }) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not running after 30 s: %+v", links)
		}
	}
}

// publish makes the namespace of a virtual server, with loopback up.
func publish(t testing.TB, h *lab.Host, id int) *nsutil.Namespace {
	t.Helper()
	name := fmt.Sprintf("vs%d", id)
	h.Run(t, "ip", "netns", "add", name)
	t.Cleanup(func() {
		h.TryRun("ip", "netns", "delete", name) // fails when the test has done it
		os.Remove(path(id))
	})
	h.Run(t, "ip", "-n", name, "link", "set", "lo", "up")
	ns, err := nsutil.Open(path(id))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func path(id int) string { return fmt.Sprintf("/run/netns/vs%d", id) }

// send sends count datagrams of size bytes and waits until all have arrived.
func send(t *testing.T, from, to *nsutil.Namespace, addr netip.Addr, count, size int) {
	t.Helper()
	var in, out *net.UDPConn
	do(t, to, func() (err error) {
		in, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
		return err
	})
	defer in.Close()
	do(t, from, func() (err error) {
		out, err = net.DialUDP("udp", nil, in.LocalAddr().(*net.UDPAddr))
		return err
	})
	defer out.Close()
	in.SetReadDeadline(time.Now().Add(30 * time.Second))
	for range count {
		if _, err := out.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if n, err := in.Read(make([]byte, size+1)); err != nil || n != size {
			t.Fatalf("received %d bytes: %v", n, err)
		}
	}
}

func do(t *testing.T, ns *nsutil.Namespace, fn func() error) {
	t.Helper()
	if err := ns.Do(fn); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, id int) Sample {
	t.Helper()
	s, err := Read(source(id))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// moved checks by how much a counter, "Udp InDatagrams", has moved.
func moved(t *testing.T, before, after Sample, counter string, want int64) {
	t.Helper()
	group, name, _ := strings.Cut(counter, " ")
	a, okA := before.MIB.Lookup(group, name)
	b, okB := after.MIB.Lookup(group, name)
	if !okA || !okB || b-a != want {
		t.Errorf("%s moved by %d (there %v, %v), want %d", counter, b-a, okA, okB, want)
	}
}

func sameKeys(t *testing.T, object map[string]any, want ...string) {
	t.Helper()
	got := []string{}
	for k := range object {
		got = append(got, k)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// openCounters counts our descriptors of the namespace and of counter files.
func openCounters(t *testing.T, ns *nsutil.Namespace) int {
	t.Helper()
	self, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		file, _ := os.Readlink("/proc/self/fd/" + e.Name()) // its own is closed by now
		if file == self || strings.Contains(file, "/net/") {
			n++
		}
	}
	return n
}

func hasInterface(s Sample, name string) bool {
	return slices.ContainsFunc(s.Interfaces, func(d Interface) bool { return d.Name == name })
}
