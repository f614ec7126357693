package cgroup

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Limits are those that it has.
func (g *Group) Limits() (l Limits) {
	l.Memory = amount(g.text("memory.max", "memory.limit_in_bytes"))
	l.Tasks = int(amount(g.text("pids.max")))
	quota, period, v2 := strings.Cut(g.text("cpu.max", "cpu.cfs_quota_us"), " ")
	if !v2 {
		period = g.text("cpu.cfs_period_us")
	}
	if p := amount(period); p > 0 {
		l.CPU = int(amount(quota) * 100 / p)
	}
	for _, line := range lines(g.text("io.max")) {
		io := IO{Device: line[0]}
		for _, word := range line[1:] {
			name, n, _ := strings.Cut(word, "=")
			if k := slices.Index(rates, name+"="); k >= 0 {
				*io.rate(k) = amount(n)
			}
		}
		l.IO = append(l.IO, io)
	}
	for rate, file := range throttles {
		for _, line := range lines(g.text(file)) {
			k := slices.IndexFunc(l.IO, func(io IO) bool { return io.Device == line[0] })
			if k < 0 {
				k = len(l.IO)
				l.IO = append(l.IO, IO{Device: line[0]})
			}
			*l.IO[k].rate(rate) = amount(line[1])
		}
	}
	return l
}

// Differing are the controllers by which other limits are set than these.
func (l Limits) Differing(have Limits) (controllers []string) {
	// The kernel counts memory in pages.
	for _, c := range []struct {
		name string
		same bool
	}{
		{"memory", l.Memory/int64(os.Getpagesize()) == have.Memory/int64(os.Getpagesize())},
		{"cpu", l.CPU == have.CPU},
		{"tasks", l.Tasks == have.Tasks},
		{"io", slices.Equal(byDevice(l.IO), byDevice(have.IO))},
	} {
		if !c.same {
			controllers = append(controllers, c.name)
		}
	}
	return controllers
}

func byDevice(list []IO) []IO {
	return slices.SortedFunc(slices.Values(list), func(a, b IO) int { return cmp.Compare(a.Device, b.Device) })
}

func (io *IO) rate(k int) *int64 {
	return []*int64{&io.ReadBytes, &io.WriteBytes, &io.ReadOps, &io.WriteOps}[k]
}

// text is what is in the first of these files that there is in any hierarchy.
func (g *Group) text(files ...string) string {
	for _, file := range files {
		for _, d := range g.in() {
			if text, err := read(d, file); !errors.Is(err, fs.ErrNotExist) {
				return strings.TrimSpace(string(text))
			}
		}
	}
	return ""
}

func lines(text string) (list [][]string) {
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 1 {
			list = append(list, words)
		}
	}
	return list
}

// amount is a limit as the kernel writes it; 0 is none, for which v2 has a word, and v1
// less than nothing, or as much memory as can be counted.
func amount(text string) int64 {
	const countless = 1 << 62
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n >= countless {
		return 0
	}
	return n
}

// Dirs are the directories that the limits of a virtual server are in, and those of its
// services.
func (t *Tree) Dirs(name string) (dirs []string) {
	for _, path := range t.paths {
		dir := place(path, name)
		below, _ := filepath.Glob(filepath.Join(dir, "*"+ofService))
		if exists(dir) {
			dirs = append(append(dirs, dir), below...)
		}
	}
	return dirs
}
