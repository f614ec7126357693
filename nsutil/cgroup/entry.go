package cgroup

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// An Entry is the way into a cgroup for a process that is about to be started. In v2
// it is born there (CLONE_INTO_CGROUP), in v1 it can only go there.
type Entry struct {
	born *os.File
	// Rest are for the process to write itself into, before all else (Enter).
	Rest []*os.File
}

// Entry opens the way, which has to be closed.
func (g *Group) Entry() (Entry, error) {
	var e Entry
	for _, d := range g.in() {
		if isV2(d) {
			e.born = d
			continue
		}
		f, err := openAt(d, "cgroup.procs", unix.O_WRONLY)
		if err != nil {
			e.Close()
			return e, fmt.Errorf("cannot enter a cgroup: %w", err)
		}
		e.Rest = append(e.Rest, f)
	}
	return e, nil
}

// Use has a process be born there.
func (e Entry) Use(attr *syscall.SysProcAttr) {
	if e.born != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(e.born.Fd())
	}
}

// Close lets go of it.
func (e Entry) Close() {
	for _, f := range e.Rest {
		f.Close()
	}
}

// Enter puts the calling process where one of Entry.Rest leads.
func Enter(fd int) error {
	if _, err := unix.Write(fd, []byte("0")); err != nil {
		return fmt.Errorf("cannot enter a cgroup: %w", err)
	}
	return nil
}

// EnterThread puts the calling thread where Entry.Rest would lead, and what it
// starts with it. It is for threads that end soon.
func (g *Group) EnterThread() error {
	for _, d := range g.in() {
		if isV2(d) {
			continue
		}
		if err := write(d, "tasks", "0"); err != nil {
			return fmt.Errorf("cannot enter a cgroup: %w", err)
		}
	}
	return nil
}

// Move puts a process into the cgroup, wherever it is.
func (g *Group) Move(pid int) error {
	for _, d := range g.in() {
		if err := write(d, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("cannot move process %d to a cgroup: %w", pid, err)
		}
	}
	return nil
}

// Files are the directories, to be handed to another process (see Inherit). They
// are the group's own.
func (g *Group) Files() []*os.File { return g.in() }

// Inherit is the cgroup that was handed over as n descriptors from fd on, nil when
// none was.
func Inherit(fd, n int) *Group {
	if n == 0 {
		return nil
	}
	g := &Group{}
	for range n {
		unix.CloseOnExec(fd)
		g.dirs = append(g.dirs, os.NewFile(uintptr(fd), "cgroup"))
		fd++
	}
	return g
}

// HasV2 reports whether it is one of v2 too.
func (g *Group) HasV2() bool { return slices.ContainsFunc(g.in(), isV2) }

func isV2(d *os.File) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(d.Fd()), &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}
