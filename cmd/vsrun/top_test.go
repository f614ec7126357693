package main

import (
	"math"
	"testing"
	"time"

	"github.com/vsrun/vsrun/cmd/vsrun/screen"
	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/stats"
)

func TestFiguresHaveThreeDigits(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.01: "<0.1", 0.5: "0.5", 1: "1", 9.96: "10", 12.34: "12.3", 99.96: "100", 999: "999", 999.6: "1K",
		1234: "1.23K", 1234567: "1.23M", 123456789: "123M", math.MaxUint64: "18.4E",
	} {
		if got := scaled(v, 1000); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
	for v, want := range map[float64]string{1023: "1K", 1000: "0.98K", 1536: "1.5K", 1 << 30: "1G"} {
		if got := scaled(v, 1024); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

// Whatever the size and the keys, what is drawn fits, and there is something.
func TestTopFitsEverySize(t *testing.T) {
	memory := int64(5 << 20)
	var samples []stats.Sample
	for id := 1; id < 40; id++ {
		samples = append(samples, stats.Sample{
			ID: id, Name: "a name that is rather long", Interfaces: []stats.Interface{{Name: "eth0", Counters: stats.Counters{RxBytes: uint64(id)}}},
			MIB: stats.MIB{{Name: "Ip", Counters: []stats.Counter{{Name: "InReceives", Value: 5}}}},
			Use: &cgroup.Use{Memory: &memory}, Services: []cgroup.ServiceUse{{Name: "web"}},
		})
	}
	keys := []screen.Key{'j', screen.Down, screen.PageDown, screen.End, screen.Up, screen.Home, screen.Enter, screen.PageDown, 'z', '/', 'I', screen.Enter, screen.Escape, screen.Escape, screen.Left, 'r', screen.Right}
	for width := 1; width < 130; width += 17 {
		for height := 1; height < 50; height += 7 {
			view := newTop("rate", &watch{interval: time.Second})
			for round, readings := range [][]stats.Sample{nil, samples, samples[3:9], samples} {
				for k := range readings {
					readings[k].Time = time.Unix(int64(round), 0)
				}
				view.take(reading{samples: readings})
				for _, key := range keys {
					if key == screen.Escape && !view.open {
						continue // with nothing to read there was nothing to look into
					}
					if view.press(key, height) {
						t.Fatalf("%v ends it", key)
					}
					if lines := view.lines(width, height); len(lines) == 0 || len(lines) > height {
						t.Fatalf("%d lines on %d rows after %v", len(lines), height, key)
					}
				}
				if view.open {
					t.Fatal("it is still looked into one")
				}
			}
		}
	}
}
