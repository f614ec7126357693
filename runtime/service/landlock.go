package service

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// writesToFile are the rights of landlock(7) that a file can have.
	writesToFile = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE

	writes = writesToFile | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER
)

// confine lets the calling thread, and what comes from it, write to the paths and
// what is below them, and nowhere else, by whatever mount it gets there: one that the
// host has made since, or another service's, seen through /proc/PID/root. Without
// Landlock (Linux 5.19; before, no file could be moved between directories) there
// are the read-only mounts alone.
//
// Signals and abstract sockets are not scoped, though newer kernels can: namespaces
// keep them in the virtual server, whose services may well have to do with each other.
func confine(paths []string) error {
	abi, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 || abi < 2 {
		return nil
	}
	known := uint64(writes)
	if abi < 3 {
		known &^= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: known}
	rules, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr.Handled_access_fs), 0)
	if errno != 0 {
		return fmt.Errorf("cannot make rules for Landlock: %w", errno)
	}
	defer unix.Close(int(rules))
	for _, path := range paths {
		if err := allow(int(rules), path, known); err != nil {
			return fmt.Errorf("cannot allow %s with Landlock: %w", path, err)
		}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, rules, 0, 0); errno != 0 {
		return fmt.Errorf("cannot restrict it with Landlock: %w", errno)
	}
	return nil
}

func allow(rules int, path string, known uint64) error {
	fd, err := openPath(path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		known &= writesToFile
	}
	beneath := unix.LandlockPathBeneathAttr{Allowed_access: known, Parent_fd: int32(fd)}
	_, _, errno := unix.RawSyscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&beneath)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
