package service

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A bind is a file or directory of the virtual server's own, seen in place of
// the host's at target. Held open, source stays within reach when another bind
// covers the path it was opened at.
type bind struct {
	target string
	source *os.File
}

// holds asks the kernel whether the bind is there. It can go away: when the
// host replaces or removes what a mount covers, by rename(2) or rmdir(2), the
// kernel drops the mount in every other mount namespace (fs/namei.c,
// detach_mounts), and the virtual server would see the host's.
func (b bind) holds() bool {
	there, err := os.Stat(b.target)
	if err != nil {
		return false
	}
	own, err := b.source.Stat()
	return err == nil && os.SameFile(there, own)
}

func (b bind) mount() error {
	if b.holds() {
		return nil
	}
	source := fmt.Sprintf("/proc/self/fd/%d", b.source.Fd())
	var err error
	for range 10 {
		err = unix.Mount(source, b.target, "", unix.MS_BIND, "")
		if !errors.Is(err, unix.ENOENT) {
			break
		}
		// It may be there all the same: replaced by rename(2) after the kernel
		// had looked it up, or a mount of a file that has been removed, on which
		// nothing can be mounted (fs/dcache.c, d_set_mounted). That one is in
		// the way here, and of use to nobody.
		if isMountPoint(b.target) {
			unix.Unmount(b.target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot mount the virtual server's own %s: %w", b.target, err)
	}
	return nil
}

func (b bind) unmount() {
	if b.holds() {
		unix.Unmount(b.target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
}

// bindResolvConf gives the virtual server a resolv.conf of its own, written
// into scratch. It keeps its name there: a removed file cannot be mounted again.
func bindResolvConf(dns DNS, scratch string) (bind, error) {
	target, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil {
		return bind{}, missing("/etc/resolv.conf", "create it, an empty file will do", err)
	}
	name := filepath.Join(scratch, "resolv.conf")
	if err := os.WriteFile(name, []byte(dns.resolvConf()), 0o644); err != nil {
		return bind{}, err
	}
	source, err := os.Open(name)
	if err != nil {
		return bind{}, err
	}
	b := bind{target, source}
	return b, b.mount()
}

// missing explains that the host lacks what a bind is to cover.
func missing(path, cure string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s does not exist on this host: %s", path, cure)
	}
	return err
}

// mounts are the binds of a virtual server: those of its own, which last as long
// as it does, and the private directories of its services.
type mounts struct {
	keep  *os.Root // where dir is
	dir   string   // Config.PrivateDir
	root  *os.Root // of it
	own   []bind
	paths []string // private now, sorted
	binds []bind   // of the paths, parents first
	sick  string   // what heal complained of last
}

// use makes exactly the directories at paths private, or changes nothing and
// says why not.
func (m *mounts) use(paths []string) error {
	paths = slices.Compact(slices.Sorted(slices.Values(paths)))
	if slices.Equal(paths, m.paths) {
		return nil
	}
	had := m.paths
	if err := m.apply(paths); err != nil {
		return errors.Join(err, m.apply(had))
	}
	return nil
}

func (m *mounts) apply(paths []string) error {
	binds, err := m.find(paths)
	if err != nil {
		return err
	}
	for _, b := range slices.Backward(m.binds) {
		if !slices.ContainsFunc(binds, func(o bind) bool { return o.target == b.target }) {
			b.unmount()
		}
	}
	closeAll(m.binds)
	m.paths, m.binds = paths, binds
	for _, b := range binds {
		if err := b.mount(); err != nil {
			return err
		}
	}
	return nil
}

// heal mounts again what the host made vanish. It logs what it cannot mount,
// once.
func (m *mounts) heal() error {
	var errs []error
	for _, b := range m.own {
		if !m.covers(b.target) {
			errs = append(errs, b.mount())
		}
	}
	for _, b := range m.binds {
		errs = append(errs, b.mount())
	}
	err, text := errors.Join(errs...), ""
	if err != nil {
		text = err.Error()
	}
	if text != m.sick && text != "" {
		log.Print(text)
	}
	m.sick = text
	return err
}

// covers reports whether the path is in a private directory, and so is nothing
// of the host's.
func (m *mounts) covers(path string) bool {
	return slices.ContainsFunc(m.binds, func(b bind) bool { return within(path, b.target) })
}

// hide covers directories, each with the read-only one at cover.
func (m *mounts) hide(dirs []string, cover string) error {
	cover, err := filepath.EvalSymlinks(cover)
	if err != nil {
		return err
	}
	source, err := os.Open(cover)
	if err != nil {
		return err
	}
	hidden := []string{cover}
	for _, dir := range slices.Sorted(slices.Values(dirs)) { // parents first
		target, err := filepath.EvalSymlinks(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // there is nothing to hide, or it is hidden already
		}
		if err != nil {
			return err
		}
		if slices.ContainsFunc(hidden, func(h string) bool { return within(target, h) }) {
			continue
		}
		b := bind{target, source}
		if err := b.mount(); err != nil {
			return err
		}
		hidden, m.own = append(hidden, target), append(m.own, b)
	}
	return nil
}

// find looks up what is to be covered, before anything is, and makes what is to
// cover it.
func (m *mounts) find(paths []string) ([]bind, error) {
	var binds []bind
	for i, path := range paths {
		target, err := filepath.EvalSymlinks(path)
		inPrivate := slices.ContainsFunc(paths[:i], func(dir string) bool { return within(path, dir) })
		if errors.Is(err, fs.ErrNotExist) && inPrivate {
			target, err = path, nil // what private directories hold is nobody's but ours to make
		}
		if err != nil {
			closeAll(binds)
			return nil, missing(path, "create it", err)
		}
		source, err := m.open(target)
		if err != nil {
			closeAll(binds)
			return nil, fmt.Errorf("cannot make a private %s: %w", path, err)
		}
		binds = append(binds, bind{target, source})
	}
	return binds, nil
}

func closeAll(binds []bind) {
	for _, b := range binds {
		b.source.Close()
	}
}

// open opens the private directory that covers target; it is made when it is
// not there yet.
func (m *mounts) open(target string) (*os.File, error) {
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
	dir, err := m.root.Open(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	if err := m.create(name, target); err != nil {
		return nil, err
	}
	return m.root.Open(name)
}

// create makes the directory name with the mode and owner of like. It gets its
// name last, so that a crash leaves none that is half made.
func (m *mounts) create(name, like string) error {
	mode, uid, gid := os.FileMode(0o755), os.Geteuid(), os.Getegid()
	if fi, err := os.Stat(like); err == nil {
		if !fi.IsDir() {
			return syscall.ENOTDIR
		}
		st := fi.Sys().(*syscall.Stat_t)
		mode, uid, gid = fi.Mode(), int(st.Uid), int(st.Gid)
	}
	if err := m.root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	tmp := name + ".new"
	if err := m.root.Mkdir(tmp, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// EINVAL: an owner that this user namespace does not know cannot be given.
	if err := m.root.Chown(tmp, uid, gid); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	if err := m.root.Chmod(tmp, mode); err != nil {
		return err
	}
	return m.root.Rename(tmp, name)
}
