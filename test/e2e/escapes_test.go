package e2e_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What refuses an escape.
const (
	capability = "capability" // one that it does not have
	filter     = "filter"     // of system calls, and nothing else
	namespace  = "namespace"  // what it would reach is another's, and not there
	readOnly   = "read-only"  // what is mounted
	mode       = "mode"       // and owner of a file
	limit      = "limit"      // of a resource
)

// An attempt is at something that a service must not be able to do. try is nil when it
// was, and harmless all the same.
type attempt struct {
	name string
	by   string
	try  func() error
}

// What the escapes are to reach, as the test has told the service.
const (
	escapeVar = "VSRUN_TEST_ESCAPE" // a file that is for nobody
	targetVar = "VSRUN_TEST_TARGET" // paths of vsrun's or another's, with ":" between them
)

// The command lines of another virtual server's process, and of one that vsrun exec
// has started.
const (
	otherCommand   = "sleep 161803"
	visitorCommand = "sleep 314159"
)

// tryEscapes is what the service does.
func tryEscapes() {
	for _, e := range attempts {
		err := e.try()
		if err == nil {
			fmt.Printf("%s\tESCAPED\n", e.name)
			continue
		}
		fmt.Printf("%s\t%s\n", e.name, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

var attempts = []attempt{
	{"join the init's network through /proc", capability, func() error { return join("/proc/1/ns/net", unix.CLONE_NEWNET) }},
	{"join the init's mounts through /proc", capability, func() error { return join("/proc/1/ns/mnt", unix.CLONE_NEWNS) }},
	{"join a published namespace", namespace, func() error { return anyOf("/run/netns/*", open) }},
	{"join a namespace", capability, func() error { return join("/proc/self/ns/net", unix.CLONE_NEWNET) }},
	{"use a descriptor that it was not given", namespace, inherited},
	{"make a user namespace", filter, func() error { return unshare(unix.CLONE_NEWUSER) }},
	{"make a mount namespace", capability, func() error { return unshare(unix.CLONE_NEWNS) }},
	{"make a network namespace", capability, func() error { return unshare(unix.CLONE_NEWNET) }},
	{"fork into a user namespace", filter, forkIntoUser},
	{"fork by clone3, whose flags no filter sees", filter, func() error {
		_, _, errno := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
		if errno == unix.EINVAL { // the kernel has looked at its arguments
			return nil
		}
		return errno
	}},

	{"add an address", capability, func() error { return tool("ip", "addr", "add", "203.0.113.1/32", "dev", "lo") }},
	{"add a route", capability, func() error { return tool("ip", "route", "add", "203.0.113.0/24", "dev", "lo") }},
	{"change a link", capability, func() error { return tool("ip", "link", "set", "lo", "mtu", "1400") }},
	{"change the network's sysctls", readOnly, func() error { return writable("/proc/sys/net/ipv4/ip_forward") }},
	{"open a raw socket", capability, func() error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP) }},
	{"open a packet socket", capability, func() error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) }},
	{"write IP headers", capability, func() error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW) }},
	{"send from any address (IP_TRANSPARENT)", capability, func() error { return spoof(unix.AF_INET, unix.SOL_IP, unix.IP_TRANSPARENT) }},
	{"send from any address (IP_FREEBIND)", filter, func() error { return spoof(unix.AF_INET6, unix.SOL_IP, unix.IP_FREEBIND) }},
	{"send from any address (IPV6_FREEBIND)", filter, func() error { return spoof(unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_FREEBIND) }},
	{"mark packets", capability, func() error { return option(unix.AF_INET, unix.SOL_SOCKET, unix.SO_MARK) }},
	{"talk to the hypervisor (AF_VSOCK)", filter, func() error { return socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0) }},
	{"use the kernel's ciphers (AF_ALG)", filter, func() error { return socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0) }},
	{"reach an abstract socket of the host's", namespace, func() error { return dial("@vsrun-test-host") }},
	{"reach an abstract socket of another's", namespace, func() error { return dial("@vsrun-test-other") }},

	{"see another's process", namespace, func() error { return exists(fmt.Sprintf("/proc/%d", process(otherCommand))) }},
	{"signal the init", capability, func() error { return unix.Kill(1, 0) }},
	{"trace the init", capability, func() error { return unix.PtraceAttach(1) }},
	{"read the init's memory", capability, func() error { return readMemory(1) }},
	{"see with the init's eyes", capability, func() error { return exists("/proc/1/root/etc") }},
	{"go where the init is", capability, func() error { return exists("/proc/1/cwd/etc") }},
	{"take the init's descriptors", capability, func() error { return anyOf("/proc/1/fd/*", open) }},
	{"trace what vsrun exec runs", capability, func() error { return unix.PtraceAttach(process(visitorCommand)) }},
	{"see with the eyes of what vsrun exec runs", capability, func() error { return exists(fmt.Sprintf("/proc/%d/root/etc", process(visitorCommand))) }},
	{"take the descriptors of what vsrun exec runs", capability, func() error { return open(fmt.Sprintf("/proc/%d/fd/0", process(visitorCommand))) }},

	{"mount", capability, func() error { return unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "") }},
	{"mount a new /proc", capability, func() error { _, err := unix.Fsopen("proc", 0); return err }},
	{"make what is read-only writable", capability, func() error {
		return unix.MountSetattr(unix.AT_FDCWD, "/proc/sys", 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
	}},
	{"uncover what is below a mount", capability, func() error { return unix.Unmount("/run", unix.MNT_DETACH) }},
	{"copy a mount without what covers it", capability, func() error { _, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE); return err }},
	{"change the root", capability, func() error { return unix.PivotRoot("/", "/") }},
	{"open a file by its handle", capability, byHandle},

	{"make a device", capability, func() error { return unix.Mknod(fmt.Sprintf("/tmp/disk-%d", os.Getpid()), unix.S_IFBLK|0o600, 7<<8) }},
	{"open the host's memory", namespace, func() error { return open("/dev/mem") }},
	{"open the host's log", namespace, func() error { return open("/dev/kmsg") }},
	{"open a device that is not everybody's", namespace, devices},
	{"open a terminal of the host's", namespace, func() error { return anyOf("/dev/pts/[0-9]*", open) }},

	{"press the magic key", readOnly, func() error { return writable("/proc/sysrq-trigger") }},
	{"have the kernel start programs when one crashes", readOnly, func() error { return writable("/proc/sys/kernel/core_pattern") }},
	{"have the kernel start programs for a module", readOnly, func() error { return writable("/proc/sys/kernel/modprobe") }},
	{"change what /sys shows", readOnly, func() error { return anyOf("/sys/class/net/lo/mtu", writable) }},
	{"change the modes of /sys", readOnly, func() error { return os.Chmod("/sys/kernel", 0o755) }},
	{"load another kernel", capability, func() error { return call(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0) }},
	{"load another kernel from a file", capability, func() error { return call(unix.SYS_KEXEC_FILE_LOAD, 0, 0, 0, 0) }},
	{"load a module", capability, func() error { return call(unix.SYS_FINIT_MODULE, 0, 0, 0) }},
	{"unload a module", capability, func() error { return unix.DeleteModule("vsrun_test", 0) }},
	{"load a program into the kernel", capability, func() error { return call(unix.SYS_BPF, 0, 0, 0) }},
	{"count the host's events", filter, perf},
	{"handle page faults", filter, func() error { return call(unix.SYS_USERFAULTFD, 1, 0, 0) }}, // of its own (UFFD_USER_MODE_ONLY)
	{"have the kernel work from a ring", filter, func() error { return call(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&[120]byte{})), 0) }},
	{"use a keyring", filter, func() error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true); return err }},
	{"add a key", filter, func() error {
		_, err := unix.AddKey("user", "vsrun-test", []byte("x"), unix.KEY_SPEC_PROCESS_KEYRING)
		return err
	}},
	{"set the clock", capability, setClock},
	{"tune the clock", capability, func() error { _, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_MAXERROR}); return err }},
	{"set the host name", capability, func() error { return unix.Sethostname([]byte("mine")) }},
	{"read the host's messages", capability, func() error { _, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_CLEAR, make([]byte, 1)); return err }},
	{"keep accounts", capability, func() error { return unix.Acct("/nonexistent") }},
	{"swap", capability, func() error {
		path, _ := unix.BytePtrFromString("/nonexistent")
		return call(unix.SYS_SWAPON, uintptr(unsafe.Pointer(path)), 0, 0)
	}},
	{"reboot", capability, func() error { return call(unix.SYS_REBOOT, 0, 0, 0) }}, // without the magic numbers
	{"get in front of everybody", limit, func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -20) }},
	{"take a port below 1024", capability, func() error { return listen(":80") }},
	{"give a file away", capability, func() error { return giveAway(12345) }},

	{"see what is vsrun's, or another's", namespace, func() error {
		for _, path := range filepath.SplitList(os.Getenv(targetVar)) {
			if err := exists(path); err == nil {
				return nil
			}
		}
		return fs.ErrNotExist
	}},
	{"change the system's programs", readOnly, func() error { return unix.Access("/usr/bin", unix.W_OK) }},
	{"change the system's settings", readOnly, func() error { return unix.Access("/etc", unix.W_OK) }},
	{"change the system's accounts", readOnly, func() error { return writable("/etc/passwd") }},
	{"let itself in", readOnly, func() error { return unix.Access("/root", unix.W_OK) }},
	{"read a file that is for nobody", mode, func() error { return open(os.Getenv(escapeVar)) }},
	{"become another user", capability, func() error { return call(unix.SYS_SETRESUID, 12345, 12345, 12345) }}, // the last, for what it takes away
}

func open(path string) error { return opened(path, unix.O_RDONLY) }

// writable opens a file and writes nothing.
func writable(path string) error { return opened(path, unix.O_WRONLY) }

func opened(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func exists(path string) error {
	_, err := os.Stat(path)
	return err
}

// anyOf is nil when do succeeds with one of the files.
func anyOf(pattern string, do func(path string) error) error {
	err := error(fs.ErrNotExist)
	files, _ := filepath.Glob(pattern)
	for _, file := range files {
		if err = do(file); err == nil {
			return nil
		}
	}
	return err
}

func join(path string, kind int) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Setns(fd, kind)
}

func unshare(flags uintptr) error {
	return run(&syscall.SysProcAttr{Unshareflags: flags})
}

func forkIntoUser() error {
	return run(&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER})
}

func run(attr *syscall.SysProcAttr) error {
	cmd := exec.Command("true")
	cmd.SysProcAttr = attr
	return cmd.Run()
}

func tool(argv ...string) error {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return err
}

// inherited looks for a descriptor beyond the standard ones and those that this
// program has opened itself, which package os closes on exec.
func inherited() error {
	for fd := range 1024 {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if fd > 2 && err == nil && flags&unix.FD_CLOEXEC == 0 {
			return nil
		}
	}
	for fd := range 3 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return nil
		}
	}
	return fs.ErrNotExist
}

func socket(family, kind, protocol int) error {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func option(family, level, name int) error {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.SetsockoptInt(fd, level, name, 1)
}

// spoof sends from an address that the virtual server does not have.
func spoof(family, level, name int) error {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, level, name, 1); err != nil {
		return err
	}
	var from, to unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 77}, Port: 7777},
		&unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 100}, Port: 9}
	if family == unix.AF_INET6 {
		net6 := func(last byte) [16]byte { return [16]byte{0x20, 0x01, 0x0d, 0xb8, 15: last} }
		from, to = &unix.SockaddrInet6{Addr: net6(0x77), Port: 7777}, &unix.SockaddrInet6{Addr: net6(0), Port: 9}
		to.(*unix.SockaddrInet6).Addr[14] = 1 // ::100
	}
	if err := unix.Bind(fd, from); err != nil {
		return err
	}
	return unix.Sendto(fd, []byte("spoofed"), 0, to)
}

func dial(name string) error {
	conn, err := net.Dial("unix", name)
	if err == nil {
		conn.Close()
	}
	return err
}

func listen(address string) error {
	l, err := net.Listen("tcp4", address)
	if err == nil {
		l.Close()
	}
	return err
}

// process is one with the command line.
func process(command string) int {
	lists, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, list := range lists {
		if line, _ := os.ReadFile(list); strings.ReplaceAll(string(line), "\x00", " ") == command+" " {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(list)))
			return pid
		}
	}
	return -1
}

func readMemory(pid int) error {
	buf := make([]byte, 8)
	local := []unix.Iovec{{Base: &buf[0], Len: 8}}
	_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
	if errors.Is(err, unix.EFAULT) { // it may, but nothing is there
		return nil
	}
	return err
}

// byHandle opens the host's /etc/hostname, or what lies over it, past all names.
func byHandle() error {
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, "/etc", 0)
	if err != nil {
		return err
	}
	mount, err := unix.Open("/", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	_, err = unix.OpenByHandleAt(mount, handle, unix.O_RDONLY)
	return err
}

// devices looks for one that is neither memory, chance nor a terminal of its own.
func devices() error {
	harmless := map[uint32]bool{1: true, 5: true, 136: true} // major numbers, of Documentation/admin-guide/devices.txt
	found := error(fs.ErrNotExist)
	filepath.WalkDir("/dev", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeDevice == 0 {
			return nil
		}
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && !harmless[unix.Major(st.Rdev)] {
			if found = open(path); found == nil {
				return fs.SkipAll
			}
			found = fmt.Errorf("%s: %w", path, found)
		}
		return nil
	})
	return found
}

func call(number uintptr, args ...uintptr) error {
	args = append(args, 0, 0, 0, 0)
	_, _, errno := unix.Syscall6(number, args[0], args[1], args[2], args[3], 0, 0)
	if errno == 0 {
		return nil
	}
	return errno
}

// perf counts its own page faults, which most hosts let anybody do.
func perf() error {
	_, err := unix.PerfEventOpen(&unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_PAGE_FAULTS,
		Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Bits: unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv,
	}, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	return err
}

// setClock sets it to what it is.
func setClock() error {
	now := unix.NsecToTimespec(time.Now().UnixNano())
	return unix.ClockSettime(unix.CLOCK_REALTIME, &now)
}

func giveAway(uid int) error {
	f, err := os.CreateTemp("/tmp", "own")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	return f.Chown(uid, uid)
}
