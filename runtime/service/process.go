package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A process is an init as seen from the host: held by a pidfd, so that no other
// process can take the place of its number.
type process struct {
	pid int
	f   *os.File
}

var errUnseen = errors.New("the init is in a PID namespace that cannot be seen from here")

// peerProcess is the process that listens at the other end of the connection;
// ErrNotRunning when it has ended.
func peerProcess(conn *os.File) (*process, error) {
	cred, err := peer(conn)
	if err != nil {
		return nil, err
	}
	if cred.Pid == 0 {
		return nil, errUnseen
	}
	p, err := openProcess(int(cred.Pid))
	if err != nil {
		return nil, err
	}
	// A process closes its files before its number can be another's: as long as
	// the other end is open, the pidfd is that of whoever has it open.
	if hungUp(conn) {
		p.f.Close()
		return nil, ErrNotRunning
	}
	return p, nil
}

// openProcess opens the process that has the number now; ErrNotRunning when
// none has.
func openProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) { // EINVAL: the number is a thread's
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open process %d: %w", pid, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // for wait's sake
		unix.Close(fd)
		return nil, err
	}
	return &process{pid, os.NewFile(uintptr(fd), "pidfd")}, nil
}

// hungUp reports whether the other end of the connection has been closed.
func hungUp(conn *os.File) bool {
	up := false
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}} // POLLHUP and POLLERR are always told
		n, err := unix.Poll(fds, 0)
		up = n == 0 && err == nil
	})
	return err != nil || !up
}

// wait waits until the process has ended. A PID namespace's init has ended when
// all processes in it have, and have been reaped (pid_namespaces(7)).
func (p *process) wait(ctx context.Context) error {
	// A descriptor of its own, because the deadline below is the descriptor's.
	fd, err := unix.FcntlInt(p.f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("dup", err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := raw.Read(hasEnded); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("cannot wait for process %d: %w", p.pid, err)
	}
	return nil
}

// hasEnded asks the kernel about the process behind a pidfd, without waiting.
func hasEnded(pidfd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1
}

// alive reports whether the process has not ended. As long as it is, its number
// is its own.
func (p *process) alive() bool { return !hasEnded(p.f.Fd()) }

// signal sends sig; having ended already is success.
func (p *process) signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(int(p.f.Fd()), sig, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("cannot send %s to process %d: %w", sig, p.pid, err)
	}
	return nil
}

// proc is a file of the process in /proc.
func (p *process) proc(name string) string {
	return filepath.Join("/proc", strconv.Itoa(p.pid), name)
}

// number is the virtual server's, which the init's title tells; 0 when it has
// ended.
func (p *process) number() int {
	text, _ := os.ReadFile(p.proc("cmdline"))
	_, title, _ := strings.Cut(strings.TrimSuffix(string(text), "\x00"), "\x00vs")
	n, _ := strconv.Atoi(title)
	return n
}

// child translates the number that a child of the process has in its PID
// namespace into the caller's; 0 when there is no such child any more.
func (p *process) child(inner int) int {
	ns, err := os.Open(p.proc("ns/pid"))
	if err != nil {
		return 0
	}
	defer ns.Close()
	pid, _, errno := unix.Syscall(unix.SYS_IOCTL, ns.Fd(), unix.NS_GET_PID_FROM_PIDNS, uintptr(inner))
	switch errno {
	case 0:
		return int(pid)
	case unix.ENOTTY: // before Linux 6.11
		return p.childByStatus(inner)
	}
	return 0
}

// childByStatus is child for kernels without the ioctl.
func (p *process) childByStatus(inner int) int {
	lists, _ := filepath.Glob(p.proc("task/*/children")) // children belong to threads
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil && innermost(pid) == inner {
				return pid
			}
		}
	}
	return 0
}

// innermost is the number that the process has in its own PID namespace, the
// last of NSpid in /proc/PID/status (proc_pid_status(5)).
func innermost(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(numbers)
			n, _ := strconv.Atoi(fields[len(fields)-1])
			return n
		}
	}
	return 0
}
