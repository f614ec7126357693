package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A share is a file, socket or directory of the host's that a virtual server
// sees though it is below a directory that the virtual server has for itself.

// ValidateShare reports everything that is wrong with a list of shares and can
// be told by their names.
func ValidateShare(paths []string) []Problem {
	var problems []Problem
	for i, p := range paths {
		err := checkShare(p)
		if err == nil && slices.Contains(paths[:i], p) {
			err = fmt.Errorf("%q is there twice", p)
		}
		if err != nil {
			problems = append(problems, Problem{fmt.Sprintf("share[%d]", i), err})
		}
	}
	return problems
}

func checkShare(p string) error {
	switch {
	case checkText(p) != nil:
		return checkText(p)
	case !path.IsAbs(p):
		return fmt.Errorf("%q is not an absolute path", p)
	case path.Clean(p) != p:
		return fmt.Errorf("%q is to be written %q", p, path.Clean(p))
	case within(p, "/proc"), within(p, "/sys"):
		return fmt.Errorf("%q is the virtual server's own", p)
	}
	for _, d := range inMemory {
		if p == d.path || within(d.path, p) {
			return fmt.Errorf("%q is too much: a share is a path below %s", p, belowMemory)
		}
		if within(p, d.path) {
			return nil
		}
	}
	return fmt.Errorf("%q is seen anyway: only what is below %s has to be shared", p, belowMemory)
}

// CheckShare refuses to share directories that are vsrun's own, or what is in
// them or around them, as symlinks lead there now.
func (c Config) CheckShare() error {
	var errs []error
	for _, p := range c.Share {
		if at, err := resolve(p); err == nil {
			errs = append(errs, c.allowShare(p, at))
		}
	}
	return errors.Join(errs...)
}

// allowShare refuses the same of a share that leads to at.
func (c Config) allowShare(p, at string) error {
	for _, dir := range append([]string{c.NetnsDir, c.LogDir, c.PrivateDir}, c.Hide...) {
		own, err := resolve(dir)
		if err != nil {
			own = dir
		}
		if within(at, own) || within(own, at) {
			return fmt.Errorf("cannot share %s: it would show %s, which is vsrun's own", p, dir)
		}
	}
	return nil
}

// openShares finds what is to be shared, as long as it can be seen. It is held
// open from here on, so that nothing else can take its place.
func (m *mounts) openShares(c Config) error {
	if err := c.CheckShare(); err != nil {
		return err
	}
	for _, p := range slices.Sorted(slices.Values(c.Share)) { // parents first
		fd, err := unix.Open(p, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("cannot share %s: %w", p, missing(p, "start what makes it, or take it out of share", err))
		}
		source := os.NewFile(uintptr(fd), p)
		at, err := os.Readlink(self(source))
		if err == nil {
			err = c.allowShare(p, at)
		}
		if err == nil && (m.place(at) == nil || m.place(at).target == at) {
			err = fmt.Errorf("cannot share %s: it leads to %s, which is not below %s", p, at, belowMemory)
		}
		if err == nil {
			fd, err = cloneTree(fd)
		}
		source.Close()
		if err != nil {
			return err
		}
		m.shares = append(m.shares, bind{target: m.inside(p), source: os.NewFile(uintptr(fd), p), tree: true})
	}
	return nil
}

// inside is where a share is to be seen: /run/a for /var/run/a, where /var/run
// is a symlink to /run. Other symlinks are the host's, and not there.
func (m *mounts) inside(p string) string {
	for _, d := range slices.Backward(m.places) {
		for _, name := range d.names {
			if within(p, name) {
				return filepath.Join(d.target, strings.TrimPrefix(p, name))
			}
		}
	}
	return p
}

// showShares mounts them in the directories that are covered now.
func (m *mounts) showShares() error {
	for _, b := range m.shares {
		fi, err := b.source.Stat()
		if err == nil {
			err = m.point(b.target, fi.IsDir())
		}
		if err == nil {
			err = m.add(b)
		}
		if err != nil {
			return fmt.Errorf("cannot share %s: %w", b.source.Name(), err)
		}
	}
	m.shares = nil
	return nil
}

// missing explains that the host lacks something, and what to do.
func missing(path, cure string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s does not exist on this host: %s", path, cure)
	}
	return err
}
