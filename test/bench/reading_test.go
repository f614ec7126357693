package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vsrun/vsrun/stats"
	"github.com/vsrun/vsrun/test/bench/floor"
)

// files are those of counters that this kernel has, of what stats reads.
func files() (names []string) {
	for _, name := range []string{"dev", "snmp", "snmp6", "netstat", "sockstat", "sockstat6", "stat/nf_conntrack"} {
		if _, err := os.Stat("/proc/thread-self/net/" + name); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// reading compares reading all of them again and again with a loop that reads the same
// files and adds up what is in them.
func (b *bench) reading(t *testing.T, servers []floor.Server) {
	const section = "read"
	size := len(servers)
	var reader stats.Reader
	defer reader.Close()
	sources, samples := b.sources(servers), make([]stats.Sample, size)
	all := func() {
		for i := range sources {
			must(t, reader.Read(sources[i], &samples[i]))
		}
	}
	all()
	names := files()
	kept := b.counters(t, servers, names)
	defer closeAll(kept)
	taken := race(b.turns(max(10, min(500, 5000/size))),
		func() float64 { return micros(timed(all)) / float64(size) },
		func() float64 {
			return micros(b.floor.time(t, func(*floor.Host) error {
				for _, c := range kept {
					if _, err := c.Read(); err != nil {
						return err
					}
				}
				return nil
			})) / float64(len(kept))
		})
	b.tell(row(section, scraped, size, "µs each", taken[0],
		fmt.Sprintf("a loop that preads the same %d files", len(names)), taken[1], ratio(1.2)))
	b.tell(row(section, "allocations of stats.Reader", size, "each", []float64{testing.AllocsPerRun(b.turns(5), all) / float64(size)}, "", nil, figure(0)))
}

func (b *bench) sources(servers []floor.Server) (sources []stats.Source) {
	for _, s := range servers {
		sources = append(sources, stats.Source{ID: len(sources) + 1, Name: s.Name, Path: filepath.Join(b.NetnsDir, s.Name)})
	}
	return sources
}

// mostFiles is how many descriptors the loop takes, so that there are some for the Reader.
const mostFiles = 6000

// counters opens the files of as many servers as may be, evenly chosen.
func (b *bench) counters(t *testing.T, servers []floor.Server, names []string) (kept []floor.Counters) {
	step := max(1, len(servers)*len(names)/mostFiles)
	b.floor.time(t, func(h *floor.Host) error {
		for k := 0; k < len(servers); k += step {
			c, err := h.OpenCounters(servers[k], names...)
			if err != nil {
				return err
			}
			kept = append(kept, c)
		}
		return nil
	})
	return kept
}

func closeAll(kept []floor.Counters) {
	for _, c := range kept {
		c.Close()
	}
}

// otherReaders compares reading one that nobody keeps open with what else tells of it.
func (b *bench) otherReaders(t *testing.T, server floor.Server) {
	src := b.sources([]floor.Server{server})[0]
	cat := []string{"ip", "netns", "exec", src.Name, "cat"}
	for _, name := range files() {
		cat = append(cat, "/proc/net/"+name)
	}
	inside := b.In(src.Name)
	exporter := inside.Start(t, "prometheus-node-exporter", "--web.listen-address=127.0.0.1:9100", "--collector.disable-defaults",
		"--collector.netdev", "--collector.netstat", "--collector.netstat.fields=.*", "--collector.sockstat", "--log.level=error")
	defer exporter.Stop()
	scrape := func() error { _, err := inside.HTTPGet("http://127.0.0.1:9100/metrics"); return err }
	await(t, "a node_exporter", scrape)
	taken := race(b.turns(20),
		func() float64 {
			return micros(timed(func() { _, err := stats.Read(src); must(t, err) }))
		},
		func() float64 { return micros(b.vsrun(t, "stats", src.Name, "--direct", "-o", "json")) },
		func() float64 { return micros(command(t, cat...)) },
		func() float64 { return micros(timed(func() { must(t, scrape()) })) },
	)
	const section, exec = "read", "ip netns exec vs8 cat, the same files"
	b.tell(row(section, "stats.Read of one, nothing kept open", 1, "µs", taken[0], exec, taken[2], nil))
	b.tell(row(section, "vsrun stats 8 --direct, as a command", 1, "µs", taken[1], exec, taken[2], nil))
	b.tell(row(section, "stats.Read of one, nothing kept open", 1, "µs", taken[0], "a node_exporter that runs in it, asked once", taken[3], nil))
	b.tell(row("memory", "for counters of one: vsrun has no process", 1, "MB", []float64{0}, "a node_exporter", []float64{resident(t, exporter.Pid())}, nil))
}

// await waits until do succeeds.
func await(t testing.TB, what string, do func() error) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not answer: %v", what, err)
		}
	}
}
