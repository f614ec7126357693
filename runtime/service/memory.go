package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

type memoryDir struct{ path, mode string }

// inMemory are the directories that every virtual server has for itself, empty
// when its init starts, with their modes: it is here that the programs of one
// machine find each other, by sockets, locks, pid files and shared memory.
// /var/run is one of its own where it is no symlink to /run. Only /dev is not
// empty.
var inMemory = []memoryDir{
	{"/run", "755"}, {"/var/run", "755"}, {"/tmp", "1777"}, {"/var/tmp", "1777"}, {"/dev/shm", "1777"}, {dev, "755"},
}

// belowMemory is what a message calls them.
const belowMemory = "/run, /tmp, /var/tmp or /dev"

// A place is one of these directories as it is on this host.
type place struct {
	names  []string // what the virtual server calls it: /run, and /var/run for a symlink to it
	target string   // without symlinks
	root   *os.Root // the filesystem that covers it
}

// A room is a small filesystem of the virtual server's own, on the directory of
// the published namespaces: what is mounted all over it is kept there, so that
// it can be mounted again.
type room string

// newRoom is the room that hideNamespaces has made.
func newRoom(netnsDir string) (room, error) {
	dir, err := filepath.EvalSymlinks(netnsDir)
	return room(dir), err
}

// write makes a file.
func (r room) write(name, text string) (*os.File, error) {
	name = filepath.Join(string(r), name)
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return os.Open(name)
}

// mkdir makes a directory, and returns its path.
func (r room) mkdir(name string) (string, error) {
	name = filepath.Join(string(r), name)
	return name, os.Mkdir(name, 0o755)
}

// filesystem makes one in memory.
func (r room) filesystem(name, mode string) (*os.Root, error) {
	dir, err := r.mkdir(name)
	if err != nil {
		return nil, err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode="+mode); err != nil {
		return nil, fmt.Errorf("cannot mount on %s: %w", dir, err)
	}
	return os.OpenRoot(dir)
}

// hold holds a directory of the host's by a mount of the room's own.
func (r room) hold(dir *os.Root) (*os.Root, error) {
	defer dir.Close()
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	at, err := r.mkdir("kept")
	if err != nil {
		return nil, err
	}
	if err := unix.Mount(self(f), at, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("cannot mount on %s: %w", at, err)
	}
	return os.OpenRoot(at)
}

// part has what is mounted outside the room shared with the mount namespaces that
// services have, and the room for itself: it would not keep what is mounted from it
// if it were a peer of that. It attaches copies of the host's that were made before,
// which go on to follow what the host mounts there and unmounts.
func (r room) part(copies []bind) error {
	err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, "")
	if err == nil {
		err = unix.Mount("", string(r), "", unix.MS_PRIVATE|unix.MS_REC, "")
	}
	for i, b := range copies {
		err = errors.Join(err, r.attach("share"+strconv.Itoa(i), b.source))
	}
	if err != nil {
		return fmt.Errorf("cannot part %s from the other mounts: %w", r, err)
	}
	return nil
}

// attach gives a copy of a mount a place.
func (r room) attach(name string, f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.IsDir() {
		name, err = r.mkdir(name)
	} else {
		var point *os.File
		if point, err = r.write(name, ""); err == nil {
			name = point.Name()
			point.Close()
		}
	}
	if err != nil {
		return err
	}
	return unix.MoveMount(int(f.Fd()), "", unix.AT_FDCWD, name, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// seal makes the room read-only, once nothing more is to be written there. What
// is mounted in it stays as it is.
func (r room) seal() error {
	if err := unix.Mount("", string(r), "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|mountFlags, ""); err != nil {
		return fmt.Errorf("cannot make %s read-only: %w", r, err)
	}
	return nil
}

// findPlaces looks up the directories that are to be in memory, parents first,
// as long as they are the host's.
func findPlaces() ([]place, error) {
	var places []place
	for _, d := range inMemory {
		target, err := filepath.EvalSymlinks(d.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(places, func(p place) bool { return p.target == target })
		if i < 0 {
			i = len(places)
			places = append(places, place{target: target})
		}
		places[i].names = append(places[i].names, d.path)
	}
	slices.SortFunc(places, func(a, b place) int { return strings.Compare(a.target, b.target) })
	return places, nil
}

// mode is that of the first of the names.
func (p place) mode() string {
	for _, d := range inMemory {
		if d.path == p.names[0] {
			return d.mode
		}
	}
	return "755"
}

// makePlaces makes the filesystems that are to cover the places.
func (m *mounts) makePlaces(r room) (err error) {
	if m.places, err = findPlaces(); err != nil {
		return err
	}
	for i := range m.places {
		p := &m.places[i]
		if p.root, err = r.filesystem("memory"+strconv.Itoa(i), p.mode()); err != nil {
			return err
		}
		for _, around := range m.places[:i] {
			if within(p.target, around.target) {
				err = errors.Join(err, around.root.MkdirAll(strings.TrimPrefix(p.target, around.target+"/"), 0o755))
			}
		}
		if p.names[0] == dev {
			err = errors.Join(err, fillDev(p.root.Name()))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cover mounts them. What the host mounts there later comes below.
func (m *mounts) cover() error {
	for _, p := range m.places {
		source, err := p.root.Open(".")
		if err != nil {
			return err
		}
		if err := m.add(bind{target: p.target, source: source, tree: true}); err != nil {
			return err
		}
	}
	return nil
}

// place is the directory in memory that the path is in, or is; nil when that is
// none.
func (m *mounts) place(path string) *place {
	for i := range slices.Backward(m.places) { // the innermost
		if within(path, m.places[i].target) {
			return &m.places[i]
		}
	}
	return nil
}

// point makes what is to be mounted on, a directory or a file, where the virtual
// server has the say; elsewhere it is the host's to have it.
func (m *mounts) point(target string, dir bool) error {
	p := m.place(target)
	if p == nil || target == p.target {
		return nil
	}
	name := strings.TrimPrefix(target, p.target+"/")
	if dir {
		return p.root.MkdirAll(name, 0o755)
	}
	if err := p.root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := p.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// resolve follows the symlinks of a path as far as there is something, the last
// ones too that lead nowhere.
func resolve(path string) (string, error) {
	const links = 40 // as many as the kernel follows (path_resolution(7))
	for range links {
		target, err := filepath.EvalSymlinks(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return target, err
		}
		dir, err := resolve(filepath.Dir(path))
		if err != nil {
			return "", err
		}
		path = filepath.Join(dir, filepath.Base(path))
		to, err := os.Readlink(path)
		if err != nil { // it is what there is not
			return path, nil
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(dir, to)
		}
		path = to
	}
	return "", &fs.PathError{Op: "resolve", Path: path, Err: unix.ELOOP}
}
