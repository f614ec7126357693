package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/stats"
	"github.com/vsrun/vsrun/test/lab"
)

// crowds are the numbers of virtual servers that reading is measured with.
var crowds = []int{1, 100, 1000, 4000}

// BenchmarkReading compares ways to read a virtual server's counters, and prints a
// table. It runs once, whatever -benchtime says.
func BenchmarkReading(b *testing.B) {
	lab.Require(b, "prometheus-node-exporter")
	h := lab.New(b)
	h.Segment("eth1")
	var reader stats.Reader
	defer reader.Close()
	var sources []stats.Source
	samples := make([]stats.Sample, slices.Max(crowds))
	lines := []string{"", "stats.Reader", "pread of the same descriptors, nothing else", "ratio",
		"stats.Read, which opens and closes", "ip netns exec cat of the files", "a node_exporter in it", "allocations of stats.Reader", "descriptors"}
	for _, n := range crowds {
		sources = append(sources, crowd(b, h, len(sources), n)...)
		all := func() {
			for i := range sources {
				if err := reader.Read(sources[i], &samples[i]); err != nil {
					b.Fatal(err)
				}
			}
		}
		all()
		time.Sleep(3 * time.Second) // interfaces that are new say so, and that is counted
		all()
		kept := netFiles(b)
		rounds := max(5, 1000/n)
		ours, floor := inTurn(rounds, all, func() { pread(b, kept) })
		allocations := testing.AllocsPerRun(rounds, all) / float64(n)
		perFile := filesOfOne(b, sources[0])
		ours, floor = ours/time.Duration(n), floor*time.Duration(perFile)/time.Duration(len(kept))
		one := sources[len(sources)-1]
		for i, cell := range []string{
			fmt.Sprint(n), micros(ours), micros(floor), fmt.Sprintf("%.2f", float64(ours)/float64(floor)),
			micros(median(20, func() { read(b, one) })),
			micros(median(5, func() { netnsExecCat(b, one) })),
			micros(nodeExporter(b, h, one)),
			fmt.Sprintf("%.2f", allocations),
			fmt.Sprint(len(kept)),
		} {
			lines[i] += " | " + cell
		}
	}
	fmt.Printf("\nReading a virtual server, µs, with so many of them:\n\n|%s |\n|---|%s\n", lines[0], strings.Repeat("---|", len(crowds)))
	for _, line := range lines[1:] {
		fmt.Printf("| %s |\n", line)
	}
}

// crowd makes virtual servers, from one number up to another: a namespace with an
// interface on the port, as vsrun makes them.
func crowd(b *testing.B, h *lab.Host, from, to int) (sources []stats.Source) {
	b.Helper()
	addresses := func() string { return h.Run(b, "bridge", "fdb", "show", "dev", "eth1") }
	before := addresses()
	b.Cleanup(func() { // namespaces die later than their names
		for end := time.Now().Add(time.Minute); addresses() != before && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		}
	})
	var links strings.Builder
	for id := from + 1; id <= to; id++ {
		path := filepath.Join(h.NetnsDir, fmt.Sprintf("vs%d", id))
		ns, err := nsutil.New()
		if err == nil {
			err = ns.Publish(path)
			ns.Close()
		}
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { nsutil.Unpublish(path) })
		fmt.Fprintf(&links, "link add link eth1 name eth0 up netns vs%d type macvlan mode bridge\n", id)
		sources = append(sources, stats.Source{ID: id, Name: filepath.Base(path), Path: path})
	}
	ip := exec.Command("ip", "-batch", "-")
	ip.Stdin = strings.NewReader(links.String())
	if out, err := ip.CombinedOutput(); err != nil {
		b.Fatalf("ip -batch: %s%v", out, err)
	}
	return sources
}

// netFiles are the descriptors of this process on files of counters.
func netFiles(b *testing.B) (fds []int) {
	b.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		b.Fatal(err)
	}
	for _, e := range entries {
		if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); strings.HasPrefix(to, "/proc/") && strings.Contains(to, "/net/") {
			var fd int
			fmt.Sscan(e.Name(), &fd)
			fds = append(fds, fd)
		}
	}
	slices.Sort(fds) // as they were opened
	return fds
}

// filesOfOne is how many files a virtual server has.
func filesOfOne(b *testing.B, src stats.Source) int {
	b.Helper()
	before := len(netFiles(b))
	var r stats.Reader
	defer r.Close()
	var s stats.Sample
	if err := r.Read(src, &s); err != nil {
		b.Fatal(err)
	}
	return len(netFiles(b)) - before
}

var buffer = make([]byte, 64<<10)

func pread(b *testing.B, fds []int) {
	for _, fd := range fds {
		if _, err := unix.Pread(fd, buffer, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func read(b *testing.B, src stats.Source) {
	if _, err := stats.Read(src); err != nil {
		b.Fatal(err)
	}
}

func netnsExecCat(b *testing.B, src stats.Source) {
	argv := []string{"netns", "exec", src.Name, "cat"}
	for _, name := range []string{"dev", "snmp", "snmp6", "netstat"} {
		argv = append(argv, "/proc/net/"+name)
	}
	if out, err := exec.Command("ip", argv...).Output(); err != nil || len(out) == 0 {
		b.Fatal(err)
	}
}

// nodeExporter is how long one that runs inside takes to tell of the network alone,
// all that it knows of that.
func nodeExporter(b *testing.B, h *lab.Host, src stats.Source) time.Duration {
	b.Helper()
	inside := h.In(src.Name)
	inside.Run(b, "ip", "link", "set", "lo", "up")
	p := inside.Start(b, "prometheus-node-exporter", "--web.listen-address=127.0.0.1:9100", "--collector.disable-defaults",
		"--collector.netdev", "--collector.netstat", "--collector.netstat.fields=.*", "--collector.sockstat", "--log.level=error")
	defer p.Stop()
	scrape := func() error { _, err := inside.HTTPGet("http://127.0.0.1:9100/metrics"); return err }
	for end := time.Now().Add(10 * time.Second); scrape() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("node_exporter does not answer: %s", p.Output())
		}
	}
	took := median(10, func() {
		if err := scrape(); err != nil {
			b.Fatal(err)
		}
	})
	b.Logf("a node_exporter has %s of memory", statusLine(p.Pid(), "VmRSS"))
	return took
}

// statusLine is a line of a process' status, such as VmRSS.
func statusLine(pid int, name string) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(text), name+":")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// inTurn does one and the other in turn, so that what else the machine does meets
// both, and gives the medians.
func inTurn(rounds int, one, other func()) (time.Duration, time.Duration) {
	var a, b []time.Duration
	for range rounds {
		a, b = append(a, timed(one)), append(b, timed(other))
	}
	slices.Sort(a)
	slices.Sort(b)
	return a[rounds/2], b[rounds/2]
}

func median(rounds int, do func()) time.Duration {
	took, _ := inTurn(rounds, do, func() {})
	return took
}

func micros(d time.Duration) string {
	return fmt.Sprintf("%.3g", float64(d.Nanoseconds())/1000)
}
