package cgroup

import (
	"os"

	"golang.org/x/sys/unix"
)

// deviceOf are the numbers of a block device, or of that which holds a file.
func deviceOf(path string) (major, minor uint32, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, &os.PathError{Op: "look at", Path: path, Err: err}
	}
	dev := uint64(st.Dev)
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		dev = uint64(st.Rdev)
	}
	return unix.Major(dev), unix.Minor(dev), nil
}
