package bench

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// server is one macvlan, one address, a default gateway.
var server = []string{"8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--gateway", "192.0.2.1"}

func BenchmarkCreate(b *testing.B) {
	h := host(b)
	script := h.MustVsrun(b, append([]string{"create", "--dry-run"}, server...)...)
	iproute := batch(script)
	var ours, theirs []time.Duration
	for b.Loop() {
		ours = append(ours, timed(func() { h.MustVsrun(b, append([]string{"create"}, server...)...) }))
		h.MustVsrun(b, "destroy", "8")
		theirs = append(theirs, timed(func() { iproute(b) }))
		h.MustVsrun(b, "destroy", "8")
	}
	report(b, "ip-batch", ours, theirs)
}

func BenchmarkDestroy(b *testing.B) {
	h := host(b)
	var ours, theirs []time.Duration
	create := func() { h.MustVsrun(b, append([]string{"create"}, server...)...) }
	for b.Loop() {
		create()
		ours = append(ours, timed(func() { h.MustVsrun(b, "destroy", "8") }))
		create()
		theirs = append(theirs, timed(func() {
			shell(b, "ip -n vs8 link set eth0 down && ip -n vs8 link delete eth0 && ip netns delete vs8")
		}))
		h.MustVsrun(b, "destroy", "8")
	}
	report(b, "ip", ours, theirs)
}

func BenchmarkStats(b *testing.B) {
	h := host(b)
	h.MustVsrun(b, append([]string{"create"}, server...)...)
	var ours, theirs []time.Duration
	for b.Loop() {
		ours = append(ours, timed(func() { h.MustVsrun(b, "stats", "8", "--direct", "-o", "json") }))
		theirs = append(theirs, timed(func() {
			shell(b, "ip netns exec vs8 cat /proc/net/dev /proc/net/snmp /proc/net/snmp6 /proc/net/netstat")
		}))
	}
	h.MustVsrun(b, "destroy", "8")
	report(b, "ip-netns-exec-cat", ours, theirs)
}

// A service is ready as soon as its program is, and sleep ends upon SIGTERM: what is
// measured is all that vsrun and the init do for it.
func BenchmarkServiceStart(b *testing.B) { order(b, "stop", "start") }
func BenchmarkServiceStop(b *testing.B)  { order(b, "start", "stop") }

func order(b *testing.B, first, measured string) {
	h := host(b)
	b.Cleanup(func() { os.Remove(h.RunDir) })
	h.MustVsrun(b, append([]string{"create"}, server...)...)
	h.MustVsrun(b, "service", "add", "8", "a", "--", "sleep", "100000")
	var ours, theirs []time.Duration
	for b.Loop() {
		h.MustVsrun(b, "service", first, "8", "a")
		ours = append(ours, timed(func() { h.MustVsrun(b, "service", measured, "8", "a") }))
		theirs = append(theirs, timed(func() { shell(b, "ip netns exec vs8 true") }))
	}
	h.MustVsrun(b, "destroy", "8")
	report(b, "ip-netns-exec-true", ours, theirs)
}

func host(b *testing.B) *lab.Host {
	h := lab.New(b)
	h.Segment("eth1")
	return h
}

func timed(do func()) time.Duration {
	start := time.Now()
	do()
	return time.Since(start)
}

// report gives the medians, and the median of the ratios pair by pair.
func report(b *testing.B, other string, ours, theirs []time.Duration) {
	ratios := make([]float64, len(ours))
	for k := range ours {
		ratios[k] = float64(ours[k]) / float64(theirs[k])
	}
	slices.Sort(ratios)
	slices.Sort(ours)
	slices.Sort(theirs)
	middle := len(ratios) / 2
	b.ReportMetric(0, "ns/op") // both halves together say nothing
	b.ReportMetric(float64(ours[middle].Microseconds()), "vsrun-µs")
	b.ReportMetric(float64(theirs[middle].Microseconds()), other+"-µs")
	b.ReportMetric(ratios[middle], "ratio")
}

// batch makes of a dry run what a person would who is in a hurry: iproute2 in
// batch mode, once on the host and once inside, and sysctl.
func batch(script string) func(testing.TB) {
	var outside, inside []string
	sysctl := ""
	for line := range strings.Lines(script) {
		line = strings.TrimSpace(line)
		if words, ok := strings.CutPrefix(line, "ip -n vs8 "); ok {
			inside = append(inside, words)
		} else if strings.HasPrefix(line, "ip netns exec") {
			sysctl = line
		} else if words, ok := strings.CutPrefix(line, "ip "); ok {
			outside = append(outside, words)
		}
	}
	text := fmt.Sprintf("ip -batch - <<'END'\n%s\nEND\n%s\nip -n vs8 -batch - <<'END'\n%s\nEND\n",
		strings.Join(outside, "\n"), sysctl, strings.Join(inside, "\n"))
	return func(t testing.TB) { shell(t, text) }
}

func shell(t testing.TB, script string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%s\n%s%v", script, out, err)
	}
}
