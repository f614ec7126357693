package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// An init holds a lock on the directory of its logs as long as it lives: a POSIX
// record lock, because the kernel tells who holds one, as the caller counts
// (fcntl_locking(2), F_GETLK). So an init can be found that nobody can connect
// to, and without a search among all processes. A filesystem that has no such
// locks on directories costs nothing else.

// hold takes the lock, for good.
func hold(logDir string) error {
	// Opened past package os: the lock is gone once any descriptor of the
	// directory is closed, and so must not be left to the garbage collector.
	fd, err := unix.Open(logDir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_RDLCK})
	}
	if err != nil {
		return fmt.Errorf("cannot lock %s: %w", logDir, err)
	}
	return nil
}

// holder is the process that holds the lock, 0 when none does.
func holder(logDir string) (int, error) {
	d, err := os.OpenFile(logDir, os.O_RDONLY|unix.O_DIRECTORY, 0) // a pipe would wait for its writer
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer d.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(d.Fd(), unix.F_GETLK, &lock)
	switch {
	case err != nil, lock.Type == unix.F_UNLCK: // an error: nobody could take it either
		return 0, nil
	case lock.Pid == 0:
		return 0, errUnseen
	}
	return int(lock.Pid), nil
}

// Find is the init whose Config has this LogDir, ErrNotRunning when none lives.
// It need not listen on socket, nor anywhere: it can be killed, waited for and
// entered. What is asked of it through the socket is ErrNotRunning until it
// listens there.
func Find(logDir, socket string) (*Client, error) {
	for {
		pid, err := holder(logDir)
		if err != nil {
			return nil, err
		}
		if pid == 0 {
			return nil, ErrNotRunning
		}
		p, err := openProcess(pid)
		if errors.Is(err, ErrNotRunning) {
			continue // it has just ended
		}
		if err != nil {
			return nil, err
		}
		// It holds the lock, so it had not ended, so the pidfd is its own.
		if now, err := holder(logDir); err == nil && now == pid {
			return &Client{socket, p}, nil
		}
		p.f.Close()
	}
}
