package ipmd

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/stats"
	"github.com/vsrun/vsrun/test/lab"
)

// What clients at once, over the socket, get of ipmd with 1000 virtual servers: the
// time of a request, the slowest of a hundred (p99-ms), and what all of it took.
func BenchmarkServe(b *testing.B) {
	s, socket := serveMany(b, 1000)
	for _, bench := range []struct {
		path    string
		clients int
	}{
		{"/stats?id=500", 1},
		{"/stats?id=500", 64},
		{"/stats?id=500&maxAge=0", 64},
		{"/stats", 1},
		{"/stats", 16},
		{"/metrics", 1},
		{"/metrics", 16},
	} {
		b.Run(fmt.Sprintf("%s/clients=%d", strings.ReplaceAll(bench.path[1:], "?", "_"), bench.clients), func(b *testing.B) {
			request(b, socket, bench.path, bench.clients)
		})
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	open, _ := os.ReadDir("/proc/self/fd")
	b.Logf("after: %d MiB in use, %d MiB of the system's, %d descriptors, %d samples held, %d taken, %d shared",
		m.HeapInuse>>20, m.Sys>>20, len(open), s.sampler.held.Load(), s.sampler.taken.Load(), s.sampler.reused.Load())
}

func request(b *testing.B, socket, path string, clients int) {
	client := Client{Socket: socket, kept: newHTTPClient(socket, false)}
	defer client.Close()
	turns := make(chan bool)
	var mu sync.Mutex
	var times []time.Duration
	var size int64
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range turns {
				begun := time.Now()
				res, err := client.get(context.Background(), path, nil)
				if err != nil {
					b.Error(err)
					continue
				}
				n, err := io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if err != nil {
					b.Error(err)
				}
				mu.Lock()
				times, size = append(times, time.Since(begun)), n
				mu.Unlock()
			}
		})
	}
	for b.Loop() {
		turns <- true
	}
	close(turns)
	all.Wait()
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(len(times))/b.Elapsed().Seconds(), "requests/s")
	b.ReportMetric(float64(size), "bytes")
}

// serveMany serves n virtual servers with an interface each, kept open.
func serveMany(b *testing.B, n int) (*Server, string) {
	h := lab.New(b)
	var add, del strings.Builder
	var sources []stats.Source
	for id := range n {
		fmt.Fprintf(&add, "netns add vs%d\n", id+1)
		fmt.Fprintf(&del, "netns delete vs%d\n", id+1)
		sources = append(sources, stats.Source{ID: id + 1, Name: fmt.Sprint("server", id+1), Path: path(id + 1)})
	}
	batch := func(text string) {
		file := b.TempDir() + "/batch"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
		h.Run(b, "ip", "-batch", file)
	}
	batch(add.String())
	b.Cleanup(func() { batch(del.String()) })
	var reader stats.Reader
	changes, err := nsutil.WatchMounts(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		for range changes {
			reader.Recheck()
		}
	}()
	b.Cleanup(func() { reader.Close() })
	s := serverOf(sources...)
	s.Reader = &reader
	socket := b.TempDir() + "/ipmd.sock"
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.ListenAndServe(ctx, socket) }()
	b.Cleanup(func() { cancel(); <-ended })
	for {
		if c, err := connect(b.Context(), socket); err == nil {
			c.Close()
			return s, socket
		}
		time.Sleep(time.Millisecond)
	}
}
