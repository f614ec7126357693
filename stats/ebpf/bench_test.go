package ebpf

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/stats"
	"github.com/vsrun/vsrun/test/lab"
)

// BenchmarkReader reads all of many namespaces, by itself and as a stats.Reader uses it,
// which reads sockets from /proc. An operation is one namespace.
func BenchmarkReader(b *testing.B) {
	bulk := openReader(b)
	lab.New(b)
	var reader stats.Reader
	b.Cleanup(func() { reader.Close() })
	reader.Use(bulk)
	var sources []stats.Source
	var ids []nsutil.ID
	for _, count := range []int{1, 100, 1000} {
		for len(sources) < count {
			src, id := newNamespace(b, len(sources))
			sources, ids = append(sources, src), append(ids, id)
			bulk.Want(id)
		}
		samples := make([]stats.Sample, count)
		every := func(b *testing.B, read func(k int, since time.Time)) {
			b.ReportAllocs()
			since, began := time.Now(), processorTime(b)
			for i := 0; b.Loop(); i++ {
				if i%count == 0 {
					since = time.Now()
				}
				read(i%count, since)
			}
			b.ReportMetric(float64(processorTime(b)-began)/float64(b.N), "cpu-ns/op")
		}
		b.Run(fmt.Sprintf("alone/%d", count), func(b *testing.B) {
			every(b, func(k int, since time.Time) { bulk.Read(ids[k], 0, since, &samples[k]) })
		})
		b.Run(fmt.Sprintf("all/%d", count), func(b *testing.B) {
			every(b, func(k int, since time.Time) {
				if err := reader.ReadAmong(sources[k], &samples[k], since); err != nil {
					b.Fatal(err)
				}
			})
		})
		b.Run(fmt.Sprintf("proc/%d", count), func(b *testing.B) {
			every(b, func(k int, since time.Time) {
				if err := reader.Read(sources[k], &samples[k]); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}

// processorTime is what this process has used: a busy machine makes the other times longer.
func processorTime(b *testing.B) time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func newNamespace(b *testing.B, id int) (stats.Source, nsutil.ID) {
	b.Helper()
	path := fmt.Sprintf("/run/netns/vs%d", id)
	ns, err := nsutil.New()
	if err != nil {
		b.Fatal(err)
	}
	defer ns.Close()
	if err := ns.Publish(path); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { nsutil.Unpublish(path) })
	inode, err := ns.ID()
	if err != nil {
		b.Fatal(err)
	}
	return stats.Source{ID: id, Name: fmt.Sprintf("vs%d", id), Path: path}, inode
}
