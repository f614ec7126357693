package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/runtime"
)

func (a *app) logsCommand() *cobra.Command {
	var follow bool
	c := &cobra.Command{
		Use:   "logs ID [SERVICE]",
		Short: "Show what services wrote to standard output and error",
		Args:  arguments(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.runtime()
			if err == nil {
				err = a.logs(c.Context(), r, args, follow)
			}
			if err != nil {
				return fmt.Errorf("cannot show the logs of %s: %w", args[0], err)
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as more is written")
	return c
}

func (a *app) logs(ctx context.Context, r *runtime.Runtime, args []string, follow bool) error {
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
	case follow && len(names) > 1:
		return usagef("which service? vsrun logs %s SERVICE -f", args[0])
	}
	for _, name := range names {
		if len(names) > 1 {
			fmt.Fprintf(a.out, "==> %s <==\n", name)
		}
		if err := a.log(ctx, r.LogFile(id, name), follow); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) log(ctx context.Context, path string, follow bool) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !follow {
		return nil // not started yet
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if !follow {
		_, err = io.Copy(a.out, f)
		return err
	}
	return a.follow(ctx, f)
}

// follow copies what is there and what comes, until ctx ends: the kernel tells
// when the file has grown.
func (a *app) follow(ctx context.Context, f *os.File) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("cannot watch the log: %w", err)
	}
	watch := os.NewFile(uintptr(fd), "inotify")
	defer watch.Close()
	if _, err := unix.InotifyAddWatch(fd, f.Name(), unix.IN_MODIFY|unix.IN_DELETE_SELF|unix.IN_ATTRIB); err != nil {
		return fmt.Errorf("cannot watch the log: %w", err)
	}
	defer context.AfterFunc(ctx, func() { watch.Close() })()
	events := make([]byte, 4096)
	for {
		if _, err := io.Copy(a.out, f); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink == 0 { // destroyed
			return err
		}
		if _, err := watch.Read(events); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}
