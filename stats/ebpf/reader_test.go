package ebpf

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/stats"
	"github.com/vsrun/vsrun/test/lab"
)

func TestObjectIsOfItsSource(t *testing.T) {
	lab.Require(t, "clang-19")
	path := filepath.Join(t.TempDir(), "o")
	if out, err := exec.Command("./build", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	made, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(made, object) {
		t.Error("counters.bpf.o is not what its source makes: run stats/ebpf/build")
	}
}

// Hundreds of namespaces with traffic of all kinds: each counter is between what /proc
// said before and after, and the very same when all is quiet.
func TestSaysWhatProcSays(t *testing.T) {
	bulk := openReader(t)
	count := 200
	if os.Getenv("VSRUN_VM_KERNEL") != "" { // where each takes twenty times as long
		count = 20
	}
	servers := newServers(t, count)
	var reader stats.Reader
	t.Cleanup(func() { reader.Close() })
	reader.Use(bulk)
	all := func() (samples []stats.Sample) {
		since := time.Now()
		for _, s := range servers {
			var sample stats.Sample
			if err := reader.ReadAmong(s.source, &sample, since); err != nil {
				t.Fatal(err)
			}
			samples = append(samples, sample)
		}
		return samples
	}
	proc := func() (samples []stats.Sample) {
		for _, s := range servers {
			var sample stats.Sample
			if err := reader.Read(s.source, &sample); err != nil {
				t.Fatal(err)
			}
			samples = append(samples, sample)
		}
		return samples
	}
	all() // from now on they are wanted
	done := make(chan struct{})
	ended := make(chan error)
	go func() { ended <- traffic(servers, done) }()
	for range 10 {
		before, now, after := proc(), all(), proc()
		for k := range servers {
			if err := between(counting(before[k].MIB), counting(now[k].MIB), counting(after[k].MIB)); err != nil {
				t.Errorf("vs%d: %v", k+1, err)
			}
			for i, was := range before[k].Interfaces {
				is, will := now[k].Interfaces[i], after[k].Interfaces[i]
				if is.Name != was.Name || is.TxBytes < was.TxBytes || is.TxBytes > will.TxBytes || is.RxBytes < was.RxBytes || is.RxBytes > will.RxBytes {
					t.Errorf("vs%d: %+v is not between %+v and %+v", k+1, is, was, will)
				}
			}
		}
	}
	close(done)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	// The kernel itself sends and forgets things for a while. Each has its quiet moment.
	compared := make(map[int]bool)
	for end := time.Now().Add(30 * time.Second); len(compared) < len(servers) && time.Now().Before(end); {
		before, now, after := proc(), all(), proc()
		for k := range servers {
			ignore := cmpopts.IgnoreFields(stats.Sample{}, "Time")
			if compared[k] || !cmp.Equal(before[k], after[k], ignore) {
				continue
			}
			compared[k] = true
			if diff := cmp.Diff(before[k], now[k], ignore); diff != "" {
				t.Errorf("vs%d is quiet, and this differs (-/proc +eBPF):\n%s", k+1, diff)
			}
			if n, _ := now[k].MIB.Lookup("Udp", "OutDatagrams"); n == 0 || now[k].Total.TxBytes == 0 {
				t.Errorf("vs%d has seen no traffic", k+1)
			}
		}
	}
	if len(compared) < len(servers) {
		t.Errorf("only %d of %d were ever quiet", len(compared), len(servers))
	}
	if bulk.failed != nil {
		t.Error(bulk.failed)
	}
}

// Of a namespace that has the inode of another before it, nothing is said until it is read.
func TestReadsNoPredecessor(t *testing.T) {
	bulk := openReader(t)
	lab.New(t)
	ns, err := nsutil.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	id, err := ns.ID()
	if err != nil {
		t.Fatal(err)
	}
	var cookie uint64
	err = ns.Do(func() error {
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		cookie, err = unix.GetsockoptUint64(s, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	bulk.Want(id)
	for _, c := range []struct {
		cookie uint64
		read   bool
	}{{cookie, true}, {0, true}, {cookie + 1, false}} {
		var s stats.Sample
		if has := bulk.Read(id, c.cookie, time.Now(), &s); has != 0 != c.read || len(s.MIB) != 0 != c.read {
			t.Errorf("of cookie %d, and it is %d: %v is read, %d groups", c.cookie, cookie, has, len(s.MIB))
		}
	}
}

// counting leaves out the one gauge that goes up and down here.
func counting(m stats.MIB) (counters stats.MIB) {
	for _, g := range m {
		g.Counters = slices.DeleteFunc(slices.Clone(g.Counters), func(c stats.Counter) bool { return c.Name == "CurrEstab" })
		counters = append(counters, g)
	}
	return counters
}

// A server is a namespace with a macvlan.
type server struct {
	source stats.Source
	ns     *nsutil.Namespace
	addr   netip.Addr
	conn   *net.UDPConn
}

func newServers(t *testing.T, count int) (servers []*server) {
	t.Helper()
	h := lab.New(t)
	lab.Require(t, "kind:macvlan")
	h.Run(t, "ip", "link", "add", "port", "type", "veth", "peer", "name", "wire")
	t.Cleanup(func() { h.Run(t, "ip", "link", "delete", "port") })
	var links strings.Builder
	fmt.Fprintln(&links, "link set port up\nlink set wire up")
	for id := 1; id <= count; id++ {
		path := fmt.Sprintf("/run/netns/vs%d", id)
		ns, err := nsutil.New()
		if err != nil {
			t.Fatal(err)
		}
		if err := ns.Publish(path); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nsutil.Unpublish(path); ns.Close() })
		servers = append(servers, &server{
			source: stats.Source{ID: id, Name: fmt.Sprintf("vs%d", id), Path: path},
			ns:     ns, addr: netip.AddrFrom4([4]byte{198, 18, byte(id / 250), byte(1 + id%250)}),
		})
		fmt.Fprintf(&links, "link add link port name eth0 netns vs%d type macvlan mode bridge\n", id)
	}
	batch(t, links.String())
	for _, s := range servers {
		err := s.ns.Do(func() (err error) {
			batch(t, "link set lo up\nlink set eth0 up\naddress add "+s.addr.String()+"/15 dev eth0\n")
			s.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv4Unspecified(), 4000)))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.conn.Close() })
	}
	return servers
}

// batch runs lines of ip(8) in the calling thread's namespace.
func batch(t *testing.T, lines string) {
	t.Helper()
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(lines)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ip -batch: %v: %s", err, out)
	}
}

// traffic has servers talk to each other, to ports where nobody is, and to themselves by TCP.
func traffic(servers []*server, done chan struct{}) error {
	for k := 0; ; k++ {
		select {
		case <-done:
			if k > 2*len(servers) {
				return nil
			}
		default:
		}
		from, to := servers[k%len(servers)], servers[rand.IntN(len(servers))]
		for _, port := range []uint16{4000, 4001} {
			from.conn.WriteToUDPAddrPort(make([]byte, 1+rand.IntN(1000)), netip.AddrPortFrom(to.addr, port))
		}
		if k%50 != 0 {
			continue
		}
		err := from.ns.Do(func() error {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			defer l.Close()
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return err
			}
			c.Write([]byte("hello"))
			return c.Close()
		})
		if err != nil {
			return err
		}
	}
}

func openReader(t testing.TB) *Reader {
	t.Helper()
	lab.NeedRoot(t, "nobody else loads a program that reads the kernel's memory")
	lab.Require(t, "kernel:btf", "capability:bpf", "capability:perfmon")
	r, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// Whoever reads by it is told when it can be read by no more.
func TestFailureIsTold(t *testing.T) {
	bulk := openReader(t)
	told := make(chan error, 2)
	bulk.Failed = func(err error) { told <- err }
	bulk.loaded.read.Close()
	var s stats.Sample
	for range 2 {
		if has := bulk.Read(nsutil.ID{}, 0, time.Now(), &s); has != 0 {
			t.Errorf("it has read %v", has)
		}
	}
	if err := <-told; err == nil || bulk.Err() == nil {
		t.Errorf("%v, %v", err, bulk.Err())
	}
	time.Sleep(10 * time.Millisecond)
	if len(told) > 0 {
		t.Errorf("and again: %v", <-told)
	}
}

// There is no room taken from those that no run has looked for yet.
func TestRoomIsNotTakenFromWhoIsNew(t *testing.T) {
	bulk := openReader(t)
	lab.New(t)
	before, more := len(bulk.index), len(bulk.loaded.free)+2
	for k := range more {
		bulk.mu.Lock()
		err := bulk.want(uint32(k + 1))
		bulk.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(bulk.index) != before+more {
		t.Errorf("%d of %d are wanted", len(bulk.index), before+more)
	}
}
