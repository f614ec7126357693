package e2e_test

import (
	"testing"
	"time"

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
}

type counters struct {
	RxBytes, RxPackets, RxErrors, RxDropped, TxBytes, TxPackets, TxErrors, TxDropped uint64
}

func readStats(t *testing.T, h *lab.Host, args ...string) []sample {
	t.Helper()
	return decoded[[]sample](t, h.MustVsrun(t, append([]string{"stats", "-o", "json"}, args...)...))
}
