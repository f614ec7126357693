package push

import (
	"bytes"
	"math"
	"slices"
	"time"

	"github.com/golang/snappy"
	"google.golang.org/protobuf/encoding/protowire"
)

// maxSeries is how many series one request has: as many as Prometheus itself sends.
const maxSeries = 2000

// A requestWriter makes remote write's requests of the text format that is written
// to it, with one time and some labels more for all series. Numbers of fields are
// those of prompb/remote.proto and prompb/types.proto; they are few, and will not
// change: generated code would weigh more than all the rest of this package.
type requestWriter struct {
	labels []label
	millis int64

	line     []byte // begun
	body     []byte
	series   int // in body
	total    int
	requests [][]byte // each compressed

	scratch, inner []byte
	sorted         []label
}

func newRequestWriter(labels []label, at time.Time) *requestWriter {
	return &requestWriter{labels: labels, millis: at.UnixMilli()}
}

// Write takes any part of a text. The error is that a line is not in the format.
func (w *requestWriter) Write(p []byte) (int, error) {
	n := len(p)
	for {
		part, rest, ok := bytes.Cut(p, []byte("\n"))
		w.line = append(w.line, part...)
		if !ok {
			return n, nil
		}
		if err := w.add(w.line); err != nil {
			return 0, err
		}
		w.line, p = w.line[:0], rest
	}
}

func (w *requestWriter) add(line []byte) error {
	if len(line) == 0 || line[0] == '#' {
		return nil
	}
	labels, value, err := parseSample(line, w.sorted[:0])
	if err != nil {
		return err
	}
	// Remote write wants them sorted, and each once: a series' own come first.
	labels = append(labels, w.labels...)
	slices.SortStableFunc(labels, func(a, b label) int { return bytes.Compare(a.name, b.name) })
	labels = slices.CompactFunc(labels, func(a, b label) bool { return bytes.Equal(a.name, b.name) })
	w.sorted = labels
	w.body = appendMessage(w.body, 1, w.timeSeries(labels, value))
	w.series++
	w.total++
	if w.series == maxSeries {
		w.cut()
	}
	return nil
}

func (w *requestWriter) timeSeries(labels []label, value float64) []byte {
	series := w.scratch[:0]
	for _, l := range labels {
		w.inner = appendMessage(w.inner[:0], 1, l.name)
		w.inner = appendMessage(w.inner, 2, l.value)
		series = appendMessage(series, 1, w.inner)
	}
	sample := protowire.AppendTag(w.inner[:0], 1, protowire.Fixed64Type)
	sample = protowire.AppendFixed64(sample, math.Float64bits(value))
	sample = protowire.AppendTag(sample, 2, protowire.VarintType)
	sample = protowire.AppendVarint(sample, uint64(w.millis))
	w.inner, w.scratch = sample, appendMessage(series, 2, sample)
	return w.scratch
}

// appendMessage appends a field of bytes: a message or a string.
func appendMessage(b []byte, field protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), value)
}

func (w *requestWriter) cut() {
	if w.series > 0 {
		w.requests = append(w.requests, snappy.Encode(nil, w.body))
		w.body, w.series = w.body[:0], 0
	}
}

// finish is all that was written, as bodies of requests.
func (w *requestWriter) finish() batch {
	w.cut()
	return batch{requests: w.requests, series: w.total}
}
