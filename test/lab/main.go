package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The test binary runs three times: as started by go test, as PID 1 of the
// throw-away host, and in there as the tests.
const (
	stageVar  = "VSRUN_LAB_STAGE"
	stageInit = "init"
	stageTest = "test"
)

// broken is the exit status of a host that could not be made; tests use 0–2.
const broken = 125

// Main runs the tests of m in a throw-away host and exits with their status.
//
//	func TestMain(m *testing.M) { lab.Main(m) }
func Main(m interface{ Run() int }) {
	var code int
	var err error
	switch os.Getenv(stageVar) {
	case stageInit:
		code, err = runInit()
	case stageTest:
		code, err = runTests(m)
	default:
		code, err = runHost()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab: cannot make a throw-away host:", err)
		if os.Getuid() != 0 || SingleUser() {
			fmt.Fprintln(os.Stderr, "hint: as an ordinary user this needs user namespaces: look at the sysctls "+
				"user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns")
		}
		code = broken
	}
	os.Exit(code)
}

const namespaces = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
	syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC

// runHost starts PID 1 of a new host and waits for it. The host dies with this
// process: PID 1 watches the pipe.
func runHost() (int, error) {
	watched, held, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer held.Close()
	group := newCgroup()
	defer group.remove()

	start := func(attr *syscall.SysProcAttr) (*exec.Cmd, error) {
		cmd := again(stageInit)
		cmd.ExtraFiles = []*os.File{watched}
		cmd.SysProcAttr = attr
		return cmd, cmd.Start()
	}
	cmd, err := start(group.attr(namespaces))
	if errors.Is(err, unix.EPERM) { // not root, or root without its powers
		cmd, err = start(asUser())
	}
	if err != nil {
		return 0, err
	}
	watched.Close()
	forwardSignals(cmd.Process)
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return exitCode(cmd.ProcessState.Sys().(syscall.WaitStatus)), nil
}

// asUser maps the caller, and nobody else, to root of a new user namespace.
// That is all an unprivileged process may map by itself (user_namespaces(7)).
func asUser() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  namespaces | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
}

// runInit is PID 1 of the host: it furnishes it, runs the tests, reaps what
// they orphan, and takes everything along when it ends, as the kernel kills a
// PID namespace with its init.
func runInit() (int, error) {
	const watched = 3
	unix.CloseOnExec(watched)
	go func() {
		io.Copy(io.Discard, os.NewFile(watched, "parent"))
		os.Exit(broken)
	}()
	var legacy []string
	if ownCgroup() {
		legacy = enterLegacy() // as long as the machine's are in sight
	}
	if err := furnish(); err != nil {
		return 0, err
	}
	cmd := again(stageTest)
	if ownCgroup() {
		cmd.Env = append(cmd.Env, cgroupsVar+"="+strings.Join(legacy, " "))
		// The root of the cgroup namespace is the cgroup this process is in.
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWCGROUP}
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	forwardSignals(cmd.Process)
	return reapUntil(cmd.Process.Pid)
}

// reapUntil collects every orphan's status until the child pid ends.
func reapUntil(pid int) (int, error) {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, err
		case got == pid:
			return exitCode(status), nil
		}
	}
}

// runTests is the last stage: the tests themselves, inside the host.
func runTests(m interface{ Run() int }) (int, error) {
	if err := Inside(); err != nil {
		return 0, err
	}
	// The workers that `go test -fuzz` starts come here too, second.
	if err := joinCgroup(); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// Inside is nil in a throw-away host, and elsewhere the reason to touch
// nothing.
func Inside() error {
	if _, err := os.Stat(labDir); err != nil {
		return errors.New("not inside one: TestMain has to call lab.Main")
	}
	// Nobody else's PID 1 is this very program, in this network namespace.
	for _, link := range []string{"exe", "ns/net"} {
		init, err := os.Readlink("/proc/1/" + link)
		if err != nil {
			return err
		}
		self, err := os.Readlink("/proc/self/" + link)
		if err != nil {
			return err
		}
		if init != self {
			return fmt.Errorf("not inside one: PID 1 has %s %s, not %s", link, init, self)
		}
	}
	return nil
}

// again is this program once more, with the same arguments and output.
func again(stage string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), stageVar+"="+stage)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// forwardSignals hands on what a person or go test sends to end the tests;
// SIGQUIT is how go test asks for the stacks of a test that hangs.
func forwardSignals(to *os.Process) {
	got := make(chan os.Signal, 4)
	signal.Notify(got, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	go func() {
		for s := range got {
			to.Signal(s) // an error means it has ended
		}
	}()
}

// exitCode is what a shell would call the status.
func exitCode(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
