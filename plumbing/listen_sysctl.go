package plumbing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
)

// A SysctlListener hears when somebody writes a kernel parameter that a server has, also
// those that the kernel tells nobody about, or a limit of a cgroup. Each namespace has directories and files of its
// own below /proc/sys/net, and who writes to one is told of as with any file (inotify(7)):
// as long as he does so in the /proc that the listener sees. It keeps a few inodes for each
// namespace, and no namespace. Its methods may be called beside Next.
type SysctlListener struct {
	f   *os.File
	raw rawConn
	buf []byte
}

// ListenSysctls begins to hear nothing, until Follow.
func ListenSysctls() (*SysctlListener, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("cannot watch kernel parameters: %w", err)
	}
	l := &SysctlListener{f: os.NewFile(uintptr(fd), "inotify"), buf: make([]byte, 64<<10)}
	if l.raw, err = l.f.SyscallConn(); err != nil {
		l.f.Close()
	}
	return l, err
}

// Close ends it, and a Next that waits.
func (l *SysctlListener) Close() error { return l.f.Close() }

// Follow has the listener hear what is written in a namespace, too. Next tells one of the
// numbers then, which no other namespace gets. They are for Unfollow. Of interfaces that heed
// routers it hears that, until they are made anew.
func (l *SysctlListener) Follow(ns *nsutil.Namespace, heeding ...string) (watches []int, err error) {
	dirs := sysctlDirs()
	for _, dev := range heeding {
		dirs = append(dirs, filepath.Dir(raSysctl(dev, raItself, true).path()))
	}
	err = ns.Do(func() error {
		return l.control(func(fd int) error {
			for _, dir := range dirs {
				w, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_ONLYDIR)
				switch {
				case err == nil:
					watches = append(watches, w)
				case !errors.Is(err, unix.ENOENT): // a kernel without IPv6, or no such interface
					return fmt.Errorf("cannot watch %s: %w", dir, err)
				}
			}
			return nil
		})
	})
	return watches, err
}

// FollowDir is Follow for a directory of cgroups: what is set, or made, in it. The watch ends
// with the directory.
func (l *SysctlListener) FollowDir(dir string) (watch int, err error) {
	err = l.control(func(fd int) error {
		watch, err = unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_ONLYDIR)
		return err
	})
	return watch, err
}

// Unfollow gives back what Follow has returned.
func (l *SysctlListener) Unfollow(watches []int) {
	l.control(func(fd int) error {
		for _, w := range watches {
			unix.InotifyRmWatch(fd, uint32(w))
		}
		return nil
	})
}

func (l *SysctlListener) control(do func(fd int) error) (err error) {
	if failed := l.raw.Control(func(fd uintptr) { err = do(int(fd)) }); failed != nil {
		return failed
	}
	return err
}

// sysctlDirs are those that a server's kernel parameters are in.
func sysctlDirs() (dirs []string) {
	for _, c := range serverSysctls {
		dirs = append(dirs, filepath.Dir(c.path()))
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// Next waits until something is written, and returns in which watches. After ErrMissed it
// goes on.
func (l *SysctlListener) Next() (watches []int, err error) {
	n, err := l.f.Read(l.buf)
	if err != nil {
		return nil, fmt.Errorf("cannot watch kernel parameters: %w", err)
	}
	for b := l.buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
		if binary.NativeEndian.Uint32(b[4:])&unix.IN_Q_OVERFLOW != 0 {
			return nil, ErrMissed
		}
		end := min(len(b), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:])))
		if w := int(int32(binary.NativeEndian.Uint32(b))); !slices.Contains(watches, w) && !isNoise(strings.TrimRight(string(b[unix.SizeofInotifyEvent:end]), "\x00")) {
			watches = append(watches, w)
		}
		b = b[end:]
	}
	return watches, nil
}

// isNoise tells of files of a cgroup that are written whenever a process is started in it, and
// those that the kernel says to have been written when it counts something there.
func isNoise(file string) bool {
	return strings.HasPrefix(file, "cgroup.") || file == "tasks" || strings.Contains(file, ".events")
}
