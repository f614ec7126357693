package cgroup

import (
	"fmt"
	"strings"
	"testing"
)

// The words for the kernel, as cgroup-v2.rst and cgroup-v1/ have them.
func TestKnobs(t *testing.T) {
	text := func(list []setting) string {
		var lines []string
		for _, s := range list {
			lines = append(lines, s.file+"="+s.value)
		}
		return strings.Join(lines, ", ")
	}
	full := Limits{Memory: 1 << 20, CPU: 150, Tasks: 9}
	for _, c := range []struct {
		knob   knob
		v2, v1 string
	}{
		{full.knobs()[0], "memory.max=1048576", "memory.limit_in_bytes=1048576"},
		{full.knobs()[1], "cpu.max=150000 100000", "cpu.cfs_period_us=100000, cpu.cfs_quota_us=150000"},
		{full.knobs()[2], "pids.max=9", ""}, // the same in v1
		{Limits{}.knobs()[0], "memory.max=max", "memory.limit_in_bytes=-1"},
		{Limits{}.knobs()[1], "cpu.max=max 100000", "cpu.cfs_period_us=100000, cpu.cfs_quota_us=-1"},
		{Limits{}.knobs()[2], "pids.max=max", ""},
		{IO{Device: "8:0", ReadBytes: 5, WriteOps: 7}.knob(), "io.max=8:0 rbps=5 wbps=max riops=max wiops=7",
			"blkio.throttle.read_bps_device=8:0 5, blkio.throttle.write_bps_device=8:0 0, blkio.throttle.read_iops_device=8:0 0, blkio.throttle.write_iops_device=8:0 7"},
	} {
		if v2, v1 := text(c.knob.v2), text(c.knob.v1); v2 != c.v2 || v1 != c.v1 {
			t.Errorf("%s: %q and %q, want %q and %q", c.knob.controller, v2, v1, c.v2, c.v1)
		}
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ file, text, want string }{
		{"memory.current", "4096\n", "memory 4096"},
		{"memory.events", "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 9\n", "oomKills 2"},
		{"memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n", "oomKills 4"},
		{"cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\n", "cpu 30, cpuUser 20, cpuSystem 10"},
		{"cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n",
			"cpu 30, cpuUser 20, cpuSystem 10, throttled 0"},
		{"cpu.stat", "nr_periods 1\nnr_throttled 1\nthrottled_time 5000\n", "throttled 5"},
		{"cpuacct.usage", "123456\n", "cpu 123"},
		{"io.stat", "", "readBytes 0, writeBytes 0, readOps 0, writeOps 0"},
		{"io.stat", "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n8:0 rbytes=10 wbytes=20 rios=30 wios=40 dbytes=5 dios=3\n",
			"readBytes 11, writeBytes 22, readOps 33, writeOps 44"},
		{"blkio.throttle.io_service_bytes_recursive", "8:0 Read 1\n8:0 Write 2\n8:0 Sync 3\n8:0 Total 3\n8:16 Read 10\nTotal 13\n",
			"readBytes 11, writeBytes 2"},
		{"blkio.throttle.io_serviced_recursive", "Total 0\n", "readOps 0, writeOps 0"},
		{"pids.current", "", ""},
		{"memory.current", "max\n", ""},
	} {
		var r reading
		for _, f := range countFiles {
			if f.name == c.file+"\x00" {
				f.parse(&r, []byte(c.text))
			}
		}
		var u Use
		r.into(&u)
		var words []string
		for _, f := range []struct {
			name string
			n    *int64
		}{
			{"memory", u.Memory}, {"memoryPeak", u.MemoryPeak}, {"tasks", u.Tasks}, {"cpu", u.CPU}, {"cpuUser", u.CPUUser},
			{"cpuSystem", u.CPUSystem}, {"throttled", u.Throttled}, {"readBytes", u.ReadBytes}, {"writeBytes", u.WriteBytes},
			{"readOps", u.ReadOps}, {"writeOps", u.WriteOps}, {"oomKills", u.OOMKills},
		} {
			if f.n != nil {
				words = append(words, fmt.Sprint(f.name, " ", *f.n))
			}
		}
		if got := strings.Join(words, ", "); got != c.want {
			t.Errorf("%s %q: %s, want %s", c.file, c.text, got, c.want)
		}
	}
}

// Whatever a file holds, its numbers are read, or none is.
func FuzzParse(f *testing.F) {
	f.Add("usage_usec 7\nuser_usec 5\nthrottled_usec 0\n")
	f.Add("8:0 rbytes=1 wbytes=2 rios=3 wios=4\n8:16 rbytes=5\n")
	f.Add("8:0 Read 9223372036854775808\n")
	f.Fuzz(func(t *testing.T, text string) {
		for k := range countFiles {
			var r reading
			countFiles[k].parse(&r, []byte(text))
			for n, v := range r.values {
				if v < 0 {
					t.Errorf("%s: figure %d is %d", countFiles[k].name, n, v)
				}
			}
		}
	})
}

func TestBothLimits(t *testing.T) {
	a := IO{Device: "8:0", ReadBytes: 5, WriteBytes: 9, WriteOps: 7}
	b := IO{Device: "8:0", ReadBytes: 6, WriteBytes: 3, ReadOps: 8}
	want := IO{Device: "8:0", ReadBytes: 5, WriteBytes: 3, ReadOps: 8, WriteOps: 7}
	if got := a.Both(b); got != want || b.Both(a) != want {
		t.Errorf("%+v", got)
	}
}
