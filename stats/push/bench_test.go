package push

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// BenchmarkRequests makes requests of a virtual server's series, 400 of them.
func BenchmarkRequests(b *testing.B) {
	var text strings.Builder
	for k := range 400 {
		fmt.Fprintf(&text, "vsrun_netstat_TcpExt_Counter%d{vs=\"8\",name=\"finance\"} %d\n", k, k*k)
	}
	b.ReportAllocs()
	b.SetBytes(int64(text.Len()))
	var size, n int
	for b.Loop() {
		w := newRequestWriter(labelled("instance", "node1.example", "job", "vsrun"), time.Now())
		w.Write([]byte(text.String()))
		size += w.finish().size()
		n++
	}
	b.ReportMetric(float64(size)/float64(n), "bytes-sent")
}
