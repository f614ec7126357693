package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/nsutil"
	"golang.org/x/sys/unix"
)

// The tests run real inits and services, in a host of their own: namespaces
// that end with the tests, a private /run and /etc. The test binary plays every
// part, and roleVar says which.
const roleVar = "VSRUN_TEST_ROLE"

var roles = map[string]func() error{
	"answer":  answerRole,
	"ask":     askRole,
	"exec":    execRole,
	"starter": starterRole,
	"nested":  nestedRole,
	"listen":  listenRole,
	"notify":  notifyRole,
	"keyring": keyringRole,
	"reach":   reachRole,
}

func TestMain(m *testing.M) {
	role := os.Getenv(roleVar)
	switch {
	case filepath.Base(os.Args[0]) == "vs-init", os.Args[0] == launchName:
		InitMain()
	case role == "tests", fuzzing():
		os.Exit(m.Run())
	case role == "host":
		exit(runHost())
	case role != "":
		exit(roles[role]())
	}
	exit(makeHost())
}

func exit(err error) {
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(failed.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func fuzzing() bool {
	for _, arg := range os.Args {
		if strings.HasPrefix(arg, "-test.fuzz") && arg != "-test.fuzz=" {
			return true
		}
	}
	return false
}

// again is this binary in another role.
func again(role string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

func makeHost() error {
	cmd := again("host", os.Args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	return cmd.Run()
}

// runHost is PID 1 of the host: it makes its mounts, runs the tests and reaps.
func runHost() error {
	for _, m := range []struct {
		source, target, fstype string
		flags                  uintptr
	}{
		{"", "/", "", unix.MS_PRIVATE | unix.MS_REC},
		{"tmpfs", "/run", "tmpfs", 0},
		{"tmpfs", "/srv", "tmpfs", 0}, // what virtual servers see of the tests
		{"tmpfs", "/etc", "tmpfs", 0},
		{"tmpfs", "/var", "tmpfs", 0},
		{"proc", "/proc", "proc", mountFlags},
		{"tmpfs", "/sys/fs/cgroup", "tmpfs", 0},     // the machine's: what has cgroups is tested in throw-away hosts
		{"", "/", "", unix.MS_SHARED | unix.MS_REC}, // as systemd leaves a host
	} {
		if err := unix.Mount(m.source, m.target, m.fstype, m.flags, ""); err != nil {
			return fmt.Errorf("cannot make the host's %s: %w", m.target, err)
		}
	}
	for _, dir := range []string{"/run/resolver", "/var/tmp"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"/run/resolver/resolv.conf": hostsText, "/etc/hosts": hostsText, "/etc/hostname": hostsText, binary: "",
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{"/etc/resolv.conf": "../run/resolver/resolv.conf", "/var/run": "/run"} {
		if err := os.Symlink(to, name); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err == nil {
		err = unix.Mount(self, binary, "", unix.MS_BIND, "")
	}
	if err != nil {
		return fmt.Errorf("cannot show the test binary inside: %w", err)
	}
	cmd := again("tests", os.Args[1:]...)
	if err := cmd.Start(); err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case pid == cmd.Process.Pid:
			if status.ExitStatus() != 0 {
				os.Exit(1)
			}
			return nil
		}
	}
}

// hostsText is what the host's own files of /etc hold.
const hostsText = "# the host's\n"

// binary is the test binary by a name that is there inside, too.
const binary = "/srv/test-binary"

// A virtual is a virtual server under test.
type virtual struct {
	*Client
	t      *testing.T
	ns     *nsutil.Namespace
	name   string // where the namespace is published
	dir    string // of its own, which it sees
	cfg    Config
	socket string
}

var numbers atomic.Int32

// plan makes all that a virtual server's init needs, but not the init.
func plan(t *testing.T) *virtual {
	t.Helper()
	id := int(numbers.Add(1))
	run, dir := fmt.Sprintf("/run/v/%d", id), fmt.Sprintf("/srv/v/%d", id)
	if err := errors.Join(os.MkdirAll(run, 0o755), os.MkdirAll(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	ns, err := nsutil.New()
	if err != nil {
		t.Fatal(err)
	}
	v := &virtual{
		t: t, ns: ns, name: fmt.Sprintf("/run/netns/vs%d", id), dir: dir, socket: run + "/init.sock",
		cfg: Config{ID: id, NetnsDir: "/run/netns", LogDir: dir + "/log", PrivateDir: dir + "/private"},
	}
	if err := ns.Publish(v.name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nsutil.Unpublish(v.name); ns.Close() })
	return v
}

// up starts a virtual server.
func up(t *testing.T, services ...Service) *virtual {
	t.Helper()
	v := plan(t)
	v.begin()
	if err := v.Set(t.Context(), services); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *virtual) begin() {
	v.t.Helper()
	c, err := Start(v.t.Context(), v.ns, "/proc/self/exe", v.socket, v.cfg)
	if err != nil {
		v.t.Fatal(err)
	}
	v.Client = c
	v.t.Cleanup(func() {
		if v.t.Failed() {
			log, _ := os.ReadFile(v.cfg.LogDir + "/init.log")
			v.t.Logf("log of the init:\n%s", log)
		}
		if err := c.Kill(context.Background()); err != nil {
			v.t.Error(err)
		}
		c.Close()
	})
}

// sh is a service that runs a script.
func sh(name, script string) Service {
	return Service{Name: name, Command: []string{"sh", "-c", script}}
}

// unit is the status of one service.
func (v *virtual) unit(name string) Status {
	v.t.Helper()
	list, err := v.Status(v.t.Context())
	if err != nil {
		v.t.Fatal(err)
	}
	for _, s := range list {
		if s.Name == name {
			return s
		}
	}
	v.t.Fatalf("there is no service %s in %v", name, list)
	panic("not reached")
}

// run runs a command inside and returns its output and exit code.
func (v *virtual) run(argv ...string) (string, int) {
	v.t.Helper()
	out, err := os.CreateTemp(v.t.TempDir(), "out")
	if err != nil {
		v.t.Fatal(err)
	}
	defer out.Close()
	code, err := v.Exec(v.t.Context(), argv, nil, nil, out, out)
	if err != nil {
		v.t.Fatalf("%q: %v", argv, err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		v.t.Fatal(err)
	}
	return string(text), code
}

func (v *virtual) output(script string) string {
	v.t.Helper()
	text, code := v.run("sh", "-c", script)
	if code != 0 {
		v.t.Fatalf("%s: exit code %d\n%s", script, code, text)
	}
	return strings.TrimSpace(text)
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in 20 s: %s", what)
		}
	}
}

func exists(pid int) bool { return unix.Kill(pid, 0) == nil }

// processes are the host's processes whose command line, with a space after each
// argument, begins with text.
func processes(text string) []int {
	var pids []int
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, _ := os.ReadFile(file)
		if bytes.HasPrefix(bytes.ReplaceAll(line, []byte{0}, []byte(" ")), []byte(text)) {
			var pid int
			fmt.Sscanf(file, "/proc/%d/", &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// link makes a veth pair with one end in the published namespace; it is gone
// from the host when nothing pins the namespace any more.
func link(t *testing.T, name, netns string) (gone func() bool) {
	t.Helper()
	ip(t, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", filepath.Base(netns))
	return func() bool { return exec.Command("ip", "link", "show", name).Run() != nil }
}

// What tests tell a service, when it is nothing to them whether it had to be killed.
func (v *virtual) StartService(ctx context.Context, name string) error {
	return v.tell(ctx, OrderStart, name)
}

func (v *virtual) StopService(ctx context.Context, name string) error {
	return v.tell(ctx, OrderStop, name)
}

func (v *virtual) RestartService(ctx context.Context, name string) error {
	return v.tell(ctx, OrderRestart, name)
}

func (v *virtual) ReloadService(ctx context.Context, name string) error {
	return v.tell(ctx, OrderReload, name)
}

func (v *virtual) tell(ctx context.Context, o Order, name string) error {
	_, err := v.Order(ctx, o, name)
	return err
}
