package stats

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/nsutil/cgroup"
)

// A namespace is what a Reader knows of one published namespace.
type namespace struct {
	path string
	name nsutil.Name
	last uint64 // when it was asked for; the Reader's mutex is for this one

	mu     sync.Mutex
	since  time.Time // when it was opened
	id     nsutil.ID // of what is open
	open   []int     // a descriptor for each of procFiles, -1 for those that the kernel lacks; nil: none is
	cookie uint64    // 0: not known
	life   string
	forms  []form // what each of the files looked like
	meter  *cgroup.Meter
	held   int // how many files the Reader has counted here
}

// procFiles are the files of counters below /proc/net.
var procFiles = []struct {
	name  string
	must  bool // each kernel has it
	part  Parts
	parse func(*parser, []byte, *Sample) error
}{
	{"dev", true, InterfacesPart, (*parser).dev},
	{"snmp", true, MIBPart, (*parser).snmp},
	{"snmp6", false, MIBPart, (*parser).snmp6}, // without IPv6
	{"netstat", true, MIBPart, (*parser).snmp},
	{"sockstat", false, 0, (*parser).sockstat},
	{"sockstat6", false, 0, (*parser).sockstat},
	{"stat/nf_conntrack", false, 0, (*parser).conntrack}, // without the module
}

func newNamespace(path string) (*namespace, error) {
	name, err := nsutil.NameOf(path)
	if err != nil {
		return nil, err
	}
	return &namespace{path: path, name: name, forms: make([]form, len(procFiles))}, nil
}

// lookAgain is when a file that was not there is looked for again: its module may have
// been loaded since.
const lookAgain = time.Minute

// current reports whether what is open is what has the name now. While it is open, no
// other namespace can have its ID.
func (ns *namespace) current() bool {
	if ns.open == nil || slices.Contains(ns.open, -1) && time.Since(ns.since) > lookAgain {
		return false
	}
	id, err := ns.name.ID()
	return err == nil && id == ns.id
}

// files is how many are open.
func (ns *namespace) files() int {
	n := ns.meter.Files()
	for _, fd := range ns.open {
		if fd >= 0 {
			n++
		}
	}
	return n
}

func (ns *namespace) close() {
	for _, fd := range ns.open {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	ns.open = nil
	ns.meter.Close()
}

// openFiles opens what has the name.
func (ns *namespace) openFiles() error {
	entry, err := nsutil.Open(ns.path)
	if err != nil {
		return err
	}
	defer entry.Close()
	if ns.id, err = entry.ID(); err != nil {
		return err
	}
	err = entry.Do(ns.openHere)
	if err != nil {
		ns.close()
	}
	if errors.Is(err, fs.ErrNotExist) { // a missing /proc file must not pass for a missing namespace
		return errors.New(err.Error())
	}
	return err
}

// openHere opens the files of the calling thread's namespace: they stay its files when
// they are read outside. /proc/net would be the thread-group leader's.
func (ns *namespace) openHere() (err error) {
	ns.since = time.Now()
	if ns.cookie, err = cookie(); err != nil {
		return err
	}
	ns.life = life(ns.cookie)
	const at = "/proc/thread-self/net"
	dir, err := unix.Open(at, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: at, Err: err}
	}
	defer unix.Close(dir)
	for _, f := range procFiles {
		fd, err := unix.Openat(dir, f.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) && !f.must {
			fd, err = -1, nil
		}
		if err != nil {
			return &fs.PathError{Op: "open", Path: at + "/" + f.name, Err: err}
		}
		ns.open = append(ns.open, fd)
	}
	return nil
}

// read reads all into the sample, what a Bulk does not say from files.
func (ns *namespace) read(s *Sample, p *parser, bulk func(*namespace, *Sample) Parts) error {
	s.empty()
	has := bulk(ns, s)
	for i, f := range procFiles {
		if ns.open[i] < 0 || has&f.part != 0 {
			continue
		}
		text, err := p.read(ns.open[i])
		if err == nil {
			p.form, p.next, p.other = &ns.forms[i], 0, false
			err = f.parse(p, text, s)
		}
		if err != nil {
			return fmt.Errorf("/proc/net/%s: %w", f.name, err)
		}
	}
	return nil
}
