package service

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	journalSize = 8 << 20 // bytes, after which a file is put aside
	journalKeep = 3       // files put aside: name.log.1 is the latest
	lineSize    = 4 << 10 // bytes; a longer line is several
)

// Stamp is how each line of a journal begins, before a space.
const Stamp = "2006-01-02T15:04:05.000Z"

// A journal is the file that a service's output is kept in, each line with its
// time. Its size is bounded. The host's own journal gets it, too.
type journal struct {
	root   *os.Root
	name   string // of the file
	host   *journald
	fields string // what the host's is told with each line

	mu   sync.Mutex
	f    *os.File // nil: not open
	size int64
	err  error // the latest; told once
}

func newJournal(root *os.Root, name string, host *journald) *journal {
	return &journal{root: root, name: name + ".log", host: host, fields: host.fields(name)}
}

// Write keeps lines, each of which ends with a newline. It never fails: there is
// nobody to tell, and a service must not suffer from a full disk.
func (j *journal) Write(text []byte) (int, error) {
	for line := range strings.Lines(string(text)) {
		j.keep(line)
	}
	return len(text), nil
}

func (j *journal) keep(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	line = strings.TrimSuffix(line, "\n") + "\n"
	j.host.send(j.fields, line)
	if j.f == nil || j.size >= journalSize {
		if err := j.open(); err != nil {
			j.complain(err)
			return
		}
	}
	n, err := j.f.WriteString(time.Now().UTC().Format(Stamp) + " " + line)
	j.size += int64(n)
	j.complain(err)
}

// open opens the file, and puts it aside first when it has its size.
func (j *journal) open() error {
	if j.f != nil {
		j.f.Close()
		j.f = nil
		for k := journalKeep; k > 1; k-- {
			j.root.Rename(aside(j.name, k-1), aside(j.name, k)) // there may be none
		}
		if err := j.root.Rename(j.name, aside(j.name, 1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	f, err := openLog(j.root, strings.TrimSuffix(j.name, ".log"))
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	j.f, j.size = f, fi.Size()
	return nil
}

func aside(name string, k int) string { return fmt.Sprintf("%s.%d", name, k) }

func (j *journal) complain(err error) {
	if err != nil && (j.err == nil || err.Error() != j.err.Error()) {
		fmt.Fprintf(os.Stderr, "cannot keep %s: %v\n", j.name, err)
	}
	j.err = err
}

// scratch is what pipes are read into, one after the other: an init has many, and
// seldom something to read.
var scratch struct {
	sync.Mutex
	b [lineSize]byte
}

// A feed is the pipe that a process of a service writes to.
type feed struct {
	journal *journal
	pipe    *os.File
	seen    func(line []byte) // nil: nobody looks at the lines
	rest    []byte            // a line that has no end yet; scratch's lock holds for it
}

// collect keeps what comes, until nobody has the pipe's other end.
func (f *feed) collect() {
	defer f.pipe.Close()
	conn, err := f.pipe.SyscallConn()
	if err != nil {
		return
	}
	for n := 1; n > 0; {
		if err := conn.Read(func(fd uintptr) bool {
			var err error
			n, err = f.take(fd)
			return !errors.Is(err, unix.EAGAIN)
		}); err != nil {
			return
		}
	}
}

// catchUp keeps what is in the pipe now: a process that has ended may be said to
// have only when its last words can be read.
func (f *feed) catchUp() {
	conn, err := f.pipe.SyscallConn()
	if err != nil {
		return
	}
	conn.Control(func(fd uintptr) { // an error means that all was kept
		left, _ := unix.IoctlGetInt(int(fd), unix.TIOCINQ) // others may go on writing
		for n := 1; n > 0 && left >= 0; left -= n {
			n, _ = f.take(fd)
		}
	})
}

// take keeps what one read(2) gives.
func (f *feed) take(fd uintptr) (n int, err error) {
	scratch.Lock()
	defer scratch.Unlock()
	n, err = unix.Read(int(fd), scratch.b[:lineSize-len(f.rest)])
	switch {
	case n > 0:
		f.rest = f.lines(append(f.rest, scratch.b[:n]...))
	case !errors.Is(err, unix.EAGAIN) && len(f.rest) > 0:
		f.rest = f.lines(append(f.rest, '\n'))
	}
	return n, err
}

// lines keeps the lines of text and returns what is left of it.
func (f *feed) lines(text []byte) (rest []byte) {
	for {
		end := bytes.IndexByte(text, '\n') + 1
		if end == 0 && len(text) == lineSize {
			end = lineSize
		}
		if end == 0 {
			return bytes.Clone(text)
		}
		f.journal.keep(string(text[:end]))
		if f.seen != nil {
			f.seen(text[:end])
		}
		text = text[end:]
	}
}

// Journal lists the files of a service's output in a log directory, the oldest
// first. Some, or all, may not be there.
func Journal(dir, name string) []string {
	var files []string
	for k := journalKeep; k > 0; k-- {
		files = append(files, filepath.Join(dir, aside(name+".log", k)))
	}
	return append(files, filepath.Join(dir, name+".log"))
}
