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

// collect keeps what comes through a pipe, until nobody has its other end; seen, if
// any, sees each line.
func (j *journal) collect(pipe *os.File, seen func(line []byte)) {
	defer pipe.Close()
	conn, err := pipe.SyscallConn()
	if err != nil {
		return
	}
	var rest []byte // a line that has no end yet
	for n := 1; n > 0; {
		err := conn.Read(func(fd uintptr) bool {
			scratch.Lock()
			defer scratch.Unlock()
			var err error
			n, err = unix.Read(int(fd), scratch.b[:lineSize-len(rest)])
			if err == nil {
				rest = j.lines(append(rest, scratch.b[:n]...), seen)
			}
			return !errors.Is(err, unix.EAGAIN)
		})
		if err != nil {
			break
		}
	}
	if len(rest) > 0 {
		j.lines(append(rest, '\n'), seen)
	}
}

// lines keeps the lines of text and returns what is left of it.
func (j *journal) lines(text []byte, seen func([]byte)) (rest []byte) {
	for {
		end := bytes.IndexByte(text, '\n') + 1
		if end == 0 && len(text) == lineSize {
			end = lineSize
		}
		if end == 0 {
			return bytes.Clone(text)
		}
		j.keep(string(text[:end]))
		if seen != nil {
			seen(text[:end])
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
