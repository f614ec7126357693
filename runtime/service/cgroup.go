package service

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Processes are kept together by cgroups (v2): vsrun/vs8/web.service below the
// root of the tree that the host shows, and init for the init itself. Where there
// is no such tree, or it may not be written, services run without: they are then
// known by their process groups alone.
const (
	cgroupTop     = "vsrun"
	cgroupInit    = "init"
	cgroupService = ".service" // no file of the kernel's has that ending
)

// leafName is the cgroup of a service, the nth: one that was killed is not used
// again. Linux 6.18 at least kills a process that is started into it, taking the
// number of times that its parent's cgroup was killed for its own (kill_seq,
// kernel/cgroup/cgroup.c, cgroup_css_set_fork).
func leafName(service string, n int) string {
	if n == 0 {
		return service + cgroupService
	}
	return fmt.Sprintf("%s.%d%s", service, n, cgroupService)
}

// controllers are those that limits and accounts need.
var controllers = []string{"memory", "cpu", "pids"}

// A cgroup is a directory of the tree, held open. A nil one has nothing and can
// nothing.
type cgroup struct{ root *os.Root }

// hostCgroup makes the cgroup of a virtual server, and hands down what controllers
// there are; nil where the host has no tree that can be written.
func hostCgroup(id int) *cgroup {
	top, err := cgroupTree()
	if err != nil {
		return nil
	}
	dir := filepath.Join(top, cgroupTop, fmt.Sprintf("vs%d", id))
	if os.MkdirAll(filepath.Join(dir, cgroupInit), 0o755) != nil {
		return nil
	}
	for _, path := range []string{top, filepath.Join(top, cgroupTop), dir} {
		handDown(path)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil
	}
	return &cgroup{root}
}

// handDown lets what is below have controllers, as far as they are there.
func handDown(path string) {
	for _, c := range controllers {
		f, err := os.OpenFile(filepath.Join(path, "cgroup.subtree_control"), os.O_WRONLY, 0)
		if err == nil {
			f.WriteString("+" + c)
			f.Close()
		}
	}
}

// cgroupTree is where the v2 tree is mounted.
func cgroupTree() (string, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 || fields[2] != "cgroup2" {
			continue
		}
		path := unescape(fields[1])
		var st unix.Statfs_t
		if unix.Statfs(path, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC { // else it is covered
			return path, nil
		}
	}
	return "", errors.Join(lines.Err(), fs.ErrNotExist)
}

// RemoveCgroup removes the cgroups of a virtual server whose init has ended. What
// is left in them, such as an init that a crash has left on its way, is ended.
// Absent already is success.
func RemoveCgroup(id int) error {
	top, err := cgroupTree()
	if err != nil {
		return nil
	}
	dir := filepath.Join(top, cgroupTop, fmt.Sprintf("vs%d", id))
	err = removeTree(top, dir)
	for end := time.Now().Add(margin); errors.Is(err, unix.EBUSY) && time.Now().Before(end); err = removeTree(top, dir) {
		g, gone := os.OpenRoot(dir)
		if gone != nil {
			continue
		}
		group := &cgroup{g}
		group.kill()
		group.awaitChange(100 * time.Millisecond)
		group.close()
	}
	return err
}

// awaitChange waits until the cgroup has no processes any more, or a while: the
// kernel tells by cgroup.events.
func (g *cgroup) awaitChange(most time.Duration) {
	f, err := g.root.Open("cgroup.events")
	if err != nil {
		return
	}
	defer f.Close()
	var b [256]byte
	n, _ := f.Read(b[:])
	if strings.Contains(string(b[:n]), "populated 1") {
		unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}, int(most.Milliseconds()))
	}
}

func removeTree(top, dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeDir(filepath.Join(dir, e.Name())))
		}
	}
	if err = errors.Join(err, removeDir(dir)); err == nil {
		os.Remove(filepath.Join(top, cgroupTop)) // with the last
	}
	return err
}

func removeDir(path string) error {
	if err := unix.Rmdir(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot remove the cgroup %s: %w", path, err)
	}
	return nil
}

// child is a cgroup below, made if need be.
func (g *cgroup) child(name string) (*cgroup, error) {
	if g == nil {
		return nil, nil
	}
	if err := g.root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cannot make the cgroup %s: %w", name, err)
	}
	root, err := g.root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	return &cgroup{root}, nil
}

func (g *cgroup) close() {
	if g != nil {
		g.root.Close()
	}
}

// open is the directory, for a process to be started in.
func (g *cgroup) open() (*os.File, error) { return g.root.Open(".") }

// kill ends every process in the cgroup.
func (g *cgroup) kill() {
	if g == nil {
		return
	}
	err := g.write("cgroup.kill", "1")
	if !errors.Is(err, fs.ErrNotExist) {
		return
	}
	// Before Linux 5.14. One that forks meanwhile has a child in here, too.
	for range 10 {
		text, err := g.root.ReadFile("cgroup.procs")
		if err != nil || len(text) == 0 {
			return
		}
		for _, word := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil && pid > 1 {
				unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
}

// write writes one of the kernel's files; it makes none.
func (g *cgroup) write(file, text string) error {
	f, err := g.root.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

// Use is what a service, or a virtual server, uses now. What the host does not
// count is absent.
type Use struct {
	Memory *int64 `json:"memory,omitempty"` // bytes
	CPU    *int64 `json:"cpu,omitempty"`    // microseconds since it was started
	Tasks  *int64 `json:"tasks,omitempty"`  // processes and threads
}

func (g *cgroup) use() Use {
	var u Use
	if g == nil {
		return u
	}
	u.Memory, u.Tasks = g.number("memory.current"), g.number("pids.current")
	text, err := g.root.ReadFile("cpu.stat")
	if err != nil {
		return u
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "usage_usec "); ok {
			u.CPU = parseNumber(value)
		}
	}
	return u
}

func (g *cgroup) number(file string) *int64 {
	text, err := g.root.ReadFile(file)
	if err != nil {
		return nil
	}
	return parseNumber(string(text))
}

// count is what the kernel has counted under a name in one of its files; 0 where
// it does not.
func (g *cgroup) count(file, name string) int64 {
	if g == nil {
		return 0
	}
	text, _ := g.root.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			if n := parseNumber(value); n != nil {
				return *n
			}
		}
	}
	return 0
}

func parseNumber(text string) *int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

// Resources are what a service, or a virtual server as a whole, may use.
type Resources struct {
	Memory string `json:"memory,omitempty" yaml:"memory,omitempty"` // bytes, or with K, M, G or T
	CPU    string `json:"cpu,omitempty" yaml:"cpu,omitempty"`       // of one processor: 50%, 200%
	Tasks  int    `json:"tasks,omitempty" yaml:"tasks,omitempty"`   // processes and threads
}

// limit sets what may be used. No limit is one, too: it may have been another.
func (g *cgroup) limit(r Resources) error {
	if g == nil {
		if r != (Resources{}) {
			return errors.New("cannot limit resources: this host has no cgroups (v2) that can be written")
		}
		return nil
	}
	memory, cpu, tasks := "max", "max", "max"
	if n, err := parseBytes(r.Memory); err == nil && r.Memory != "" {
		memory = strconv.FormatInt(n, 10)
	}
	if percent, err := parsePercent(r.CPU); err == nil && r.CPU != "" {
		cpu = strconv.Itoa(percent * cpuPeriod / 100)
	}
	if r.Tasks > 0 {
		tasks = strconv.Itoa(r.Tasks)
	}
	for _, l := range []struct{ file, value, what string }{
		{"memory.max", memory, "memory"}, {"cpu.max", fmt.Sprint(cpu, " ", cpuPeriod), "cpu"}, {"pids.max", tasks, "pids"},
	} {
		err := g.write(l.file, l.value)
		if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(l.value, "max") {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot limit %s: this host hands down no such controller (cgroup v2): %w", l.what, err)
		}
	}
	return nil
}

// cpuPeriod is how often processor time is dealt out, in microseconds.
const cpuPeriod = 100_000

// Validate reports everything that is wrong with them.
func (r Resources) Validate() []Problem {
	var problems []Problem
	r.validate(func(path string, err error) {
		if err != nil {
			problems = append(problems, Problem{path, err})
		}
	})
	return problems
}

func (r Resources) validate(add func(path string, err error)) {
	_, err := parseBytes(r.Memory)
	add("resources.memory", err)
	_, err = parsePercent(r.CPU)
	add("resources.cpu", err)
	if r.Tasks < 0 || r.Tasks > 4<<20 {
		add("resources.tasks", fmt.Errorf("%d is out of range: 1 to %d", r.Tasks, 4<<20))
	}
}

func parseBytes(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	digits := strings.TrimRight(s, "KMGT")
	shift := 0
	if unit := s[len(digits):]; len(unit) == 1 {
		shift = 10 * (1 + strings.Index("KMGT", unit))
	} else if unit != "" {
		digits = ""
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 1 || n<<shift>>shift != n {
		return 0, fmt.Errorf("%q is no amount such as 512M", s)
	}
	return n << shift, nil
}

func parsePercent(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	digits, ok := strings.CutSuffix(s, "%")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n < 1 || n > 100*1024 {
		return 0, fmt.Errorf("%q is no share of processors such as 50%% or 200%%", s)
	}
	return n, nil
}
