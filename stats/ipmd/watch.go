package ipmd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A pathWatch notices when paths may lead to other files, or to other contents:
// it watches each directory in which a part of a path, or of a symlink on the
// way, is looked up (inotify(7)).
type pathWatch struct {
	hits chan struct{} // each is one change or several

	fd   int
	file *os.File // fd, to read

	mu     sync.Mutex
	looked map[int32]map[string]bool // names by watch
}

// inChange is everything that can make a name lead elsewhere.
const inChange = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_CLOSE_WRITE | unix.IN_ATTRIB

func newPathWatch() (*pathWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &pathWatch{hits: make(chan struct{}, 1), fd: fd, file: os.NewFile(uintptr(fd), "inotify")}
	go w.read()
	return w, nil
}

func (w *pathWatch) close() { w.file.Close() }

// follow watches absolute paths, as they lead now, in place of those before.
func (w *pathWatch) follow(paths ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.looked
	w.looked = map[int32]map[string]bool{}
	for _, path := range paths {
		w.walk(path)
	}
	for wd := range was {
		if w.looked[wd] == nil {
			unix.InotifyRmWatch(w.fd, uint32(wd)) // fails where the directory is gone
		}
	}
}

// walk follows a path as the kernel would, as far as it leads. A directory that
// may not be watched is passed over.
func (w *pathWatch) walk(path string) {
	const maxLinks = 40 // path_resolution(7)
	dir, rest := "/", strings.Split(path, "/")
	for links := 0; len(rest) > 0 && links <= maxLinks; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			dir = filepath.Dir(dir)
			continue
		}
		w.look(dir, name)
		target, err := os.Readlink(filepath.Join(dir, name))
		switch {
		case err == nil:
			links++
			if filepath.IsAbs(target) {
				dir = "/"
			}
			rest = append(strings.Split(target, "/"), rest...)
		case errors.Is(err, unix.EINVAL): // no symlink
			dir = filepath.Join(dir, name)
		default:
			return
		}
	}
}

func (w *pathWatch) look(dir, name string) {
	wd, err := unix.InotifyAddWatch(w.fd, dir, inChange|unix.IN_ONLYDIR)
	if err != nil {
		return
	}
	if w.looked[int32(wd)] == nil {
		w.looked[int32(wd)] = map[string]bool{}
	}
	w.looked[int32(wd)][name] = true
}

// read ends when the file is closed.
func (w *pathWatch) read() {
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			return
		}
		if w.concerned(buf[:n]) {
			select {
			case w.hits <- struct{}{}:
			default:
			}
		}
	}
}

// concerned tells whether one of the events is of a name that was looked up.
func (w *pathWatch) concerned(events []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(events) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(events))
		mask := binary.NativeEndian.Uint32(events[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		if end > len(events) { // not the kernel's way
			return true
		}
		name, _, _ := bytes.Cut(events[unix.SizeofInotifyEvent:end], []byte{0})
		if w.looked[wd][string(name)] || mask&unix.IN_Q_OVERFLOW != 0 {
			return true
		}
		events = events[end:]
	}
	return false
}
