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

	"golang.org/x/sys/unix"
)

// A bind is a file or directory of the virtual server's own, seen in place of
// the host's at target. Held open, source stays within reach when another bind
// covers the path it was opened at.
type bind struct {
	target string // without symlinks
	source *os.File
	tree   bool // with what is mounted in it
}

// self is the open file by a name that mount(2) takes.
func self(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// holds asks the kernel whether the bind is there. It can go away: when the
// host replaces or removes what a mount covers, by rename(2) or rmdir(2), the
// kernel drops the mount in every other mount namespace (fs/namei.c,
// detach_mounts), and the virtual server would see the host's.
func (b bind) holds() bool {
	at, err := b.open()
	if err != nil {
		return false
	}
	defer at.Close()
	return b.shows(at)
}

// shows reports whether it is the bind that is there.
func (b bind) shows(at *os.File) bool {
	there, err := at.Stat()
	if err != nil {
		return false
	}
	own, err := b.source.Stat()
	return err == nil && os.SameFile(there, own)
}

// open follows no symlink: the target has none, unless somebody in the virtual
// server has made one to have this mounted elsewhere.
func (b bind) open() (*os.File, error) {
	fd, err := openPath(b.target)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), b.target), nil
}

func (b bind) mount() error {
	if b.holds() {
		return nil
	}
	var err error
	for range 10 {
		err = b.try()
		if !errors.Is(err, unix.ENOENT) {
			break
		}
		// It may be there all the same: replaced by rename(2) after the kernel
		// had looked it up, or a mount of a file that has been removed, on which
		// nothing can be mounted (fs/dcache.c, d_set_mounted). That one is in
		// the way here, and of use to nobody.
		if at, err := b.open(); err == nil {
			unix.Unmount(self(at), unix.MNT_DETACH) // EINVAL: nothing is mounted there
			at.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("cannot mount the virtual server's own %s: %w", b.target, err)
	}
	return nil
}

func (b bind) try() error {
	target, err := b.open()
	if err != nil {
		return err
	}
	defer target.Close()
	flags := uintptr(unix.MS_BIND)
	if b.tree {
		flags |= unix.MS_REC
	}
	return unix.Mount(self(b.source), self(target), "", flags, "")
}

func (b bind) unmount() {
	at, err := b.open()
	if err != nil {
		return
	}
	defer at.Close()
	if b.shows(at) {
		unix.Unmount(self(at), unix.MNT_DETACH)
	}
}

// A private is a private directory that a service with these settings asks for.
type private struct {
	path     string
	settings Settings
}

// mounts are the binds of a virtual server: those of its own, which last as long
// as it does, and the private directories of its services.
type mounts struct {
	keep    *os.Root // where dir is
	dir     string   // Config.PrivateDir
	root    *os.Root // of it
	places  []place  // parents first
	volumes []bind   // until they are mounted
	shares  []bind   // until they are mounted
	nothing *os.File // an empty directory
	own     []bind   // in the order in which they were mounted
	etc     []ownFile
	written *os.Root // where the files are written that it was told to have
	shown   *os.Root // the same, read-only
	files   []laidFile
	laid    int       // how many there were
	private []private // now, sorted
	binds   []bind    // of these, parents first
	sick    string    // what heal complained of last
}

// furnish makes what the virtual server has for itself, and looks up what it is
// to see of the host. Nothing is covered yet.
func (m *mounts) furnish(c Config) error {
	r, err := newRoom(c.NetnsDir)
	if err != nil {
		return err
	}
	nothing, err := r.mkdir("nothing")
	if err != nil {
		return err
	}
	if m.nothing, err = os.Open(nothing); err != nil {
		return err
	}
	if m.keep, err = r.hold(m.keep); err != nil {
		return err
	}
	if err := m.makePlaces(r); err != nil {
		return err
	}
	if err := m.openVolumes(r, c.Volumes); err != nil {
		return err
	}
	if err := m.openShares(c); err != nil {
		return err
	}
	if err := m.writeEtc(r, c); err != nil {
		return err
	}
	if err := m.makeFiles(r); err != nil {
		return err
	}
	if err := r.part(m.shares); err != nil {
		return err
	}
	return r.seal()
}

// settle puts all that furnish has made in its place. The order matters: what is
// to be hidden may be in what is covered, and what is shown is on top.
func (m *mounts) settle(c Config) error {
	for _, step := range []func() error{
		m.cover, func() error { return m.hide(append([]string{c.NetnsDir}, c.Hide...)) },
		m.showVolumes, m.showShares, m.showFiles,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// add mounts a bind that lasts as long as the virtual server.
func (m *mounts) add(b bind) error {
	if err := b.mount(); err != nil {
		return err
	}
	m.own = append(m.own, b)
	return nil
}

// use makes exactly these directories private, or changes nothing and says why not.
// Of two with one path the first is the one that counts when it is made.
func (m *mounts) use(dirs []private) error {
	slices.SortStableFunc(dirs, func(a, b private) int { return strings.Compare(a.path, b.path) })
	samePath := func(a, b private) bool { return a.path == b.path }
	dirs = slices.CompactFunc(dirs, samePath)
	if slices.EqualFunc(dirs, m.private, samePath) {
		return nil
	}
	had := m.private
	if err := m.apply(dirs); err != nil {
		return errors.Join(err, m.apply(had))
	}
	return nil
}

func (m *mounts) apply(dirs []private) error {
	binds, err := m.find(dirs)
	if err != nil {
		return err
	}
	for _, b := range slices.Backward(m.binds) {
		if !slices.ContainsFunc(binds, func(o bind) bool { return o.target == b.target }) {
			b.unmount()
		}
	}
	closeAll(m.binds)
	m.private, m.binds = dirs, binds
	for _, b := range binds {
		if err := b.mount(); err != nil {
			return err
		}
	}
	return nil
}

// targets are where private directories are mounted.
func (m *mounts) targets(paths []string) []string {
	var targets []string
	for i, b := range m.binds {
		if slices.Contains(paths, m.private[i].path) {
			targets = append(targets, b.target)
		}
	}
	return targets
}

// heal mounts again what the host made vanish. It logs what it cannot mount,
// once.
func (m *mounts) heal() error {
	var errs []error
	for _, b := range m.own {
		if !m.isPrivate(b.target) {
			errs = append(errs, b.mount())
		}
	}
	errs = append(errs, m.showFiles())
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

// isPrivate reports whether the path is in a private directory, and so is nothing
// of the host's.
func (m *mounts) isPrivate(path string) bool {
	return slices.ContainsFunc(m.binds, func(b bind) bool { return within(path, b.target) })
}

// hide covers directories, each with an empty one that is read-only.
func (m *mounts) hide(dirs []string) error {
	var hidden []string
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
		if err := m.add(bind{target: target, source: m.nothing}); err != nil {
			return err
		}
		hidden = append(hidden, target)
	}
	return nil
}

// find looks up what is to be covered, before anything is, and makes what is to
// cover it.
func (m *mounts) find(dirs []private) ([]bind, error) {
	var binds []bind
	for i, d := range dirs {
		inPrivate := slices.ContainsFunc(dirs[:i], func(o private) bool { return within(d.path, o.path) })
		b, err := m.findOne(d, inPrivate)
		if err != nil {
			closeAll(binds)
			return nil, err
		}
		binds = append(binds, b)
	}
	return binds, nil
}

// findOne leaves one that is private already where it is: services may have made
// symlinks since that lead elsewhere.
func (m *mounts) findOne(d private, inPrivate bool) (bind, error) {
	if i := slices.IndexFunc(m.private, func(o private) bool { return o.path == d.path }); i >= 0 {
		source, err := os.Open(self(m.binds[i].source))
		return bind{target: m.binds[i].target, source: source}, err
	}
	target, err := m.locate(d.path, inPrivate)
	if err != nil {
		return bind{}, err
	}
	source, err := m.open(target, d.settings)
	if err != nil {
		return bind{}, fmt.Errorf("cannot make a private %s: %w", d.path, err)
	}
	return bind{target: target, source: source}, nil
}

// locate is where the private directory of that path is to be mounted. What
// private directories hold, and those in memory, is nobody's but ours to make.
func (m *mounts) locate(path string, inPrivate bool) (string, error) {
	target, err := m.follow(path)
	switch {
	case err != nil:
	case m.place(target) != nil: // there, too, when a private directory that covers it goes
		err = m.point(target, true)
	case !inPrivate:
		if _, err := os.Lstat(target); err != nil {
			return "", missing(path, "create it", err)
		}
	}
	if err != nil {
		return "", fmt.Errorf("cannot make a private %s: %w", path, err)
	}
	return target, nil
}

func closeAll(binds []bind) {
	for _, b := range binds {
		b.source.Close()
	}
}
