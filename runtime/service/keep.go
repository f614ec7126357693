package service

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// open opens the private directory that covers target; it is made when it is
// not there yet.
func (m *mounts) open(target string, s Settings) (*os.File, error) {
	if m.root == nil {
		if err := m.keep.MkdirAll(m.dir, 0o700); err != nil {
			return nil, err
		}
		root, err := m.keep.OpenRoot(m.dir)
		if err != nil {
			return nil, err
		}
		m.root = root
	}
	name := strings.TrimPrefix(target, "/")
	dir, err := m.kept(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	if err := m.create(name, target, s); err != nil {
		return nil, err
	}
	return m.kept(name)
}

// kept opens what is kept by that name. It follows no symlinks: they are those of
// services, in the private directories around it.
func (m *mounts) kept(name string) (*os.File, error) {
	root, err := m.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer root.Close()
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(int(root.Fd()), name, &how)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// create makes the directory name with the mode and owner of like, but for the user
// and group that s names. It gets its name last, so that a crash leaves none that is
// half made, and is made where nothing else is kept: any name there is one that a
// service may ask for.
func (m *mounts) create(name, like string, s Settings) error {
	mode, uid, gid := os.FileMode(0o755), os.Geteuid(), os.Getegid()
	if fi, err := os.Lstat(like); err == nil {
		if !fi.IsDir() {
			return syscall.ENOTDIR
		}
		st := fi.Sys().(*syscall.Stat_t)
		mode, uid, gid = fi.Mode(), int(st.Uid), int(st.Gid)
	}
	who, err := s.account()
	if err != nil {
		return err
	}
	if s.User != "" {
		uid = who.uid
	}
	if s.User != "" || s.Group != "" {
		gid = who.gid
	}
	if err := m.root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	parent, err := m.kept(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer parent.Close()
	tmp := m.dir + ".new"
	if err := errors.Join(m.keep.RemoveAll(tmp), m.keep.Mkdir(tmp, 0o700)); err != nil {
		return err
	}
	made, err := m.keep.Open(tmp)
	if err != nil {
		return err
	}
	defer made.Close()
	// EINVAL: an owner that this user namespace does not know cannot be given.
	if err := made.Chown(uid, gid); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	if err := made.Chmod(mode); err != nil {
		return err
	}
	around, err := m.keep.Open(".")
	if err != nil {
		return err
	}
	defer around.Close()
	return unix.Renameat(int(around.Fd()), tmp, int(parent.Fd()), filepath.Base(name))
}
