package fault

import (
	"fmt"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Fault is what befalls one call: its process is killed before it (Errno 0), or it
// fails with Errno. The netlink messages of one call are failed each by itself: the
// kernel refuses that one.
type Fault struct {
	Call  Call // by its words and order; none: the zero Call
	Errno syscall.Errno
}

// A Trial watches all programs that it starts, and what they leave running. The zero
// Trial is ready; their calls count, and may fail, only between Begin and End.
type Trial struct {
	mu     sync.Mutex
	stage  stage
	fault  Fault
	calls  []Call
	nth    map[string]int          // by words
	last   map[uint32]notification // by thread
	struck bool
}

// A stage of a trial is what becomes of the calls.
type stage int

const (
	before  stage = iota // each is let be
	between              // each is counted, and one of them fails
	after                // each is let be, and what is started is not asked about any
)

// Begin counts calls from now on, and lets the fault befall one of them.
func (t *Trial) Begin(f Fault) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stage, t.fault, t.calls, t.nth, t.struck = between, f, nil, map[string]int{}, false
	t.last = map[uint32]notification{}
}

// End lets all further calls be. It returns those that there were, in their order, and
// whether the fault's was among them.
func (t *Trial) End() (calls []Call, struck bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stage = after
	return t.calls, t.struck
}

func (t *Trial) isOver() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stage == after
}

// sit answers what one listener tells, until no process has its filter any more.
func (t *Trial) sit(listener int) {
	defer unix.Close(listener)
	// Who asks and who answers take turns, so they may as well share a processor (Linux 6.6).
	unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	for {
		polled := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(polled, -1); err == unix.EINTR {
			continue
		}
		if polled[0].Revents&unix.POLLIN == 0 {
			return
		}
		var n notification
		if !control(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)) {
			continue // who called has been killed
		}
		v := verdict{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if errno := t.judge(n); errno != 0 {
			v.errno, v.flags = -int32(errno), 0
		}
		control(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&v))
	}
}

func control(listener int, request uintptr, arg unsafe.Pointer) bool {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), request, uintptr(arg))
	return errno == 0
}

// judge is the error for a call, 0 for none.
func (t *Trial) judge(n notification) syscall.Errno {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stage != between {
		return 0
	}
	call := n.call()
	if call == nil {
		return 0
	}
	// A sysctl for which the kernel cannot have the lock of all links at once is written anew
	// by itself, thousands of times (restart_syscall in net/ipv6/addrconf.c).
	last := t.last[n.pid]
	t.last[n.pid] = n
	if n.nr == unix.SYS_WRITE && last.nr == n.nr && last.args == n.args {
		return 0
	}
	parts := []Call{*call}
	for k, typ := range n.messages() {
		words := fmt.Sprintf("%s, message %d (%d)", call.Words, k, typ)
		parts = append(parts, Call{fmt.Sprintf("%s %d", call.Kind, typ), words, 0, call.Changes, true})
	}
	hit := -1
	for k := range parts {
		p := &parts[k]
		t.nth[p.Words]++
		p.Nth = t.nth[p.Words]
		if p.Words == t.fault.Call.Words && p.Nth == t.fault.Call.Nth {
			hit = k
		}
	}
	t.calls = append(t.calls, parts...)
	switch {
	case hit < 0:
		return 0
	case hit > 0:
		t.struck = n.refuse(hit-1) == nil
		return 0
	}
	t.struck = true
	if t.fault.Errno == 0 {
		unix.Kill(int(n.pid), unix.SIGKILL)
		return unix.EINTR // told to nobody: it keeps the kernel from doing the call yet
	}
	return t.fault.Errno
}
