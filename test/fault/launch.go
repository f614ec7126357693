package fault

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// launchVar is set for a test binary that is to become the program, its arguments.
const launchVar = "VSRUN_FAULT_LAUNCH"

// teller is the descriptor on which it hands over the listener.
const teller = 3

// Main becomes the program in a process that Run has started, and does nothing in
// others. TestMain calls it first.
func Main() {
	if os.Getenv(launchVar) == "" {
		return
	}
	fmt.Fprintln(os.Stderr, "fault:", launch())
	os.Exit(125)
}

// launch puts the filter on this thread alone, which then becomes the program.
func launch() error {
	os.Unsetenv(launchVar)
	unix.CloseOnExec(teller)
	runtime.LockOSThread()
	listener, err := listen()
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(teller, []byte{0}, unix.UnixRights(listener), nil, 0); err != nil {
		return err
	}
	unix.Close(listener)
	return syscall.Exec(os.Args[1], os.Args[1:], os.Environ())
}

// listen makes the kernel tell of the calls: on the descriptor.
func listen() (int, error) {
	filter := program()
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// Once told of, a call is not begun anew for a signal, which Go's runtime sends often.
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return 0, fmt.Errorf("cannot make a seccomp filter with a listener: %w", errno)
	}
	return int(fd), nil
}

// program asks about the calls in watched, and allows all others.
func program() []unix.SockFilter {
	stmt := func(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }
	prog := []unix.SockFilter{stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0)} // seccomp_data.nr
	n := len(watched)
	for nr := range watched {
		n--
		prog = append(prog, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(n + 1), K: uint32(nr)})
	}
	return append(prog,
		stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW),
		stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_USER_NOTIF))
}
