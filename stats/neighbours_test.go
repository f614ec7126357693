package stats

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

func TestNeighbours(t *testing.T) {
	h := lab.New(t)
	pair(t, h)
	h.Run(t, "ip", "-n", "vs1", "neighbour", "add", "192.0.2.77", "lladdr", "02:00:00:00:00:77", "nud", "stale", "dev", "eth0")
	m, err := Neighbours(path(1))
	want := MIB{
		{"inet", []Counter{{"incomplete", 0}, {"reachable", 0}, {"stale", 1}, {"delay", 0}, {"probe", 0}, {"failed", 0}, {"permanent", 2}}},
		{"inet6", []Counter{{"incomplete", 0}, {"reachable", 0}, {"stale", 0}, {"delay", 0}, {"probe", 0}, {"failed", 0}, {"permanent", 0}}},
	}
	if diff := cmp.Diff(want, m); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, err := Neighbours(path(7)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a namespace: %v", err)
	}
}

// Whatever a dump holds, there are not more neighbours than messages.
func FuzzNeighbours(f *testing.F) {
	f.Add([]byte{28, 0, 0, 0, 28, 0, 2, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 1})
	f.Fuzz(func(t *testing.T, dump []byte) {
		var g Group
		if g.countNeighbours(dump, unix.AF_INET) != nil {
			return
		}
		sum := 0
		for _, c := range g.Counters {
			sum += int(c.Value)
		}
		if sum > len(dump)/unix.NLMSG_HDRLEN {
			t.Errorf("%d neighbours in %d bytes", sum, len(dump))
		}
	})
}
