package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/test/lab"
)

// A sample is what stats -o json says of one virtual server.
type sample struct {
	ID         int
	Name       string
	Time       time.Time
	Interfaces []struct {
		Name string
		counters
	}
	Total counters
	MIB   map[string]map[string]int64

	Use      *cgroup.Use
	Services []cgroup.ServiceUse

	Ledger *ledger
}

type counters struct {
	RxBytes, RxPackets, RxErrors, RxDropped, TxBytes, TxPackets, TxErrors, TxDropped uint64
}

func (c counters) plus(o counters) counters {
	return counters{c.RxBytes + o.RxBytes, c.RxPackets + o.RxPackets, c.RxErrors + o.RxErrors, c.RxDropped + o.RxDropped,
		c.TxBytes + o.TxBytes, c.TxPackets + o.TxPackets, c.TxErrors + o.TxErrors, c.TxDropped + o.TxDropped}
}

func readStats(t *testing.T, h *lab.Host, args ...string) []sample {
	t.Helper()
	return decoded[[]sample](t, h.MustVsrun(t, append([]string{"stats", "-o", "json"}, args...)...))
}

// startIPMD starts ipmd on its standard socket and waits until it answers.
func startIPMD(t *testing.T, h *lab.Host, flags ...string) *lab.Process {
	t.Helper()
	p := h.Start(t, append([]string{filepath.Join(lab.Programs(t), "ipmd")}, flags...)...)
	t.Cleanup(func() { p.Stop(); os.Remove(ipmdSocket(h)) })
	soon(t, func() error {
		conn, err := net.Dial("unix", ipmdSocket(h))
		if err != nil {
			return fmt.Errorf("%w; ipmd says %s", err, p.Output())
		}
		return conn.Close()
	})
	return p
}

func ipmdSocket(h *lab.Host) string { return filepath.Join(h.RunDir, "ipmd.sock") }

func curlIPMD(t *testing.T, h *lab.Host, path string) string {
	t.Helper()
	lab.Require(t, "curl")
	return h.Run(t, "curl", "-sSf", "--max-time", "10", "--unix-socket", ipmdSocket(h), "http://ipmd"+path)
}

// transfer has a virtual server send n bytes to the client.
func transfer(t *testing.T, s *site, ns, addr string, n int) {
	t.Helper()
	l := listenIn(t, s.In(ns), "tcp", net.JoinHostPort(addr, "7"))
	sent := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			_, err = conn.Write(make([]byte, n))
			err = errors.Join(err, conn.Close(), l.Close())
		}
		sent <- err
	}()
	conn, err := s.client.Dial("tcp", net.JoinHostPort(addr, "7"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.Copy(io.Discard, conn); err != nil || int(got) != n {
		t.Fatalf("%d bytes of %d: %v", got, n, err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

// clientCounters are those of the client's end of the wire.
func clientCounters(t *testing.T, c *lab.Client) counters {
	t.Helper()
	type side struct{ Bytes, Packets, Errors, Dropped uint64 }
	all := decoded[[]struct{ Stats64 struct{ Rx, Tx side } }](t, c.Run(t, "ip", "-j", "-s", "link", "show", "dev", "eth0"))
	rx, tx := all[0].Stats64.Rx, all[0].Stats64.Tx
	return counters{rx.Bytes, rx.Packets, rx.Errors, rx.Dropped, tx.Bytes, tx.Packets, tx.Errors, tx.Dropped}
}

func TestStatsErrors(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--disabled", "--port", "eth1", "--address", "192.0.2.8/24")
	check := func(with string) {
		t.Helper()
		if r := s.Vsrun("stats", "8"); r.Code != 1 || !strings.Contains(r.Stderr, "vs8 is not enabled\nhint: enable it: vsrun enable 8") {
			t.Errorf("%s: %v", with, r)
		}
		for _, unknown := range []string{"9", "nobody"} {
			if r := s.Vsrun("stats", unknown); r.Code != 3 || strings.Count(r.Stderr, "\n") != 1 {
				t.Errorf("%s: %v", with, r)
			}
		}
		if got := readStats(t, s.Host); len(got) != 0 {
			t.Errorf("%s: %+v", with, got)
		}
	}
	check("direct")
	startIPMD(t, s.Host)
	check("through ipmd")
}

// What ipmd answers and what the kernel says straight has one form.
func TestStatsThroughIPMD(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--name", "finance", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64")
	s.MustVsrun(t, "create", "9", "--no-probe", "--port", "eth1", "--address", "192.0.2.9/24")
	startIPMD(t, s.Host)
	for _, id := range []string{"8", "9"} {
		if err := reach(s.client, "192.0.2."+id); err != nil {
			t.Error(err)
		}
	}
	for _, args := range [][]string{nil, {"8"}, {"finance"}, {"9", "8"}} {
		through := s.MustVsrun(t, append([]string{"stats", "-o", "json"}, args...)...)
		direct := s.MustVsrun(t, append([]string{"stats", "-o", "json", "--direct"}, args...)...)
		if a, b := shapeOf(through), shapeOf(direct); a != b {
			t.Errorf("%v: through ipmd\n%s\ndirect\n%s", args, a, b)
		}
		a, b := decoded[[]sample](t, through), decoded[[]sample](t, direct)
		for k := range a {
			sameWithinTraffic(t, a[k], b[k])
		}
	}
}

// shapeOf is a text without its numbers.
func shapeOf(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r == '-' {
			return -1
		}
		return r
	}, text)
}

// sameWithinTraffic: b was read after a, and little happened between.
func sameWithinTraffic(t *testing.T, a, b sample) {
	t.Helper()
	if a.ID != b.ID || a.Name != b.Name || len(a.Interfaces) != len(b.Interfaces) || a.Time.After(b.Time) {
		t.Errorf("%+v\nand then\n%+v", a, b)
	}
	grown := func(what string, x, y uint64) {
		t.Helper()
		if y < x || y-x > 10_000 {
			t.Errorf("vs%d: %s went from %d to %d", a.ID, what, x, y)
		}
	}
	grown("rxBytes", a.Total.RxBytes, b.Total.RxBytes)
	grown("txBytes", a.Total.TxBytes, b.Total.TxBytes)
	for group, names := range a.MIB {
		for name, v := range names {
			grown(group+"."+name, uint64(max(v, 0)), uint64(max(b.MIB[group][name], 0)))
		}
	}
	if got, want := slices.Sorted(maps.Keys(a.MIB)), slices.Sorted(maps.Keys(b.MIB)); !slices.Equal(got, want) {
		t.Errorf("groups %v, %v", got, want)
	}
}

func TestStatsSocketsAndNeighbours(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24")
	listenIn(t, s.In("vs8"), "tcp", "192.0.2.8:7")
	if err := reach(s.client, "192.0.2.8"); err != nil {
		t.Fatal(err)
	}
	type more struct {
		Sockets, Neighbours map[string]map[string]int64
	}
	plain := decoded[[]more](t, s.MustVsrun(t, "stats", "8", "-o", "json"))[0]
	if n := plain.Sockets["TCP"]["inuse"]; n != 1 || plain.Neighbours != nil {
		t.Errorf("%+v", plain)
	}
	// The client has asked, and so is known.
	counted := decoded[[]more](t, s.MustVsrun(t, "stats", "8", "-o", "json", "--neighbours"))[0]
	known := int64(0)
	for _, n := range counted.Neighbours["inet"] {
		known += n
	}
	if known != 1 {
		t.Errorf("%+v", counted.Neighbours)
	}
	if out := s.MustVsrun(t, "stats", "8", "--neighbours"); !strings.Contains(out, "NEIGHBOURS") || !strings.Contains(out, "inet6") {
		t.Error(out)
	}
	if r := s.Vsrun("stats", "--neighbours", "--watch"); r.Code != 2 {
		t.Errorf("%v", r)
	}
}

func TestIPMDLives(t *testing.T) {
	s := newSite(t)
	daemon := startIPMD(t, s.Host) // before there is anything to tell of
	if got := curlIPMD(t, s.Host, "/stats"); got != "[]\n" {
		t.Errorf("of nothing it tells %q", got)
	}
	create := strings.Fields("create 8 --no-probe --port eth1 --address 192.0.2.8/24")
	s.MustVsrun(t, create...)
	if got := decoded[[]sample](t, curlIPMD(t, s.Host, "/stats?id=8")); len(got) != 1 || got[0].ID != 8 {
		t.Errorf("%+v", got)
	}
	checkMetrics(t, curlIPMD(t, s.Host, "/metrics"), "8")

	// It keeps nothing of one that is gone: the MAC is free at once.
	for range 20 {
		curlIPMD(t, s.Host, "/metrics")
		s.MustVsrun(t, "destroy", "8")
		s.MustVsrun(t, create...)
	}
	s.MustVsrun(t, "destroy", "8")
	if got := curlIPMD(t, s.Host, "/stats"); got != "[]\n" {
		t.Errorf("of what is gone it tells %q", got)
	}
	soon(t, func() error {
		if held := held(t, daemon.Pid()); len(held) > 0 {
			return fmt.Errorf("ipmd still holds %v", held)
		}
		return nil
	})

	// Killed, it leaves its socket; the next one takes that over, and vsrun does
	// without meanwhile.
	s.MustVsrun(t, create...)
	daemon.Stop()
	if _, err := os.Lstat(ipmdSocket(s.Host)); err != nil {
		t.Errorf("the test is pointless: %v", err)
	}
	if got := readStats(t, s.Host, "8"); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	startIPMD(t, s.Host)
	if got := decoded[[]sample](t, curlIPMD(t, s.Host, "/stats?id=8")); len(got) != 1 {
		t.Errorf("%+v", got)
	}
}

// held is what a process has open that keeps a network namespace alive.
func held(t *testing.T, pid int) []string {
	t.Helper()
	var list []string
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		to, _ := os.Readlink(filepath.Join(dir, e.Name()))
		if strings.HasPrefix(to, "net:[") || strings.Contains(to, "/net/") {
			list = append(list, to)
		}
	}
	return list
}

func parseMetrics(text string) (map[string]*dto.MetricFamily, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	return parser.TextToMetricFamilies(strings.NewReader(text))
}

// checkMetrics reads metrics as Prometheus does.
func checkMetrics(t *testing.T, text string, ids ...string) {
	t.Helper()
	families, err := parseMetrics(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	for _, name := range []string{"vsrun_network_receive_bytes_total", "vsrun_network_transmit_packets_total", "vsrun_netstat_Tcp_InSegs", "vsrun_netstat_IpExt_OutOctets"} {
		var got []string
		for _, m := range families[name].GetMetric() {
			got = append(got, label(m, "vs"))
		}
		if !slices.Equal(got, ids) {
			t.Errorf("%s is there of %v, want %v", name, got, ids)
		}
	}
	if f := families["vsrun_network_receive_bytes_total"]; f.GetType() != dto.MetricType_COUNTER || label(f.GetMetric()[0], "device") != "eth0" {
		t.Errorf("%v", f)
	}
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func TestMetricsOnTheSocket(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24")
	s.MustVsrun(t, "create", "9", "--no-probe", "--port", "eth1", "--address", "192.0.2.9/24")
	startIPMD(t, s.Host)
	lab.Require(t, "curl")
	for _, accept := range []string{"*/*", "application/openmetrics-text;version=1.0.0", "text/plain;version=0.0.4"} {
		out := s.Run(t, "curl", "-sSf", "-i", "-H", "Accept: "+accept, "--unix-socket", ipmdSocket(s.Host), "http://ipmd/metrics")
		head, body, _ := strings.Cut(out, "\r\n\r\n")
		open := strings.Contains(accept, "openmetrics")
		if open != strings.Contains(head, "openmetrics-text") || open != strings.HasSuffix(body, "# EOF\n") {
			t.Errorf("asked for %s it answers\n%s", accept, head)
		}
		if !open {
			checkMetrics(t, body, "8", "9")
		}
	}
	r := s.TryRun("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", ipmdSocket(s.Host), "http://ipmd/stats?id=77")
	if r.Stdout != fmt.Sprint(http.StatusNotFound) {
		t.Error(r)
	}
	if fi, err := os.Stat(ipmdSocket(s.Host)); err != nil || fi.Mode().Perm()&0o007 != 0 {
		t.Errorf("everybody may ask: %v, %v", fi.Mode(), err)
	}
	if !bytes.Contains([]byte(curlIPMD(t, s.Host, "/healthz")), []byte("ok")) {
		t.Error("it is not well")
	}
}
