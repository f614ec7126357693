package cgroup

import (
	"bytes"
	"os"

	"golang.org/x/sys/unix"
)

// Use is what the processes of a cgroup use, or have used since it was made. What
// the kernel does not count is absent.
type Use struct {
	Memory     *int64 `json:"memory,omitempty"`     // bytes, files that are kept in memory for them included
	MemoryPeak *int64 `json:"memoryPeak,omitempty"` // the most that it was
	Tasks      *int64 `json:"tasks,omitempty"`      // processes and threads

	CPU       *int64 `json:"cpu,omitempty"` // microseconds, like the next three
	CPUUser   *int64 `json:"cpuUser,omitempty"`
	CPUSystem *int64 `json:"cpuSystem,omitempty"`
	Throttled *int64 `json:"throttled,omitempty"` // kept from running by the limit

	ReadBytes  *int64 `json:"readBytes,omitempty"` // of block devices, like the next three
	WriteBytes *int64 `json:"writeBytes,omitempty"`
	ReadOps    *int64 `json:"readOps,omitempty"`
	WriteOps   *int64 `json:"writeOps,omitempty"`

	OOMKills *int64 `json:"oomKills,omitempty"` // processes killed for want of memory
}

// A figure is one number in a file: what follows a word, added up where that is
// there for each device, or the first number for the empty word.
type figure struct {
	word string
	to   func(*Use) **int64
}

// A countFile is one of the kernel's files, and what it tells. A figure that an
// earlier one has told counts.
type countFile struct {
	name    string
	nanos   bool // nanoseconds, not microseconds
	devices bool // a line for each device that has been used; none is 0
	alone   bool // without what is below
	figures []figure
}

var countFiles = []countFile{
	{name: "memory.current", figures: []figure{{"", memory}}},
	{name: "memory.usage_in_bytes", figures: []figure{{"", memory}}},
	{name: "memory.peak", figures: []figure{{"", memoryPeak}}},
	{name: "memory.max_usage_in_bytes", figures: []figure{{"", memoryPeak}}},
	{name: "memory.events", figures: []figure{{"oom_kill", oomKills}}},
	{name: "memory.oom_control", alone: true, figures: []figure{{"oom_kill", oomKills}}},
	{name: "pids.current", figures: []figure{{"", tasks}}},
	{name: "cpu.stat", figures: []figure{
		{"usage_usec", cpu}, {"user_usec", cpuUser}, {"system_usec", cpuSystem}, {"throttled_usec", throttled},
	}},
	{name: "cpu.stat", nanos: true, figures: []figure{{"throttled_time", throttled}}},
	{name: "cpuacct.usage", nanos: true, figures: []figure{{"", cpu}}},
	{name: "cpuacct.usage_user", nanos: true, figures: []figure{{"", cpuUser}}},
	{name: "cpuacct.usage_sys", nanos: true, figures: []figure{{"", cpuSystem}}},
	{name: "io.stat", devices: true, figures: []figure{
		{"rbytes", readBytes}, {"wbytes", writeBytes}, {"rios", readOps}, {"wios", writeOps},
	}},
	{name: "blkio.throttle.io_service_bytes_recursive", devices: true, figures: []figure{{"Read", readBytes}, {"Write", writeBytes}}},
	{name: "blkio.throttle.io_serviced_recursive", devices: true, figures: []figure{{"Read", readOps}, {"Write", writeOps}}},
}

func memory(u *Use) **int64     { return &u.Memory }
func memoryPeak(u *Use) **int64 { return &u.MemoryPeak }
func tasks(u *Use) **int64      { return &u.Tasks }
func cpu(u *Use) **int64        { return &u.CPU }
func cpuUser(u *Use) **int64    { return &u.CPUUser }
func cpuSystem(u *Use) **int64  { return &u.CPUSystem }
func throttled(u *Use) **int64  { return &u.Throttled }
func readBytes(u *Use) **int64  { return &u.ReadBytes }
func writeBytes(u *Use) **int64 { return &u.WriteBytes }
func readOps(u *Use) **int64    { return &u.ReadOps }
func writeOps(u *Use) **int64   { return &u.WriteOps }
func oomKills(u *Use) **int64   { return &u.OOMKills }

// Use reads what is used.
func (g *Group) Use() (u Use) {
	var buf [4096]byte // more than any has, but for very many devices
	for _, d := range g.in() {
		for _, f := range countFiles {
			if f.told(&u) || f.alone && hasBelow(d) {
				continue
			}
			if text, ok := readInto(buf[:], int(d.Fd()), f.name); ok {
				f.parse(&u, text)
			}
		}
	}
	return u
}

// hasBelow reports whether a cgroup has others below: a directory of the kernel's
// has a link from each.
func hasBelow(d *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(d.Fd()), &st) == nil && st.Nlink > 2
}

// Below reads what each of the cgroups below uses.
func (g *Group) Below() map[string]Use {
	if g == nil {
		return nil
	}
	all := map[string]Use{}
	for _, name := range below(g.dirs[0]) {
		if child, err := g.open(name); err == nil { // else it has just gone
			all[name] = child.Use()
			child.Close()
		}
	}
	return all
}

// below are the names of the cgroups below.
func below(d *os.File) (names []string) {
	list, err := openAt(d, ".", unix.O_DIRECTORY) // an offset of its own
	if err != nil {
		return nil
	}
	defer list.Close()
	entries, _ := list.ReadDir(0)
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// readInto reads a file of a directory, without package os: it is done very often.
func readInto(buf []byte, dir int, name string) ([]byte, bool) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, buf)
	return buf[:max(n, 0)], err == nil
}

// told reports whether all that the file could tell is known.
func (f countFile) told(u *Use) bool {
	for _, fig := range f.figures {
		if *fig.to(u) == nil {
			return false
		}
	}
	return true
}

func (f countFile) parse(u *Use, text []byte) {
	for _, fig := range f.figures {
		n, found := sum(text, fig.word)
		if to := fig.to(u); *to == nil && (found || f.devices) {
			if f.nanos {
				n /= 1000
			}
			*to = &n
		}
	}
}

// sum adds up the numbers that follow a word; the empty word is before the first. It
// makes no strings.
func sum(text []byte, word string) (total int64, found bool) {
	matches := word == ""
	for len(text) > 0 {
		end := bytes.IndexAny(text, " =\n")
		if end < 0 {
			end = len(text)
		}
		if n, ok := number(text[:end]); matches && ok {
			total, found = total+n, true
		}
		matches = string(text[:end]) == word && end > 0
		text = text[min(end+1, len(text)):]
	}
	return total, found
}

func number(digits []byte) (n int64, ok bool) {
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, len(digits) > 0
}

// Starved reports whether the kernel has killed a process in there for want of
// memory.
func (g *Group) Starved() bool {
	kills := g.Use().OOMKills
	return kills != nil && *kills > 0
}
