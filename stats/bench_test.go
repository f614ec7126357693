package stats

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/test/lab"
)

// BenchmarkReader reads namespaces in turn. The floor is the same files read by
// nothing but pread(2), in the same run.
func BenchmarkReader(b *testing.B) {
	h := lab.New(b)
	had := 0
	for _, count := range []int{1, 100, 1000} {
		for ; had < count; had++ {
			ns, err := nsutil.New()
			if err == nil {
				err = ns.Publish(path(had))
				ns.Close()
			}
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func(id int) func() { return func() { nsutil.Unpublish(path(id)) } }(had))
		}
		_ = h
		r := reader(b)
		var sources []Source
		samples := make([]Sample, count)
		for id := range count {
			sources = append(sources, source(id))
			again(b, r, id, &samples[id])
		}
		b.Run(fmt.Sprintf("%d", count), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if err := r.Read(sources[i%count], &samples[i%count]); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
		b.Run(fmt.Sprintf("%d-floor", count), func(b *testing.B) {
			buf := make([]byte, 32<<10)
			i := 0
			for b.Loop() {
				for _, fd := range r.kept[sources[i%count].Path].open {
					if _, err := unix.Pread(fd, buf, 0); err != nil {
						b.Fatal(err)
					}
				}
				i++
			}
		})
		r.Close()
	}
}
