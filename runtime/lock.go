package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/plumbing"
)

const lockFile = "lock"

// The locks beside those of the virtual servers, which have their numbers.
const (
	whole = 0         // what concerns all virtual servers; it is taken last
	host  = MaxID + 1 // devices of the host that virtual servers share
	agent = MaxID + 2 // held by the node agent as long as it lives
	books = MaxID + 3 // the ledgers; it is taken after all others, and not for long
)

// A latch is the open files whose bytes are the locks, until it is closed. In the first
// one a byte is locked as kind.
type latch struct {
	files []*os.File
	kind  int16
}

// openLatch opens the file in the state directory. One that is read-only can be locked
// only for reading (fcntl_locking(2)), which waits for those that could write when they
// came. What keeps out the others is a file in the spare directory then.
func (s *Store) openLatch() (latch, error) {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return latch{}, fmt.Errorf("cannot make the state directory: %w", err)
	}
	path := filepath.Join(s.dir, lockFile)
	f, err := openLock(path)
	if errors.Is(err, unix.EROFS) && s.spare != "" {
		if f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0); err == nil {
			return s.openSpare(f)
		}
	}
	if err != nil {
		return latch{}, fmt.Errorf("cannot open the lock: %w", err)
	}
	return latch{[]*os.File{f}, unix.F_WRLCK}, nil
}

func (s *Store) openSpare(f *os.File) (latch, error) {
	err := os.MkdirAll(s.spare, 0o755)
	var spare *os.File
	if err == nil {
		spare, err = openLock(filepath.Join(s.spare, lockFile))
	}
	if err != nil {
		f.Close()
		return latch{}, fmt.Errorf("cannot open a lock beside %s, which is read-only: %w", s.dir, err)
	}
	return latch{[]*os.File{f, spare}, unix.F_RDLCK}, nil
}

func openLock(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
}

// take locks a byte; cmd says whether to wait for it.
func (l latch) take(cmd, id int) error {
	kind := l.kind
	for _, f := range l.files {
		lock := unix.Flock_t{Type: kind, Start: int64(id), Len: 1}
		if err := ignoringEINTR(func() error { return unix.FcntlFlock(f.Fd(), cmd, &lock) }); err != nil {
			return err
		}
		kind = unix.F_WRLCK
	}
	return nil
}

func (l latch) close() {
	for _, f := range l.files {
		f.Close()
	}
}

// lock serialises work on virtual servers among all processes: byte id of one file is
// locked, so that no file is left for each. The kernel lets go of it when the process ends.
// Who locks several takes them in the order of their numbers.
func (s *Store) lock(ctx context.Context, ids ...int) (unlock func(), err error) {
	l, err := s.openLatch()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		got := make(chan error, 1)
		go func() { got <- l.take(unix.F_OFD_SETLKW, id) }()
		select {
		case err = <-got:
		case <-ctx.Done():
			go func() { <-got; l.close() }()
			return nil, fmt.Errorf("another vsrun is at work on %s: %w", lockName(id), context.Cause(ctx))
		}
		if err != nil {
			l.close()
			return nil, fmt.Errorf("cannot lock %s: %w", lockName(id), err)
		}
	}
	return l.close, nil
}

// ErrBusy says that somebody else is at work on a virtual server.
var ErrBusy = errors.New("another vsrun is at work on it")

// tryLock is lock for who does not wait: ErrBusy.
func (s *Store) tryLock(id int) (unlock func(), err error) {
	l, err := s.openLatch()
	if err != nil {
		return nil, err
	}
	if err := l.take(unix.F_OFD_SETLK, id); err != nil {
		l.close()
		if isHeld(err) {
			err = ErrBusy
		}
		return nil, fmt.Errorf("cannot lock %s: %w", lockName(id), err)
	}
	return l.close, nil
}

// isHeld reports whether a lock was not to be had since somebody has it (fcntl_locking(2)).
func isHeld(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) }

// ErrTaken says that another node agent is at work on the same state directory, or in the
// same run directory.
var ErrTaken = errors.New("another one is running")

// BeAgent makes the caller the only node agent, until release or its end.
func (s *Store) BeAgent() (release func(), err error) {
	l, err := s.openLatch()
	if err != nil {
		return nil, err
	}
	err = l.take(unix.F_OFD_SETLK, agent)
	if err == nil && l.kind == unix.F_RDLCK { // another spare directory would keep out nobody
		err = unix.Flock(int(l.files[0].Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		l.close()
		if isHeld(err) {
			return nil, &plumbing.Refusal{Err: fmt.Errorf("%w, on %s", ErrTaken, s.dir), Cure: "end that one first: systemctl stop vsd"}
		}
		return nil, fmt.Errorf("cannot lock %s: %w", s.dir, err)
	}
	return l.close, nil
}

func lockName(id int) string {
	switch id {
	case whole:
		return "the state directory"
	case host:
		return "the host's devices"
	case books:
		return "the ledgers"
	}
	return VirtualServer{ID: id}.Namespace()
}

func ignoringEINTR(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
