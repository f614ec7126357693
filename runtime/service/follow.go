package service

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// follow is where a path of the host's leads. It follows the host's symlinks alone:
// one in what the virtual server has for itself may be a service's, which would
// have its own directory mounted over any other. What is mounted by a path with one
// of those is refused (see bind.open).
func (m *mounts) follow(path string) (string, error) {
	at, rest, links := "/", path, 40 // as many as the kernel follows (path_resolution(7))
	for rest != "" {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		next := filepath.Join(at, name)
		if m.isOwn(next) {
			at = next
			continue
		}
		to, err := os.Readlink(next)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, fs.ErrNotExist): // no symlink
			at = next
			continue
		case err != nil:
			return "", err
		case links == 0:
			return "", &fs.PathError{Op: "resolve", Path: path, Err: unix.ELOOP}
		}
		links--
		if filepath.IsAbs(to) {
			at = "/"
		}
		rest = to + "/" + rest
	}
	return at, nil
}

// isOwn reports whether the path is in something that the virtual server has, or
// will have, for itself.
func (m *mounts) isOwn(path string) bool {
	if m.place(path) != nil || m.isPrivate(path) {
		return true
	}
	for _, b := range m.own {
		if within(path, b.target) {
			return true
		}
	}
	return false
}
