package fault

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Program is one that a Trial has started.
type Program struct {
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan struct{}
}

// A Result is what became of a program.
type Result struct {
	Output string
	Code   int // 128 + the signal's number when it was killed
}

// Start starts a program. What it leaves running goes on after its end. One that is
// started after End is nobody's to watch.
func (t *Trial) Start(stdin string, argv ...string) (*Program, error) {
	p := &Program{cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = strings.NewReader(stdin), &p.out, &p.out
	start := t.startWatched
	if t.isOver() {
		start = (*exec.Cmd).Start
	}
	if err := start(p.cmd); err != nil {
		return nil, err
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// startWatched starts this program, which puts the filter on itself and becomes the other.
func (t *Trial) startWatched(cmd *exec.Cmd) error {
	ours, theirs, err := socketpair()
	if err != nil {
		return err
	}
	defer ours.Close()
	cmd.Args = slices.Concat([]string{"/proc/self/exe", cmd.Path}, cmd.Args[1:])
	cmd.Path = cmd.Args[0]
	cmd.Env = append(os.Environ(), launchVar+"=1")
	cmd.ExtraFiles = []*os.File{theirs}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return err
	}
	listener, err := receive(ours)
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return fmt.Errorf("%w: %s", err, cmd.Stderr)
	}
	go t.sit(listener)
	return nil
}

// Signal sends it a signal, unless it has ended.
func (p *Program) Signal(s syscall.Signal) { p.cmd.Process.Signal(s) }

// Pid is its process.
func (p *Program) Pid() int { return p.cmd.Process.Pid }

// Done is closed when it has ended.
func (p *Program) Done() <-chan struct{} { return p.done }

// Wait waits until it has ended.
func (p *Program) Wait() Result {
	<-p.done
	return Result{p.out.String(), exitCode(p.cmd.ProcessState.Sys().(syscall.WaitStatus))}
}

func exitCode(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

func socketpair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs"), nil
}

// receive takes the listener that launch hands over.
func receive(from *os.File) (int, error) {
	var data [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(from.Fd()), data[:], oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, err
	}
	list, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(list) == 0 {
		return 0, errors.Join(err, errors.New("no listener came"))
	}
	fds, err := unix.ParseUnixRights(&list[0])
	if err != nil {
		return 0, err
	}
	return fds[0], nil
}
