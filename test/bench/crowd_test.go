package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/bench/floor"
)

// crowd measures what is done to many virtual servers: first some turns of making and
// destroying all of them, then what is done while they are there.
func (b *bench) crowd(t *testing.T, size, target int) {
	documents := b.documents(t, size)
	apply := func() time.Duration { return b.vsrun(t, "apply", "--no-probe", "-f", documents) }
	destroy := func() time.Duration { return b.vsrun(t, "destroy", "--all") }
	servers := numbers(size)
	var made, gone, memory, madeBare, goneBare, memoryBare []float64
	each := func(took time.Duration) float64 { return micros(took) / float64(size) }
	for start := time.Now(); len(made) < b.turns(5) && time.Since(start) < patience; {
		before := b.quiet(t)
		made = append(made, each(apply()))
		memory = append(memory, (kernelMemory(t)-before)/float64(size))
		b.quiet(t)
		gone = append(gone, each(destroy()))
		before = b.quiet(t)
		madeBare = append(madeBare, each(b.floor.time(t, func(h *floor.Host) error { return createAll(h, servers) })))
		memoryBare = append(memoryBare, (kernelMemory(t)-before)/float64(size))
		b.quiet(t)
		goneBare = append(goneBare, each(b.floor.time(t, func(h *floor.Host) error { return h.Drop(servers) })))
	}
	goal := func(g *Goal) *Goal {
		if size != target {
			return nil
		}
		return g
	}
	b.tell(row("create", applied, size, "µs each", made, "the bare system calls", madeBare, goal(ratio(1.3))))
	b.growth(size, target)
	b.tell(row("destroy", destroyed, size, "µs each", gone,
		"the bare system calls: umount all, wait for the port", goneBare, goal(ratio(1.5))))
	b.tell(row("memory", "kernel memory of a virtual server without services", size, "KiB", memory, "the bare namespace", memoryBare, nil))

	apply()
	defer destroy()
	b.quiet(t)
	b.looks(t, servers, goal)
	b.reading(t, servers)
	if size != target {
		return
	}
	b.metrics(t, size)
	b.daemons(t, size)
	b.one(t, size)
}

// growth compares the cost of each among few and among many.
func (b *bench) growth(size, target int) {
	var few, many *Row
	for k := range b.report.Rows {
		if r := &b.report.Rows[k]; r.What == applied {
			if few == nil {
				few = r
			}
			many = r
		}
	}
	if size == target {
		b.tell(row("create", fmt.Sprintf("what each takes more than among %d", few.Size), size, "×",
			[]float64{many.Ours.Median / few.Ours.Median}, "the bare system calls", []float64{many.Theirs.Median / few.Theirs.Median}, ratio(1)))
	}
}

// looks measures what finds that nothing is to be done.
func (b *bench) looks(t *testing.T, servers []floor.Server, goal func(*Goal) *Goal) {
	each := func(took time.Duration) float64 { return micros(took) / float64(len(servers)) }
	taken := race(b.turns(3),
		func() float64 { return each(b.vsrun(t, "diff")) },
		func() float64 {
			return each(b.floor.time(t, func(h *floor.Host) error {
				for _, s := range servers {
					if _, err := h.Look(s); err != nil {
						return err
					}
				}
				return nil
			}))
		},
		func() float64 { return each(b.vsrun(t, "enable", "--all", "--no-probe")) },
	)
	const dumps = "bare dumps of links, addresses and routes"
	b.tell(row("look", compared, len(servers), "µs each", taken[0], dumps, taken[1], goal(ratio(1.5))))
	b.tell(row("look", "vsrun enable --all with nothing to do", len(servers), "µs each", taken[2], dumps, taken[1], goal(ratio(1.5))))
	ours := 0
	for _, name := range []string{"vsrun", "vs-init", "vsd", "ipmd"} {
		ours += len(pidsOf(t, name))
	}
	b.tell(row("memory", "processes of vsrun's, when no virtual server has services", len(servers), "processes", []float64{float64(ours)}, "", nil, goal(figure(0))))
}

// documents writes one for each virtual server.
func (b *bench) documents(t *testing.T, size int) (dir string) {
	dir = t.TempDir()
	for id := 1; id <= size; id++ {
		text, err := json.Marshal(server(id))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%04d.json", id)), text, 0o644))
	}
	return dir
}

func numbers(size int) (servers []floor.Server) {
	for n := range size {
		servers = append(servers, floor.Number(n+1))
	}
	return servers
}

func createAll(h *floor.Host, servers []floor.Server) error {
	for _, s := range servers {
		if err := h.Create(s); err != nil {
			return err
		}
	}
	return nil
}

// quiet waits until the port has sent nothing for a while, three seconds at most: new
// interfaces tell of themselves, and a frame for all is copied to each. It returns the
// kernel's memory then. What was dropped before is off it: a namespace that is made and
// dropped has those before it forgotten.
func (b *bench) quiet(t *testing.T) (memory float64) {
	sent, since := "", time.Now()
	for end := time.Now().Add(3 * time.Second); !b.quick && time.Now().Before(end) && time.Since(since) < 300*time.Millisecond; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile("/sys/class/net/" + port + "/statistics/tx_packets")
		must(t, err)
		if now := string(text); now != sent {
			sent, since = now, time.Now()
		}
	}
	for range 2 {
		b.floor.time(t, func(h *floor.Host) error {
			if err := h.Create(floor.Number(lone)); err != nil {
				return err
			}
			return h.Drop([]floor.Server{floor.Number(lone)})
		})
	}
	return kernelMemory(t)
}
