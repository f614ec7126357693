package nsutil

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An ID tells network namespaces apart, as long as they are held: once one is gone,
// the next may have its ID.
type ID struct {
	major, minor uint32
	ino          uint64
}

// Inode is the namespace's number, which no other namespace of the host has meanwhile.
func (id ID) Inode() uint64 { return id.ino }

// ID is the namespace's.
func (ns *Namespace) ID() (ID, error) {
	return identify(ns.Fd(), new(byte), unix.AT_EMPTY_PATH)
}

// A Name is a path, as namespaces are published at, to be looked at often.
type Name struct{ path *byte }

// NameOf is the name at path, which must not hold a zero byte.
func NameOf(path string) (Name, error) {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return Name{}, fmt.Errorf("cannot be a path: %q", path)
	}
	return Name{p}, nil
}

// ID is that of what has the name now, whatever it is. It allocates nothing.
func (n Name) ID() (ID, error) { return identify(unix.AT_FDCWD, n.path, 0) }

// identify is statx(2), without the copy of the path that package unix makes.
func identify(dir int, path *byte, flags int) (ID, error) {
	var st unix.Statx_t
	_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(dir), uintptr(unsafe.Pointer(path)),
		uintptr(flags), unix.STATX_INO, uintptr(unsafe.Pointer(&st)), 0)
	if errno != 0 {
		return ID{}, errno
	}
	return ID{st.Dev_major, st.Dev_minor, st.Ino}, nil
}
