package lab

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Snapshot is all that a host holds and that a test could leave behind: how
// often each thing is there.
type Snapshot map[Thing]int

// A Thing is one item of a snapshot, as text.
type Thing struct {
	Kind string // "process", "mount", "link", …
	Text string
}

// senses are the parts of a snapshot. Descriptors come last: looking at the
// rest must have closed what it opened.
var senses = []func(*Host) ([]Thing, error){
	netThings, namedNamespaces, mounts, processes, unixSockets, files, cgroups, descriptors,
}

// Snapshot looks at the whole host.
func (h *Host) Snapshot() Snapshot {
	h.t.Helper()
	s := Snapshot{}
	for _, sense := range senses {
		things, err := sense(h)
		if err != nil {
			h.t.Fatalf("lab: cannot look at the host: %v", err)
		}
		for _, thing := range things {
			s[thing]++
		}
	}
	return s
}

// Diff is what must be taken away from (−) and added to (+) the snapshot to
// get the other; "" if they are the same.
func (s Snapshot) Diff(to Snapshot) string {
	var lines []string
	for thing, n := range s.delta(to) {
		sign := "+"
		if n < 0 {
			sign, n = "−", -n
		}
		times := ""
		if n > 1 {
			times = fmt.Sprintf(" (%d times)", n)
		}
		lines = append(lines, fmt.Sprintf("%-10s %s %s%s\n", thing.Kind, sign, thing.Text, times))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func (s Snapshot) delta(to Snapshot) map[Thing]int {
	d := map[Thing]int{}
	for thing, n := range to {
		d[thing] += n
	}
	for thing, n := range s {
		d[thing] -= n
	}
	for thing, n := range d {
		if n == 0 {
			delete(d, thing)
		}
	}
	return d
}

// add changes the snapshot by a delta.
func (s Snapshot) add(d map[Thing]int) {
	for thing, n := range d {
		s[thing] += n
	}
}

func netThings(*Host) ([]Thing, error) {
	v, err := look("")
	if err != nil {
		return nil, err
	}
	state, err := v.state("")
	if err != nil {
		return nil, err
	}
	var things []Thing
	for l := range strings.Lines(state) {
		kind, text, _ := strings.Cut(strings.TrimSpace(l), " ")
		things = append(things, Thing{kind, text})
	}
	neighs, err := v.neighbours("")
	for _, n := range neighs {
		things = append(things, Thing{"neighbour", n})
	}
	return things, err
}

func namedNamespaces(*Host) ([]Thing, error) {
	var things []Thing
	entries, err := os.ReadDir(netnsDir)
	for _, e := range entries {
		things = append(things, Thing{"namespace", e.Name()})
	}
	return things, err
}

func mounts(*Host) ([]Thing, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	var things []Thing
	for l := range strings.Lines(string(info)) {
		// 36 35 98:0 /root /point options tags… - type source superoptions
		mount, super, _ := strings.Cut(strings.TrimSpace(l), " - ")
		m, s := strings.Fields(mount), strings.Fields(super)
		things = append(things, Thing{"mount", fmt.Sprintf("%s type %s, of %s in %s, %s", m[4], s[0], m[3], s[1], m[5])})
	}
	return things, err
}

// A process is one that is alive, and neither the host's init nor the test.
type process struct {
	pid   int
	thing Thing
}

func processes(*Host) ([]Thing, error) {
	var things []Thing
	list, err := listProcesses()
	for _, p := range list {
		things = append(things, p.thing)
	}
	return things, err
}

func listProcesses() ([]process, error) {
	var list []process
	entries, err := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// After the name in parentheses: the state, and 19 fields on the time
		// of birth, which tells apart two with the same id.
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if f[0] == "Z" || f[0] == "X" {
			continue
		}
		list = append(list, process{pid, Thing{"process", fmt.Sprintf("%d %s (born %s)", pid, commandLine(pid), f[19])}})
	}
	return list, err
}

func commandLine(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if len(b) == 0 {
		b, _ = os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	}
	return strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
}

// unixSockets are those with a name: a path, or an abstract one after @.
func unixSockets(*Host) ([]Thing, error) {
	var things []Thing
	list, err := os.ReadFile("/proc/self/net/unix")
	for l := range strings.Lines(string(list)) {
		if f := strings.Fields(l); len(f) > 7 && f[0] != "Num" {
			things = append(things, Thing{"socket", strings.Join(f[7:], " ")})
		}
	}
	return things, err
}

// files are those in /run and the state directory. Directories count in /run
// only: how the program orders its state directory is its own matter.
func files(h *Host) ([]Thing, error) {
	var things []Thing
	walk := func(top string, dirs bool) error {
		return filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			switch {
			case os.IsNotExist(err):
				return nil
			case err != nil:
				return err
			case path == labDir || path == netnsDir:
				return fs.SkipDir
			case path == top || h.isKept(path):
			case !d.IsDir():
				things = append(things, Thing{"file", path + " " + d.Type().String()})
			case dirs:
				things = append(things, Thing{"file", path + "/"})
			}
			return nil
		})
	}
	if err := walk("/run", true); err != nil {
		return nil, err
	}
	return things, walk(h.StateDir, false)
}

func cgroups(*Host) ([]Thing, error) {
	if cgroup2() != nil {
		return nil, nil
	}
	var things []Thing
	for _, root := range []string{cgroupRoot, cgroupLegacy} {
		filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				things = append(things, Thing{"cgroup", path})
			}
			return nil // it may go while we look
		})
	}
	return things, nil
}

// descriptors are what the test process itself has open.
func descriptors(*Host) ([]Thing, error) {
	const dir = "/proc/self/fd"
	var things []Thing
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil || strings.HasPrefix(to, "/proc/") && strings.HasSuffix(to, "/fd") {
			continue // the one that read the directory
		}
		things = append(things, Thing{"descriptor", to})
	}
	return things, err
}
