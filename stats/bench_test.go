package stats

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/test/lab"
)

// BenchmarkReader reads namespaces in turn, and beside each the files of another one by
// nothing but pread(2): that is the floor. Both are medians.
func BenchmarkReader(b *testing.B) {
	lab.New(b)
	var sources []Source
	for _, count := range []int{1, 100, 1000} {
		for len(sources) < count {
			sources = append(sources, benchmarked(b, len(sources)))
		}
		b.Run(fmt.Sprint(count), func(b *testing.B) { readBesideFloor(b, sources[:count]) })
	}
}

// benchmarked publishes a namespace until the benchmark ends.
func benchmarked(b *testing.B, id int) Source {
	b.Helper()
	ns, err := nsutil.New()
	if err != nil {
		b.Fatal(err)
	}
	defer ns.Close()
	if err := ns.Publish(path(id)); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { nsutil.Unpublish(path(id)) })
	return source(id)
}

func readBesideFloor(b *testing.B, sources []Source) {
	r := reader(b)
	samples := make([]Sample, len(sources))
	for i, src := range sources {
		if err := r.Read(src, &samples[i]); err != nil {
			b.Fatal(err)
		}
	}
	buf := make([]byte, 32<<10)
	var reader, floor []time.Duration
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		n := i % len(sources)
		begin := time.Now()
		if err := r.Read(sources[n], &samples[n]); err != nil {
			b.Fatal(err)
		}
		reader = append(reader, time.Since(begin))
		other := r.kept[sources[(n+len(sources)/2)%len(sources)].Path]
		begin = time.Now()
		for _, fd := range other.open {
			if fd < 0 {
				continue
			}
			if _, err := unix.Pread(fd, buf, 0); err != nil {
				b.Fatal(err)
			}
		}
		floor = append(floor, time.Since(begin))
	}
	slices.Sort(reader)
	slices.Sort(floor)
	median, least := reader[len(reader)/2], floor[len(floor)/2]
	b.ReportMetric(float64(median.Nanoseconds()), "ns/read")
	b.ReportMetric(float64(least.Nanoseconds()), "ns/floor")
	b.ReportMetric(float64(median)/float64(least), "×floor")
}
