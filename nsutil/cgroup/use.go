package cgroup

import (
	"bytes"
	"math"
	"os"
	"unsafe"

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

// The figures of Use, in the order of uses.
const (
	memory = iota
	memoryPeak
	tasks
	cpu
	cpuUser
	cpuSystem
	throttled
	readBytes
	writeBytes
	readOps
	writeOps
	oomKills
	figures // how many there are
)

var uses = [figures]func(*Use) **int64{
	func(u *Use) **int64 { return &u.Memory },
	func(u *Use) **int64 { return &u.MemoryPeak },
	func(u *Use) **int64 { return &u.Tasks },
	func(u *Use) **int64 { return &u.CPU },
	func(u *Use) **int64 { return &u.CPUUser },
	func(u *Use) **int64 { return &u.CPUSystem },
	func(u *Use) **int64 { return &u.Throttled },
	func(u *Use) **int64 { return &u.ReadBytes },
	func(u *Use) **int64 { return &u.WriteBytes },
	func(u *Use) **int64 { return &u.ReadOps },
	func(u *Use) **int64 { return &u.WriteOps },
	func(u *Use) **int64 { return &u.OOMKills },
}

// A reading is a Use as it is read: without a pointer for each figure.
type reading struct {
	values [figures]int64
	known  [figures]bool
}

// into writes over a Use, whose memory is used again.
func (r *reading) into(u *Use) {
	for f, of := range uses {
		to := of(u)
		if !r.known[f] {
			*to = nil
			continue
		}
		if *to == nil {
			*to = new(int64)
		}
		**to = r.values[f]
	}
}

// A figure is one number in a file: what follows a word, added up where that is
// there for each device, or the first number for the empty word.
type figure struct {
	word string
	of   int
}

// A countFile is one of the kernel's files, and what it tells. A figure that an
// earlier one has told counts.
type countFile struct {
	name    string // ended by a zero byte, as the kernel takes it
	nanos   bool   // nanoseconds, not microseconds
	devices bool   // a line for each device that has been used; none is 0
	alone   bool   // without what is below
	figures []figure
}

var countFiles = []countFile{
	{name: "memory.current\x00", figures: []figure{{"", memory}}},
	{name: "memory.usage_in_bytes\x00", figures: []figure{{"", memory}}},
	{name: "memory.peak\x00", figures: []figure{{"", memoryPeak}}},
	{name: "memory.max_usage_in_bytes\x00", figures: []figure{{"", memoryPeak}}},
	{name: "memory.events\x00", figures: []figure{{"oom_kill", oomKills}}},
	{name: "memory.oom_control\x00", alone: true, figures: []figure{{"oom_kill", oomKills}}},
	{name: "pids.current\x00", figures: []figure{{"", tasks}}},
	{name: "cpu.stat\x00", figures: []figure{
		{"usage_usec", cpu}, {"user_usec", cpuUser}, {"system_usec", cpuSystem}, {"throttled_usec", throttled},
	}},
	{name: "cpu.stat\x00", nanos: true, figures: []figure{{"throttled_time", throttled}}},
	{name: "cpuacct.usage\x00", nanos: true, figures: []figure{{"", cpu}}},
	{name: "cpuacct.usage_user\x00", nanos: true, figures: []figure{{"", cpuUser}}},
	{name: "cpuacct.usage_sys\x00", nanos: true, figures: []figure{{"", cpuSystem}}},
	{name: "io.stat\x00", devices: true, figures: []figure{
		{"rbytes", readBytes}, {"wbytes", writeBytes}, {"rios", readOps}, {"wios", writeOps},
	}},
	{name: "blkio.throttle.io_service_bytes_recursive\x00", devices: true, figures: []figure{{"Read", readBytes}, {"Write", writeBytes}}},
	{name: "blkio.throttle.io_serviced_recursive\x00", devices: true, figures: []figure{{"Read", readOps}, {"Write", writeOps}}},
}

// Use reads what is used.
func (g *Group) Use() (u Use) {
	var buf [textMost]byte
	r := g.measure(buf[:])
	r.into(&u)
	return u
}

// textMost is more than any file has, but for very many devices.
const textMost = 4096

// measure reads what is used, with a buffer for the files' text. It makes nothing.
func (g *Group) measure(buf []byte) (r reading) {
	for _, d := range g.in() {
		for k := range countFiles {
			f := &countFiles[k]
			if f.told(&r) || f.alone && hasBelow(d) {
				continue
			}
			if text, ok := readInto(buf, int(d.Fd()), f.name); ok {
				f.parse(&r, text)
			}
		}
	}
	return r
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

// readInto reads a file of a directory, without package os and the copy of the name
// that package unix makes: it is done very often.
func readInto(buf []byte, dir int, name string) ([]byte, bool) {
	fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(unsafe.StringData(name))),
		unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return nil, false
	}
	defer unix.Close(int(fd))
	n, err := unix.Read(int(fd), buf)
	return buf[:max(n, 0)], err == nil
}

// told reports whether all that the file could tell is known.
func (f *countFile) told(r *reading) bool {
	for _, fig := range f.figures {
		if !r.known[fig.of] {
			return false
		}
	}
	return true
}

func (f *countFile) parse(r *reading, text []byte) {
	for _, fig := range f.figures {
		n, found := sum(text, fig.word)
		if !r.known[fig.of] && (found || f.devices) {
			if f.nanos {
				n /= 1000
			}
			r.values[fig.of], r.known[fig.of] = n, true
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
			total, found = n+min(total, math.MaxInt64-n), true
		}
		matches = string(text[:end]) == word && end > 0
		text = text[min(end+1, len(text)):]
	}
	return total, found
}

func number(digits []byte) (n int64, ok bool) {
	for _, c := range digits {
		if c < '0' || c > '9' || n > math.MaxInt64/10-1 {
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
