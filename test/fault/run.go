package fault

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Fault is what befalls one call: its process is killed before it (Errno 0), or it
// fails with Errno. The netlink messages of one call are failed each by itself: the
// kernel refuses that one.
type Fault struct {
	Call  int // from 1 on; 0: none
	Errno syscall.Errno
}

// A Run is what became of a program.
type Run struct {
	Calls  []Call // that could have failed, in their order; those of what is left running are not among them
	Struck string // the one that the fault befell; "" when there were not so many
	Output string
	Code   int // 128 + the signal's number when it was killed
}

// Start runs a program with one fault, and returns when it has ended. What it has
// left running goes on.
func Start(f Fault, stdin string, argv ...string) (Run, error) {
	ours, theirs, err := socketpair()
	if err != nil {
		return Run{}, err
	}
	defer ours.Close()
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return Run{}, err
	}
	var out bytes.Buffer
	cmd := exec.Command("/proc/self/exe", append([]string{path}, argv[1:]...)...)
	cmd.Env = append(os.Environ(), launchVar+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	cmd.ExtraFiles = []*os.File{theirs}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return Run{}, err
	}
	listener, err := receive(ours)
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return Run{}, fmt.Errorf("%w: %s", err, out.String())
	}
	j := &judge{listener: listener, fault: f}
	go j.sit()
	cmd.Wait()
	calls, struck := j.adjourn()
	return Run{calls, struck, out.String(), exitCode(cmd.ProcessState.Sys().(syscall.WaitStatus))}, nil
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

// A judge says of each call what is to become of it.
type judge struct {
	listener int
	fault    Fault

	mu     sync.Mutex
	over   bool // the program has ended
	calls  []Call
	struck string
}

// adjourn lets all further calls be.
func (j *judge) adjourn() (calls []Call, struck string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.over = true
	return j.calls, j.struck
}

// sit answers until no process has the filter any more.
func (j *judge) sit() {
	defer unix.Close(j.listener)
	for {
		polled := []unix.PollFd{{Fd: int32(j.listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(polled, -1); err == unix.EINTR {
			continue
		}
		if polled[0].Revents&unix.POLLIN == 0 {
			return
		}
		var n notification
		if !j.ioctl(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)) {
			continue // who called has been killed
		}
		v := verdict{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if errno := j.judge(n); errno != 0 {
			v.errno, v.flags = -int32(errno), 0
		}
		j.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&v))
	}
}

func (j *judge) ioctl(request uintptr, arg unsafe.Pointer) bool {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(j.listener), request, uintptr(arg))
	return errno == 0
}

// judge is the error for a call, 0 for none.
func (j *judge) judge(n notification) syscall.Errno {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.over {
		return 0
	}
	call := n.call()
	if call == nil {
		return 0
	}
	parts := []Call{*call}
	for k, typ := range n.messages() {
		words := fmt.Sprintf("%s, message %d (%d)", call.Words, k, typ)
		parts = append(parts, Call{fmt.Sprintf("%s %d", call.Kind, typ), words, call.Changes, true})
	}
	first := len(j.calls) + 1
	j.calls = append(j.calls, parts...)
	k := j.fault.Call - first
	if j.fault.Call == 0 || k < 0 || k >= len(parts) {
		return 0
	}
	j.struck = parts[k].Words
	switch {
	case j.fault.Errno == 0:
		unix.Kill(int(n.pid), unix.SIGKILL)
		return 0
	case k > 0:
		if err := n.refuse(k - 1); err != nil {
			j.struck = "" // nothing happened
		}
		return 0
	}
	return j.fault.Errno
}
