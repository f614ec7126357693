package service

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
)

const mountFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// partMounts makes the mount namespace, so far a copy of the host's, the
// virtual server's own. Until the first line is done an unmount here would be
// one on the host as well; after it the host's unmounts still come through, so
// that a virtual server never keeps a filesystem of the host busy.
func partMounts(netnsDir string) error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("cannot part the mounts from the host's: %w", err)
	}
	if err := freshProc(); err != nil {
		return err
	}
	if err := freshSys(); err != nil {
		return err
	}
	hideCgroups()
	return hideNamespaces(netnsDir)
}

// hideCgroups takes the host's out of sight, in whatever place. Those below /sys are
// already, and a user namespace can neither do that nor write to them.
func hideCgroups() {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 2 && strings.HasPrefix(fields[2], "cgroup") {
			unix.Unmount(nsutil.Unescape(fields[1]), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
	}
}

// showCgroup shows the virtual server its own cgroups (v2) in the standard place,
// which is the root of this cgroup namespace, and not to be written.
func showCgroup() error {
	err := mountFresh("cgroup2", "/sys/fs/cgroup", unix.MOUNT_ATTR_RDONLY)
	if errors.Is(err, unix.ENOENT) { // an empty /sys
		return nil
	}
	return err
}

func freshProc() error {
	err := mountFresh("proc", "/proc", 0)
	if errors.Is(err, unix.EPERM) {
		// fs/namespace.c, mount_too_revealing: no new proc for a user namespace
		// that sees the old one with parts covered, as containers do.
		return fmt.Errorf("%w (parts of /proc are covered here, "+
			"and the kernel gives a user namespace no uncovered one)", err)
	}
	return err
}

// freshSys gives the virtual server the /sys of its network namespace:
// /sys/class/net shows the namespace that mounted it.
func freshSys() error {
	var st unix.Statfs_t
	flags := 0
	if err := unix.Statfs("/sys", &st); err == nil && st.Flags&unix.ST_RDONLY != 0 {
		flags = unix.MOUNT_ATTR_RDONLY
	}
	err := mountFresh("sysfs", "/sys", flags)
	if errors.Is(err, unix.EPERM) {
		// Refused for the same reason as a fresh /proc. The old one would show
		// the host's devices as the virtual server's; none is better.
		log.Printf("cannot mount a fresh /sys (parts of it are covered here): it stays empty")
		err = unix.Mount("tmpfs", "/sys", "tmpfs", mountFlags|unix.MS_RDONLY, "size=4k,nr_inodes=1,mode=555")
		if err != nil {
			return fmt.Errorf("cannot cover /sys: %w", err)
		}
	}
	return err
}

// mountFresh replaces what is mounted on target by a new filesystem. The new
// one is made before the old is let go: a user namespace gets a new proc or
// sysfs only while it sees one (fs/namespace.c, mnt_already_visible). Where the
// old one is locked, being a more privileged user namespace's, it stays below.
func mountFresh(fstype, target string, flags int) error {
	mnt, err := newMount(fstype, flags|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return fmt.Errorf("cannot mount a fresh %s: %w", target, err)
	}
	defer unix.Close(mnt)
	for unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
	}
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("cannot mount on %s: %w", target, err)
	}
	return nil
}

// newMount is a mounted filesystem that has no place yet.
func newMount(fstype string, attributes int) (int, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes)
}

// hideNamespaces takes every published namespace out of the virtual server's
// sight, and lets go of them: a mount pins its namespace. The directory is then
// covered, because what the host mounts there later comes through to the
// directory below. It stays out of sight, and goes when the host unmounts it.
func hideNamespaces(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	points, err := mountPoints(dir)
	if err != nil {
		return err
	}
	// The directory first: its own mount hides others of the same names, when
	// it is one of a peer group with what it is mounted on.
	for _, point := range points {
		for isMountPoint(point) {
			if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				return fmt.Errorf("cannot take %s out of the virtual server's sight: %w", point, err)
			}
		}
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", mountFlags, "mode=755"); err != nil {
		return fmt.Errorf("cannot cover %s: %w", dir, err)
	}
	return nil
}

func mountPoints(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return mountsWithin(f, dir)
}

// mountsWithin reads a /proc/PID/mountinfo: the mount points that are dir or
// below it, in the order they were mounted.
func mountsWithin(r io.Reader, dir string) ([]string, error) {
	var points []string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			return nil, fmt.Errorf("cannot understand the line %q of mountinfo", lines.Text())
		}
		if point := nsutil.Unescape(fields[4]); within(point, dir) {
			points = append(points, point)
		}
	}
	return points, lines.Err()
}

func isMountPoint(path string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}
