package ipmd

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vsrun/vsrun/stats"
)

// A tally is what ipmd counts of its own work.
type tally struct {
	mu       sync.Mutex
	requests map[outcome]uint64
	times    map[string]*histogram // by path
}

type outcome struct {
	path   string
	status int
}

// A histogram has the counts of buckets, not yet added up.
type histogram struct {
	counts [len(bucketBounds) + 1]uint64
	sum    float64 // seconds
}

var bucketBounds = [...]float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10} // seconds

// answered counts a request.
func (t *tally) answered(path string, status int, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.requests == nil {
		t.requests, t.times = make(map[outcome]uint64), make(map[string]*histogram)
	}
	t.requests[outcome{path, status}]++
	h := t.times[path]
	if h == nil {
		h = new(histogram)
		t.times[path] = h
	}
	bucket, _ := slices.BinarySearch(bucketBounds[:], took.Seconds())
	h.counts[bucket]++
	h.sum += took.Seconds()
}

// A family is one of ipmd's own metrics.
type family struct{ name, kind, help string }

// head opens the family; a counter's name has the suffix in one of the formats only.
func (f family) head(b *strings.Builder, format stats.Format) {
	name := f.name
	if f.kind == "counter" && format == stats.PrometheusText {
		name += "_total"
	}
	fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", name, f.help, name, f.kind)
}

// ownMetrics are those of ipmd itself.
func (s *Server) ownMetrics(format stats.Format) []byte {
	var b strings.Builder
	s.tally.write(&b, format)
	for _, m := range []struct {
		family
		value uint64
	}{
		{family{"ipmd_samples_taken", "counter", "Readings of a virtual server's counters."}, s.sampler.taken.Load()},
		{family{"ipmd_samples_shared", "counter", "Times that an asker was given what was read for another."}, s.sampler.reused.Load()},
		{family{"ipmd_samples_failed", "counter", "Readings that failed."}, s.sampler.failed.Load()},
		{family{"ipmd_samples_held", "gauge", "Samples in memory."}, uint64(max(s.sampler.held.Load(), 0))},
		{family{"ipmd_connections", "gauge", "Open connections."}, uint64(s.conns.open())},
		{family{"ipmd_connections_refused", "counter", "Connections that were refused, or closed while idle, because of a limit."}, s.conns.refused.Load()},
		{family{"ipmd_watchers", "gauge", "Streams that are open."}, uint64(s.watchers.Load())},
	} {
		m.head(&b, format)
		suffix := ""
		if m.kind == "counter" {
			suffix = "_total"
		}
		fmt.Fprintf(&b, "%s%s %d\n", m.name, suffix, m.value)
	}
	if s.ReadBy != nil {
		way, why := s.ReadBy()
		f := family{"ipmd_reader_info", "gauge", "How counters are read, and why so."}
		f.head(&b, format)
		fmt.Fprintf(&b, "%s{reader=%q,reason=%q} 1\n", f.name, way, why)
	}
	if keys := s.credentials.current.Load(); keys != nil {
		f := family{"ipmd_certificate_expiry_timestamp_seconds", "gauge", "When the certificate that is shown to other nodes expires, in Unix time."}
		f.head(&b, format)
		fmt.Fprintf(&b, "%s %d\n", f.name, keys.certificate.Leaf.NotAfter.Unix())
	}
	return []byte(b.String())
}

func (t *tally) write(b *strings.Builder, format stats.Format) {
	t.mu.Lock()
	defer t.mu.Unlock()
	family{"ipmd_requests", "counter", "Requests that were answered."}.head(b, format)
	for _, o := range slices.SortedFunc(maps.Keys(t.requests), func(a, b outcome) int {
		return strings.Compare(a.path, b.path)*1000 + a.status - b.status
	}) {
		fmt.Fprintf(b, "ipmd_requests_total{path=%q,status=\"%d\"} %d\n", o.path, o.status, t.requests[o])
	}
	family{"ipmd_request_duration_seconds", "histogram", "Time until requests were answered."}.head(b, format)
	for _, path := range slices.Sorted(maps.Keys(t.times)) {
		h := t.times[path]
		var sum uint64
		for i, n := range h.counts {
			sum += n
			le := "+Inf"
			if i < len(bucketBounds) {
				le = fmt.Sprint(bucketBounds[i])
			}
			fmt.Fprintf(b, "ipmd_request_duration_seconds_bucket{path=%q,le=%q} %d\n", path, le, sum)
		}
		fmt.Fprintf(b, "ipmd_request_duration_seconds_sum{path=%q} %g\n", path, h.sum)
		fmt.Fprintf(b, "ipmd_request_duration_seconds_count{path=%q} %d\n", path, sum)
	}
}
