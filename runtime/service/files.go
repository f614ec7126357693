package service

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// A File is one that a virtual server sees in place of the host's of that path,
// such as a daemon's configuration: the same command then does in each what that
// one's file says. Nobody in there can write it.
type File struct {
	// Path is absolute. The host must have a file there, except below the
	// directories that are in memory (see Config.Share).
	Path    string `json:"path,omitempty" yaml:"path,omitempty"`
	Content string `json:"content,omitempty" yaml:"content,omitempty"` // text in UTF-8
	Mode    string `json:"mode,omitempty" yaml:"mode,omitempty"`       // octal, up to 777; empty: 644. The owner is root
}

// maxFiles bounds the contents together, in bytes: in a request (see maxLine) one
// of them takes up to six.
const maxFiles = 128 << 10

// ValidateFiles reports everything that is wrong with a virtual server's files
// and can be told without the host.
func ValidateFiles(files []File, services []Service) []Problem {
	var problems []Problem
	size := 0
	for i, f := range files {
		at := fmt.Sprintf("files[%d].", i)
		add := func(field string, err error) {
			if err != nil {
				problems = append(problems, Problem{at + field, err})
			}
		}
		err := checkFile(f.Path, privateOf(services))
		if err == nil && slices.ContainsFunc(files[:i], func(o File) bool { return o.Path == f.Path }) {
			err = fmt.Errorf("%q is there twice", f.Path)
		}
		add("path", err)
		_, err = f.mode()
		add("mode", err)
		if !utf8.ValidString(f.Content) {
			add("content", errors.New("is no text in UTF-8"))
		}
		had := size
		if size += len(f.Content); size > maxFiles && had <= maxFiles {
			add("content", fmt.Errorf("makes it more than %d KiB in all files", maxFiles>>10))
		}
	}
	return problems
}

func checkFile(p string, dirs []private) error {
	if p == "" {
		return errors.New("is missing")
	}
	if err := checkPrivate(p); err != nil {
		return err
	}
	if dir, name := path.Split(p); dir == "/etc/" && slices.Contains([]string{"hosts", "hostname", "resolv.conf"}, name) {
		return fmt.Errorf("%q is the virtual server's own anyway, and says what name and dns say", p)
	}
	for _, d := range dirs {
		if within(p, d.path) {
			return fmt.Errorf("%q is in the private directory %s, where services write", p, d.path)
		}
	}
	return nil
}

func (f File) mode() (os.FileMode, error) {
	if f.Mode == "" {
		return 0o644, nil
	}
	n, err := strconv.ParseUint(f.Mode, 8, 9)
	if err != nil {
		return 0, fmt.Errorf("%q is not an octal number up to 777", f.Mode)
	}
	return os.FileMode(n), nil
}

// Digest is the file with a digest for its content: enough to see whether it is
// another, and no secret.
func (f File) Digest() File {
	h := fnv.New128a()
	io.WriteString(h, f.Content)
	f.Content = fmt.Sprintf("%x", h.Sum(nil))
	return f
}

// A laidFile is one as the init keeps it.
type laidFile struct {
	File        // its Digest
	name string // in the filesystem of these files
	own  ownFile
}

// makeFiles makes the filesystem that these files are in. It is mounted twice:
// what is shown comes from the mount that is read-only.
func (m *mounts) makeFiles(r room) (err error) {
	if m.written, err = r.filesystem("files", "755"); err != nil {
		return err
	}
	shown, err := r.mkdir("shown")
	if err == nil {
		err = unix.Mount(m.written.Name(), shown, "", unix.MS_BIND, "")
	}
	if err == nil {
		err = unix.Mount("", shown, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
	}
	if err != nil {
		return fmt.Errorf("cannot mount on %s: %w", shown, err)
	}
	m.shown, err = os.OpenRoot(shown)
	return err
}

// lay makes exactly these files the virtual server's own. What is wrong with one
// does not keep the others from it.
func (m *mounts) lay(files []File) error {
	m.files = slices.DeleteFunc(m.files, func(l laidFile) bool {
		if slices.ContainsFunc(files, func(f File) bool { return f.Path == l.Path }) {
			return false
		}
		m.takeAway(l)
		return true
	})
	var errs []error
	for _, f := range files {
		if err := m.layOne(f); err != nil {
			errs = append(errs, fmt.Errorf("cannot lay %s: %w", f.Path, err))
		}
	}
	return errors.Join(errs...)
}

// layOne makes a new file of one that has changed, too, and mounts it in place of the
// old. Who has the old one open reads all of that, and nothing of the new one, which
// may be for fewer to read.
func (m *mounts) layOne(f File) error {
	m.laid++
	l, old := laidFile{File: f.Digest(), name: strconv.Itoa(m.laid)}, laidFile{}
	l.own.path = f.Path
	var err error
	i := slices.IndexFunc(m.files, func(l laidFile) bool { return l.Path == f.Path })
	if i >= 0 {
		old = m.files[i]
		l.own.target = old.own.target
	} else {
		l.own.target, err = m.checkSpot(f.Path)
	}
	if err != nil || l.File == old.File {
		return err
	}
	err = m.write(l.name, f)
	if err == nil {
		l.own.source, err = m.shown.Open(l.name)
	}
	if err == nil && i >= 0 {
		old.own.unmount()
	}
	if err == nil {
		err = m.show(l.own)
	}
	if err != nil {
		m.takeAway(l)
		return err // the old one is mounted again by heal
	}
	if i < 0 {
		m.files = append(m.files, l)
		return nil
	}
	m.files[i] = l
	m.takeAway(old)
	return nil
}

// checkSpot is where a file is to be mounted, and reports what keeps it from that:
// nothing to mount on, or another file of the virtual server's own, which this one
// and that would cover in turn.
func (m *mounts) checkSpot(p string) (string, error) {
	target, there, err := m.has(p)
	if err != nil {
		return "", err
	}
	if !there {
		return "", missing(p, "create an empty one, or choose a path below /run", os.ErrNotExist)
	}
	for _, o := range m.ownFiles() {
		if o.target == target {
			return "", fmt.Errorf("it leads to %s, as %s does, which is the virtual server's own already", target, o.path)
		}
	}
	return target, nil
}

// write gives a new file its mode once all of it is there.
func (m *mounts) write(name string, f File) error {
	mode, err := f.mode()
	if err != nil {
		return err
	}
	if err := m.written.WriteFile(name, []byte(f.Content), 0o600); err != nil {
		return err
	}
	return m.written.Chmod(name, mode)
}

func (m *mounts) takeAway(l laidFile) {
	if l.own.source != nil {
		l.own.unmount()
		l.own.source.Close()
	}
	m.written.Remove(l.name)
}

// digests are the digests of the files that are laid.
func (m *mounts) digests() []File {
	var list []File
	for _, l := range m.files {
		list = append(list, l.File)
	}
	return list
}
