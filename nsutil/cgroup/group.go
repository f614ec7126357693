package cgroup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Group is a cgroup: its directory in each hierarchy, held open. A nil one has
// nothing and can nothing.
type Group struct {
	dirs []*os.File
	held *holder // until Close, nobody else may be in it
}

// Close lets go of it.
func (g *Group) Close() {
	if g != nil {
		g.held.Close()
	}
	for _, d := range g.in() {
		d.Close()
	}
}

// in are the directories, for those who need not know that there is none.
func (g *Group) in() []*os.File {
	if g == nil {
		return nil
	}
	return g.dirs
}

// openAt opens a file of a directory; it makes none.
func openAt(d *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(d.Fd()), name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Child is a cgroup below, made if need be: in all hierarchies or in none.
func (g *Group) Child(name string) (*Group, error) {
	if g == nil {
		return nil, nil
	}
	made := &Group{}
	for _, d := range g.dirs {
		err := unix.Mkdirat(int(d.Fd()), name, 0o755)
		switch {
		case err == nil:
			made.dirs = append(made.dirs, d)
		case !errors.Is(err, fs.ErrExist):
			return nil, errors.Join(fmt.Errorf("cannot make the cgroup %s: %w", name, err), made.Remove(name))
		}
	}
	child, err := g.open(name)
	if err != nil {
		err = errors.Join(err, made.Remove(name))
	}
	return child, err
}

func (g *Group) open(name string) (*Group, error) {
	child := &Group{}
	for _, d := range g.dirs {
		below, err := openAt(d, name, unix.O_DIRECTORY)
		if err != nil {
			child.Close()
			return nil, fmt.Errorf("cannot open the cgroup %s: %w", name, err)
		}
		child.dirs = append(child.dirs, below)
	}
	return child, nil
}

// Has reports whether there is a cgroup of the name below.
func (g *Group) Has(name string) bool {
	for _, d := range g.in() {
		if unix.Faccessat(int(d.Fd()), name, unix.F_OK, 0) == nil {
			return true
		}
	}
	return false
}

// Remove removes a cgroup below. One that processes are left in stays.
func (g *Group) Remove(name string) error {
	var errs []error
	for _, d := range g.in() {
		if err := unix.Unlinkat(int(d.Fd()), name, unix.AT_REMOVEDIR); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// HandDown lets the cgroups below have the controllers. There must be no process in
// this one itself (cgroup-v2.rst, "No Internal Process Constraint").
func (g *Group) HandDown() {
	for _, c := range controllers {
		g.write("cgroup.subtree_control", "+"+c)
	}
}

// Kill ends every process in the cgroup, and in those below.
func (g *Group) Kill() {
	if g == nil {
		return
	}
	if err := g.write("cgroup.kill", "1"); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	// Before Linux 5.14, and without v2. One that forks meanwhile has a child in
	// here, too.
	for range 10 {
		pids := g.processes()
		for _, pid := range pids {
			unix.Kill(pid, unix.SIGKILL)
		}
		if pids == nil {
			return
		}
	}
}

// processes are those in the cgroup and directly below, as the caller counts.
func (g *Group) processes() (pids []int) {
	d := g.dirs[0]
	for _, dir := range append(below(d), ".") {
		text, _ := read(d, dir+"/cgroup.procs")
		for word := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil && pid > 1 {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// Busy reports whether there are processes in the cgroup or directly below, also those
// that the caller cannot see. It gives those that are just ending a moment.
func (g *Group) Busy() bool {
	populated := func() bool {
		return slices.ContainsFunc(g.dirs, func(d *os.File) bool {
			return slices.ContainsFunc(append(below(d), "."), func(dir string) bool {
				text, _ := read(d, dir+"/cgroup.procs")
				return len(text) > 0
			})
		})
	}
	if !populated() {
		return false
	}
	g.awaitChange(100 * time.Millisecond)
	return populated()
}

// awaitChange waits until the cgroup has no processes any more, or a while: the
// kernel tells by v2's cgroup.events.
func (g *Group) awaitChange(most time.Duration) {
	f, err := openAt(g.dirs[0], "cgroup.events", unix.O_RDONLY)
	if err != nil {
		time.Sleep(most / 10)
		return
	}
	defer f.Close()
	var b [256]byte
	n, _ := f.Read(b[:])
	if strings.Contains(string(b[:n]), "populated 1") {
		unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}, int(most.Milliseconds()))
	}
}

// write writes one of the kernel's files in the hierarchy that has it.
func (g *Group) write(file, text string) (err error) {
	for _, d := range g.in() {
		if err = write(d, file, text); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return err
}

func write(d *os.File, file, text string) error {
	f, err := openAt(d, file, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = unix.Write(int(f.Fd()), []byte(text))
	return err
}

func read(d *os.File, file string) ([]byte, error) {
	f, err := openAt(d, file, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}
