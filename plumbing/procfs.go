package plumbing

import (
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A procfs is a /proc of our own, which nobody else sees. In the host's, where all namespaces'
// parameters are in /proc/sys/net, each has an ipv4 and an ipv6 there that the kernel keeps
// (the dcache), and to find one's own it compares all of that name: among a thousand that
// took longer than to make a namespace.
type procfs struct {
	once   sync.Once
	fd     int // -1: the host's
	users  int
	visits int
}

// procfsVisits is how many namespaces are looked for in one: a new one takes a tenth of a
// millisecond, mostly to close.
const procfsVisits = 16

// current is the one that is shared by all who are at work at the same time.
var current struct {
	sync.Mutex
	*procfs
}

// holdProcfs keeps it for visits that follow each other, until giveBack.
func holdProcfs() *procfs {
	current.Lock()
	defer current.Unlock()
	if current.procfs == nil {
		current.procfs = &procfs{fd: -1}
	}
	current.users++
	return current.procfs
}

// visitProcfs is holdProcfs for one visit to a namespace.
func visitProcfs() *procfs {
	p := holdProcfs()
	current.Lock()
	defer current.Unlock()
	if p.visits++; p.visits == procfsVisits && current.procfs == p {
		current.procfs = nil
	}
	return p
}

func (p *procfs) giveBack() {
	if p.last() && p.fd >= 0 {
		unix.Close(p.fd) // which waits for the kernel's readers
	}
}

// last takes a user away, and reports whether it was the last one.
func (p *procfs) last() bool {
	current.Lock()
	defer current.Unlock()
	if p.users--; p.users > 0 {
		return false
	}
	if current.procfs == p {
		current.procfs = nil
	}
	return true
}

// open opens a directory that the host has as /proc/….
func (p *procfs) open(dir string) (fd int, err error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	p.once.Do(p.mount)
	if p.fd < 0 {
		return unix.Open(dir, flags, 0)
	}
	return unix.Openat(p.fd, strings.TrimPrefix(dir, "/proc/"), flags, 0)
}

// mount mounts it, without a place (fsmount(2)). Where that is not allowed, as in a
// container that sees a part of /proc alone, the host's does.
func (p *procfs) mount() {
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return
	}
	defer unix.Close(fs)
	if unix.FsconfigCreate(fs) != nil {
		return
	}
	const plain = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	if fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, plain); err == nil {
		p.fd = fd
	}
}
