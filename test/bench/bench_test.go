package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/runtime"
	"github.com/vsrun/vsrun/test/bench/floor"
	"github.com/vsrun/vsrun/test/lab"
)

// tools are the programs that are measured beside vsrun; see the Makefile.
const toolsVar = "VSRUN_BENCH_TOOLS"

func TestMain(m *testing.M) {
	os.Setenv("PATH", os.Getenv(toolsVar)+":"+os.Getenv("PATH"))
	lab.Main(m)
}

const port = "eth1"

// A bench is one run, on one host.
type bench struct {
	*lab.Host
	segment *lab.Segment
	runtime *runtime.Runtime
	floor   *floorThread
	report  Report
	quick   bool // a few turns, which say nothing
}

// TestBench measures every row, tells of each at once, and writes docs/bench.json, and what
// is made of it, below VSRUN_BENCH_OUT.
func TestBench(t *testing.T) {
	lab.NeedRoot(t, "what it measures is other than in the user namespace of an ordinary user")
	lab.Require(t, "bare", "cnitool", "macvlan", "static", "prometheus-node-exporter", "nsenter")
	b := open(t)
	sizes := []int{2}
	if text := os.Getenv("VSRUN_BENCH"); text != "" {
		size, err := strconv.Atoi(text)
		if err != nil || size < 100 || size > most {
			t.Fatalf("VSRUN_BENCH is %q: how many virtual servers? 100 to %d", text, most)
		}
		sizes = scale(size)
	}
	b.quick = os.Getenv("VSRUN_BENCH") == ""
	b.report.Size = slices.Max(sizes)
	b.measure(t, sizes)
	b.check(t)
	if t.Failed() {
		return
	}
	if out := os.Getenv("VSRUN_BENCH_OUT"); out != "" {
		must(t, b.report.save(filepath.Join(out, "docs/bench.json")))
		must(t, Render(out))
	}
}

// check finds rows without a figure.
func (b *bench) check(t *testing.T) {
	rows := 0
	for _, r := range b.report.Rows {
		for _, s := range []*Spread{&r.Ours, r.Theirs} {
			if s != nil && !(s.Median >= 0) && r.Section != "memory" { // of so few it can be less than nothing
				t.Errorf("no figure: %s", r)
			}
		}
		rows++
	}
	if rows < 30 {
		t.Errorf("only %d rows", rows)
	}
}

// most leaves some numbers for those that are made and destroyed beside the crowd.
const most = 4000

// scale is the sizes to measure for curves up to one.
func scale(size int) (sizes []int) {
	for _, n := range []int{100, 250, 500, 1000, 2000} {
		if n < size {
			sizes = append(sizes, n)
		}
	}
	return append(sizes, size)
}

// measure takes the quick things first, then crowds, the largest last.
func (b *bench) measure(t *testing.T, sizes []int) {
	target := min(1000, slices.Max(sizes)) // that goals are about
	for _, part := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"one", func(t *testing.T) { b.one(t, 0) }},
		{"one with services", b.services},
		{"wire", b.wire},
	} {
		t.Run(part.name, part.do)
	}
	for _, size := range sizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) { b.crowd(t, size, target) })
	}
}

// open has every file in the memory of the throw-away host, so that nothing of it is left
// when it is interrupted, and no disk's time is in a figure.
func open(t *testing.T) *bench {
	t.Setenv("TMPDIR", "/run")
	h := lab.New(t)
	t.Cleanup(func() { os.RemoveAll(h.StateDir); os.RemoveAll(h.RunDir) })
	must(t, unix.Mount("tmpfs", "/var/lib", "tmpfs", 0, "")) // cnitool's notes go there
	t.Cleanup(func() { must(t, unix.Unmount("/var/lib", unix.MNT_DETACH)) })
	b := &bench{Host: h, segment: h.Segment(port)}
	var err error
	if b.runtime, err = runtime.Open(h.StateDir, h.RunDir, h.NetnsDir); err != nil {
		t.Fatal(err)
	}
	b.runtime.NoProbe = true
	b.runtime.Init = filepath.Join(lab.Programs(t), "vs-init")
	b.floor = openFloor(t, h)
	b.report.Version = strings.TrimSpace(strings.TrimPrefix(h.MustVsrun(t, "version"), "vsrun "))
	b.report.Processors = goruntime.NumCPU()
	b.report.Kernel = kernel(t)
	return b
}

// kernel is its version without what a distribution has added.
func kernel(t *testing.T) string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	release, _, _ := strings.Cut(unix.ByteSliceToString(name.Release[:]), "-")
	return release
}

// tell keeps a row and shows it.
func (b *bench) tell(r Row) {
	b.report.Rows = append(b.report.Rows, r)
	fmt.Printf("%s  %s\n", time.Now().Format(time.TimeOnly), r)
}

// turns is how often something is measured: fewer times when nobody looks at what
// comes out.
func (b *bench) turns(n int) int {
	if b.quick {
		return 2
	}
	return n
}

// A contender does the work once, and returns what that took, in the unit of its row.
type contender func() float64

// patience is for one race: what takes long has fewer turns.
const patience = 30 * time.Second

// race lets each have its turn, again and again, so that whatever else the machine does
// meets all of them; the first turn of each is not counted.
func race(turns int, contenders ...contender) [][]float64 {
	taken := make([][]float64, len(contenders))
	start := time.Now()
	for turn := -1; turn < 1 || turn < turns && time.Since(start) < patience; turn++ {
		for k, contender := range contenders {
			if took := contender(); turn >= 0 {
				taken[k] = append(taken[k], took)
			}
		}
	}
	return taken
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
func millis(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

func timed(do func()) time.Duration {
	start := time.Now()
	do()
	return time.Since(start)
}

// must fails the test for an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A floorThread has a floor.Host, on a thread that nothing else runs on: vsrun's own
// work would pay for being switched to from one that is locked.
type floorThread struct{ work chan func(*floor.Host) }

func openFloor(t *testing.T, h *lab.Host) *floorThread {
	f := &floorThread{make(chan func(*floor.Host))}
	opened, closed := make(chan error), make(chan struct{})
	go func() {
		defer close(closed)
		host, err := floor.Open(h.NetnsDir, port)
		if opened <- err; err != nil {
			return
		}
		for do := range f.work {
			do(host)
		}
		host.Close()
	}()
	must(t, <-opened)
	t.Cleanup(func() { close(f.work); <-closed })
	return f
}

// time is how long do takes.
func (f *floorThread) time(t testing.TB, do func(*floor.Host) error) (took time.Duration) {
	t.Helper()
	var err error
	done := make(chan struct{})
	f.work <- func(h *floor.Host) {
		took = timed(func() { err = do(h) })
		close(done)
	}
	<-done
	must(t, err)
	return took
}

// command is how long a command takes that is to succeed. Its output goes to a file, so
// that nobody here has work to do meanwhile.
func command(t testing.TB, argv ...string) time.Duration {
	t.Helper()
	return commandWith(t, nil, argv...)
}

func commandWith(t testing.TB, environment []string, argv ...string) (took time.Duration) {
	t.Helper()
	out, err := os.CreateTemp("", "output")
	must(t, err)
	defer os.Remove(out.Name())
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	if environment != nil {
		cmd.Env = append(os.Environ(), environment...)
	}
	took = timed(func() { err = cmd.Run() })
	if err != nil {
		text, _ := os.ReadFile(out.Name())
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, bytes.TrimSpace(text))
	}
	return took
}

// vsrun is how long a command of vsrun takes.
func (b *bench) vsrun(t testing.TB, args ...string) time.Duration {
	t.Helper()
	return command(t, append([]string{filepath.Join(lab.Programs(t), "vsrun")}, args...)...)
}
