package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// BenchmarkIPMD has a real ipmd answer for 1000 virtual servers, and prints a table.
func BenchmarkIPMD(b *testing.B) {
	const servers, askers, each = 1000, 32, 200
	h := lab.New(b)
	h.Segment("eth1")
	for _, src := range crowd(b, h, 0, servers) {
		record := filepath.Join(h.StateDir, fmt.Sprintf("vs%d.json", src.ID))
		if err := os.MkdirAll(h.StateDir, 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(record, fmt.Appendf(nil, `{"id":%d}`, src.ID), 0o644); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { os.Remove(record) })
	}
	socket := filepath.Join(h.RunDir, "ipmd.sock")
	p := h.Start(b, filepath.Join(lab.Programs(b), "ipmd"))
	b.Cleanup(func() { p.Stop(); os.RemoveAll(h.RunDir) })
	for end := time.Now().Add(10 * time.Second); ask(socket, "/healthz").err != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("ipmd does not answer: %s", p.Output())
		}
	}
	fresh := statusLine(p.Pid(), "VmRSS")
	var scrape answer
	anew, shared := inTurn(5, func() { ask(socket, "/metrics?maxAge=0s") }, func() { scrape = ask(socket, "/metrics?maxAge=1m") })
	if scrape.err != nil {
		b.Fatal(scrape.err)
	}
	times, total := storm(b, socket, servers, askers, each)
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Pid()))
	fmt.Printf("\nipmd with %d virtual servers:\n\n| | |\n|---|---|\n", servers)
	fmt.Printf("| /metrics, all read for it | %.0f ms |\n| /metrics, of shared samples | %.0f ms, %d bytes |\n", anew.Seconds()*1000, shared.Seconds()*1000, scrape.bytes)
	fmt.Printf("| /stats?id=…, by %d at once | %.0f a second, median %s, p99 %s |\n", askers,
		float64(len(times))/total.Seconds(), times[len(times)/2].Round(time.Microsecond), times[len(times)*99/100].Round(time.Microsecond))
	fmt.Printf("| memory at first, then, at most | %s, %s, %s |\n| descriptors | %d |\n", fresh, statusLine(p.Pid(), "VmRSS"), statusLine(p.Pid(), "VmHWM"), len(fds))
}

// storm asks for one virtual server after the other, by several at once over
// connections of their own; the times are sorted.
func storm(b *testing.B, socket string, servers, askers, each int) (times []time.Duration, total time.Duration) {
	b.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	start := time.Now()
	for asker := range askers {
		all.Go(func() {
			client := over(socket)
			defer client.CloseIdleConnections()
			for k := range each {
				one := time.Now()
				a := get(client, fmt.Sprintf("/stats?id=%d", (asker*each+k)%servers+1))
				took := time.Since(one)
				mu.Lock()
				times = append(times, took)
				if a.err != nil {
					b.Error(a.err)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	total = time.Since(start)
	slices.Sort(times)
	return times, total
}

type answer struct {
	bytes int64
	err   error
}

func ask(socket, path string) answer {
	client := over(socket)
	defer client.CloseIdleConnections()
	return get(client, path)
}

func over(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
}

func get(client *http.Client, path string) (a answer) {
	res, err := client.Get("http://ipmd" + path)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return answer{err: fmt.Errorf("%s: %s", path, res.Status)}
	}
	a.bytes, a.err = io.Copy(io.Discard, res.Body)
	return a
}
