package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/runtime"
)

func (a *app) logsCommand() *cobra.Command {
	var l logs
	c := &cobra.Command{
		Use:   "logs ID [SERVICE]",
		Short: "Show what services wrote to standard output and error",
		Args:  arguments(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			l.out = a.out
			r, err := a.runtime()
			if err == nil {
				err = a.logs(c.Context(), r, args, &l)
			}
			if err != nil {
				return fmt.Errorf("cannot show the logs of %s: %w", args[0], err)
			}
			return nil
		},
	}
	flags := c.Flags()
	flags.BoolVarP(&l.follow, "follow", "f", false, "go on as more is written")
	flags.BoolVarP(&l.stamps, "timestamps", "t", false, "show when each line was written")
	flags.IntVarP(&l.tail, "tail", "n", -1, "so many lines, the latest (default all)")
	return c
}

func (a *app) logs(ctx context.Context, r *runtime.Runtime, args []string, l *logs) error {
	id, err := find(r, args[0])
	if err != nil {
		return err
	}
	vs, err := r.Store.Load(id)
	if err != nil {
		return err
	}
	var names []string
	for _, s := range vs.Services {
		if len(args) == 1 || s.Name == args[1] {
			names = append(names, s.Name)
		}
	}
	switch {
	case len(names) == 0 && len(args) == 2:
		return fmt.Errorf("%s has no service %s", vs, args[1])
	case len(names) == 0:
		return fmt.Errorf("%s has no services", vs)
	case l.follow && len(names) > 1:
		return usagef("which service? vsrun logs %s SERVICE -f", args[0])
	}
	for _, name := range names {
		if len(names) > 1 {
			fmt.Fprintf(a.out, "==> %s <==\n", name)
		}
		if err := l.showService(ctx, r, vs, name); err != nil {
			return err
		}
	}
	return nil
}

// logs shows what is kept of services' output.
type logs struct {
	follow, stamps bool
	tail           int // lines; negative: all
	out            io.Writer
}

func (l *logs) showService(ctx context.Context, r *runtime.Runtime, vs runtime.VirtualServer, name string) error {
	if matches := r.Journal(vs, name); matches != nil {
		return l.showJournal(ctx, matches)
	}
	return l.show(ctx, r.LogFiles(vs.ID, name))
}

// showJournal shows what the host's journal has of a service.
func (l *logs) showJournal(ctx context.Context, matches []string) error {
	args := append([]string{"--quiet", "--no-pager", "--output=cat"}, matches...)
	if l.stamps {
		args[2] = "--output=short-iso"
	}
	if l.tail >= 0 {
		args = append(args, fmt.Sprintf("--lines=%d", l.tail))
	} else if l.follow {
		args = append(args, "--lines=all")
	}
	if l.follow {
		args = append(args, "--follow")
	}
	journal := exec.CommandContext(ctx, "journalctl", args...)
	journal.Stdout, journal.Stderr = l.out, os.Stderr
	err := journal.Run()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// openLog opens a file for reading; a pipe would wait for its writer.
func openLog(file string) (*os.File, error) { return os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0) }

// show shows the files, the oldest first, and follows the last.
func (l *logs) show(ctx context.Context, files []string) error {
	current := files[len(files)-1]
	var watch *os.File
	if l.follow { // from before the first look, so that nothing is missed
		var err error
		if watch, err = watchDir(filepath.Dir(current)); err != nil {
			return err
		}
		defer watch.Close()
		defer context.AfterFunc(ctx, func() { watch.Close() })()
	}
	var last []string
	var f *os.File
	for _, file := range files {
		next, err := openLog(file)
		if errors.Is(err, fs.ErrNotExist) { // not that much, or not started yet
			continue
		}
		if err == nil {
			f.Close()
			f = next
			last, err = l.copy(f, last)
		}
		if err != nil {
			return err
		}
	}
	defer func() { f.Close() }()
	l.print(last)
	if !l.follow {
		return nil
	}
	l.tail = -1
	return l.goOn(ctx, current, &f, watch)
}

// copy prints a file; where only the latest lines are wanted, it adds to them instead.
func (l *logs) copy(f *os.File, last []string) ([]string, error) {
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadString('\n')
		switch {
		case strings.HasSuffix(line, "\n"):
			last = append(last, line)
		case line != "": // the rest of it is being written
			if _, err := f.Seek(-int64(len(line)), io.SeekCurrent); err != nil {
				return last, err
			}
		}
		if l.tail < 0 {
			l.print(last)
			last = last[:0]
		} else if drop := len(last) - l.tail; drop > 0 {
			last = append(last[:0], last[drop:]...)
		}
		if err == io.EOF {
			return last, nil
		}
		if err != nil {
			return last, err
		}
	}
}

func (l *logs) print(lines []string) {
	for _, line := range lines {
		if _, text, ok := strings.Cut(line, " "); ok && !l.stamps {
			line = text
		}
		io.WriteString(l.out, line)
	}
}

// watchDir has the kernel tell what happens to the files of a directory.
func watchDir(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_FROM|unix.IN_DELETE|unix.IN_DELETE_SELF)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot watch the log: %w", err)
	}
	return os.NewFile(uintptr(fd), "inotify"), nil
}

// goOn shows what comes, until ctx ends or the file is gone.
func (l *logs) goOn(ctx context.Context, current string, f **os.File, watch *os.File) error {
	events := make([]byte, 4096)
	for {
		if *f != nil {
			if _, err := l.copy(*f, nil); err != nil {
				return err
			}
		}
		next, err := openLog(current)
		if errors.Is(err, fs.ErrNotExist) && gone(current, *f) {
			return nil
		}
		if err == nil {
			if *f, err = l.turnTo(next, *f); err != nil {
				return err
			}
		}
		if _, err := watch.Read(events); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// turnTo goes on with the next file when that is another one: the old has been put
// aside, and is complete.
func (l *logs) turnTo(next, f *os.File) (*os.File, error) {
	if f == nil { // nothing was written until now
		_, err := l.copy(next, nil)
		return next, err
	}
	a, err := next.Stat()
	if err != nil {
		return f, err
	}
	b, err := f.Stat()
	if err != nil || os.SameFile(a, b) {
		next.Close()
		return f, err
	}
	if _, err := l.copy(f, nil); err != nil {
		return f, err
	}
	f.Close()
	_, err = l.copy(next, nil)
	return next, err
}

// gone reports whether the file at path has been destroyed, not put aside; f is nil
// when it has not been there yet.
func gone(path string, f *os.File) bool {
	if f == nil {
		_, err := os.Stat(filepath.Dir(path))
		return errors.Is(err, fs.ErrNotExist)
	}
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) != nil || st.Nlink == 0
}
