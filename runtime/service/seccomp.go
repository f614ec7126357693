package service

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

type syscallNumber struct {
	name   string
	number uint32
}

// refusedSyscalls are those that no file server needs, and that change what a
// virtual server shares with others, or reach what namespaces do not divide: they
// fail with EPERM. Most need a capability as well; the filter holds whatever
// capabilities a service has, and whatever bug of the kernel is behind them.
var refusedSyscalls = []syscallNumber{
	// namespaces
	{"unshare", unix.SYS_UNSHARE}, {"setns", unix.SYS_SETNS},
	// mounts
	{"mount", unix.SYS_MOUNT}, {"umount2", unix.SYS_UMOUNT2}, {"pivot_root", unix.SYS_PIVOT_ROOT}, {"move_mount", unix.SYS_MOVE_MOUNT},
	{"open_tree", unix.SYS_OPEN_TREE}, {"open_tree_attr", openTreeAttr}, {"mount_setattr", unix.SYS_MOUNT_SETATTR},
	{"fsopen", unix.SYS_FSOPEN}, {"fsconfig", unix.SYS_FSCONFIG}, {"fsmount", unix.SYS_FSMOUNT}, {"fspick", unix.SYS_FSPICK},
	{"swapon", unix.SYS_SWAPON}, {"swapoff", unix.SYS_SWAPOFF},
	// modules, another kernel
	{"init_module", unix.SYS_INIT_MODULE}, {"finit_module", unix.SYS_FINIT_MODULE}, {"delete_module", unix.SYS_DELETE_MODULE},
	{"kexec_load", unix.SYS_KEXEC_LOAD}, {"kexec_file_load", unix.SYS_KEXEC_FILE_LOAD}, {"reboot", unix.SYS_REBOOT},
	// programs in the kernel, page faults that a process handles, and a second way into the kernel
	{"bpf", unix.SYS_BPF}, {"perf_event_open", unix.SYS_PERF_EVENT_OPEN}, {"userfaultfd", unix.SYS_USERFAULTFD},
	{"io_uring_setup", unix.SYS_IO_URING_SETUP}, {"io_uring_enter", unix.SYS_IO_URING_ENTER}, {"io_uring_register", unix.SYS_IO_URING_REGISTER},
	// keyrings, which no namespace divides
	{"add_key", unix.SYS_ADD_KEY}, {"request_key", unix.SYS_REQUEST_KEY}, {"keyctl", unix.SYS_KEYCTL},
	// the clock
	{"settimeofday", unix.SYS_SETTIMEOFDAY}, {"clock_settime", unix.SYS_CLOCK_SETTIME}, {"adjtimex", unix.SYS_ADJTIMEX}, {"clock_adjtime", unix.SYS_CLOCK_ADJTIME},
	// the host's log and accounting
	{"syslog", unix.SYS_SYSLOG}, {"acct", unix.SYS_ACCT},
}

// RefusedSyscalls names them.
func RefusedSyscalls() []string {
	var names []string
	for _, call := range refusedSyscalls {
		names = append(names, call.name)
	}
	return names
}

// openTreeAttr is Linux 6.15's open_tree_attr(2), the same number everywhere.
const openTreeAttr = 467

// families are those of socket(2) that are let through: the others are of no use to
// a file server, and a network namespace does not divide all of them (AF_VSOCK leads
// to the machine that this one is a guest of).
var families = []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET}

// namespaceFlags are those of clone(2) that make namespaces.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// architectures are those that the filter is for: the numbers above are this
// one's, and another's would mean other calls.
var architectures = map[string]uint32{
	"amd64": unix.AUDIT_ARCH_X86_64,
	"arm64": unix.AUDIT_ARCH_AARCH64,
}

// x32 is the bit of amd64's third calling convention (__X32_SYSCALL_BIT).
const x32 = 0x40000000

// where struct seccomp_data has what the filter looks at (include/uapi/linux/seccomp.h);
// of an argument it is the lower half.
const (
	dataNumber = 0
	dataArch   = 4
	dataArg0   = 16
	dataArg1   = 24
	dataArg2   = 32
)

func load(at uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: at, Size: 4} }

// when runs the instructions where what was loaded is value, and skips them
// elsewhere.
func when(value uint32, then ...bpf.Instruction) []bpf.Instruction {
	return append([]bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: value, SkipTrue: uint8(len(then))}}, then...)
}

// filter is the program that looks at each system call.
func filter(arch uint32) []bpf.Instruction {
	answer := func(errno unix.Errno) bpf.Instruction {
		return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}
	}
	allow, refuse, unknown := bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}, answer(unix.EPERM), answer(unix.ENOSYS)
	program := []bpf.Instruction{
		load(dataArch),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1}, unknown,
		load(dataNumber),
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32, SkipTrue: 1}, unknown,
	}
	add := func(number uint32, then ...bpf.Instruction) { program = append(program, when(number, then...)...) }
	// Its flags are in memory, which a filter cannot read; libc falls back.
	add(unix.SYS_CLONE3, unknown)
	for _, call := range refusedSyscalls {
		add(call.number, refuse)
	}
	add(unix.SYS_CLONE, load(dataArg0),
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: namespaceFlags, SkipTrue: 1}, refuse, allow)
	known := []bpf.Instruction{load(dataArg0)}
	for _, family := range families {
		known = append(known, when(family, allow)...)
	}
	add(unix.SYS_SOCKET, append(known, answer(unix.EAFNOSUPPORT))...)
	// With these, anybody may send from addresses that are not the virtual server's:
	// IPv6 asks nothing more (include/net/ipv6.h, ipv6_can_nonlocal_bind), and its
	// sockets take IPv4's option for the same.
	var foreign []bpf.Instruction
	for _, o := range []struct{ level, name uint32 }{{unix.SOL_IP, unix.IP_FREEBIND}, {unix.SOL_IPV6, unix.IPV6_FREEBIND}} {
		named := append([]bpf.Instruction{load(dataArg2)}, when(o.name, refuse)...)
		foreign = append(append(foreign, load(dataArg1)), when(o.level, named...)...)
	}
	add(unix.SYS_SETSOCKOPT, append(foreign, allow)...)
	return append(program, allow)
}

// installFilter filters the calling thread's system calls, and those of all that
// comes from it. It needs no_new_privs.
func installFilter() error {
	arch, ok := architectures[runtime.GOARCH]
	if !ok {
		return fmt.Errorf("there is no filter of system calls for this processor: set syscalls: %s", allSyscalls)
	}
	raw, err := bpf.Assemble(filter(arch))
	if err != nil {
		return err
	}
	program := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("cannot filter system calls: %w", errno)
	}
	return nil
}
