package service

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/nsutil"
	"golang.org/x/sys/unix"
)

func TestInside(t *testing.T) {
	other := plan(t) // another's namespace, published before
	v := up(t)
	plan(t) // another's, published later
	if got := v.output("hostname"); got != "vs"+strconv.Itoa(v.cfg.ID) {
		t.Errorf("hostname %q", got)
	}
	if got := v.output("tr '\\0' ' ' </proc/1/cmdline"); got != "vs-init vs"+strconv.Itoa(v.cfg.ID) {
		t.Errorf("process 1 is %q", got)
	}
	if got := v.output("ls /sys/class/net"); got != "lo" {
		t.Errorf("/sys shows the interfaces %q", got)
	}
	mounts := v.output("cat /proc/self/mountinfo")
	for _, name := range []string{other.name, v.name} {
		if strings.Contains(mounts, name+" ") {
			t.Errorf("%s is mounted inside:\n%s", name, mounts)
		}
	}
	if got := v.output("cat /etc/resolv.conf"); got != "# the host's" {
		t.Errorf("resolv.conf without DNS is %q", got)
	}
	if host, _ := os.Hostname(); host == v.output("hostname") {
		t.Error("the host has the virtual server's name")
	}
	for file, want := range map[string]string{"0": "/dev/null", "1": "/dev/null"} {
		if got, _ := os.Readlink(v.init.proc("fd/" + file)); got != want {
			t.Errorf("the init's descriptor %s is %s", file, got)
		}
	}
	if sid, err := unix.Getsid(v.Pid()); err != nil || sid != v.Pid() {
		t.Errorf("the init's session is %d, %v; its process %d", sid, err, v.Pid())
	}
}

func TestInNamespace(t *testing.T) {
	v := up(t)
	other := plan(t)
	if in, err := v.InNamespace(v.ns); !in || err != nil {
		t.Errorf("its own: %v, %v", in, err)
	}
	if in, err := v.InNamespace(other.ns); in || err != nil {
		t.Errorf("another's: %v, %v", in, err)
	}
	if err := v.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.InNamespace(v.ns); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after its end: %v", err)
	}
}

// Others' namespaces that are unpublished must be gone, though an init was
// started while one was published and lived when the other was.
func TestPinsNobody(t *testing.T) {
	before := plan(t)
	up(t)
	after := plan(t)
	for name, other := range map[string]*virtual{"before": before, "after": after} {
		gone := link(t, name, other.name)
		if gone() {
			t.Fatal("the link has never been there")
		}
		if err := nsutil.Unpublish(other.name); err != nil {
			t.Fatal(err)
		}
		other.ns.Close()
		eventually(t, "the namespace published "+name+" is gone", gone)
	}
}

// Nothing may pin a virtual server's own namespace after Shutdown.
func TestLeavesNothing(t *testing.T) {
	v := up(t, sh("a", "exec sleep 1000"), sh("b", "setsid sleep 1000 & exec sleep 1000"))
	gone := link(t, "left", v.name)
	if killed, err := v.Shutdown(t.Context(), 5*time.Second); err != nil || killed != nil {
		t.Fatalf("killed %q, %v", killed, err)
	}
	if _, err := os.Lstat(v.socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
	if err := nsutil.Unpublish(v.name); err != nil {
		t.Fatal(err)
	}
	v.ns.Close()
	eventually(t, "the namespace is gone", gone)
}

// What the starter was started with must not live on in the init.
func TestInheritsNothing(t *testing.T) {
	fds := make([]int, 2)
	if err := unix.Pipe(fds); err != nil { // without close-on-exec
		t.Fatal(err)
	}
	r := os.NewFile(uintptr(fds[0]), "pipe")
	defer r.Close()
	v := up(t, sh("a", "exec sleep 1000"))
	unix.Close(fds[1])
	fd := []unix.PollFd{{Fd: int32(fds[0])}}
	if n, err := unix.Poll(fd, 0); n != 1 || fd[0].Revents&unix.POLLHUP == 0 {
		t.Errorf("the pipe is still open somewhere: %d, %v", n, err)
	}
	out, err := exec.Command("ls", "-l", v.init.proc("fd")).Output()
	if err != nil || strings.Count(string(out), " -> pipe:") != 1 { // what the service writes to
		t.Errorf("the init holds another pipe: %v\n%s", err, out)
	}
	own := "/proc/" + strconv.Itoa(v.unit("a").Pid) + "/fd"
	eventually(t, "the service has three descriptors", func() bool { // a loader has libc open for a moment
		entries, err := os.ReadDir(own)
		return err == nil && len(entries) == 3
	})
}

func TestInitSignals(t *testing.T) {
	v := up(t, sh("a", "exec sleep 1000"))
	for sig := unix.Signal(1); sig < 32; sig++ {
		switch sig {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCONT, unix.SIGTERM, unix.SIGINT,
			unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU: // a stopped init is the host's wish
			continue
		}
		v.run("kill", "-"+strconv.Itoa(int(sig)), "1")
		if s := v.unit("a"); s.State != Running {
			t.Fatalf("after %s: %+v", sig, s)
		}
	}
	// A service starts with its signals as they were: none ignored, none blocked.
	status := v.output("cat /proc/self/status")
	for _, field := range []string{"SigBlk", "SigIgn"} {
		// Those above 31 are the C library's, and nobody's to reset.
		if !regexp.MustCompile(field + `:\t[0-9a-f]{8}[08]0000000\n`).MatchString(status) {
			t.Errorf("a service's signals:\n%s", status)
		}
	}
	if err := unix.Kill(v.Pid(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := v.init.wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(v.socket); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Dial after SIGTERM: %v", err)
	}
}

func TestKillEndsAll(t *testing.T) {
	v := up(t, sh("a", "(setsid setsid sleep 31001 &); exec sleep 31002"))
	eventually(t, "the grandchild runs", func() bool { return len(processes("sleep 31001")) == 1 })
	grandchild, main := processes("sleep 31001")[0], v.unit("a").Pid
	if err := unix.Kill(v.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := v.init.wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if exists(grandchild) || exists(main) {
		t.Error("processes live on after their init")
	}
	if _, err := v.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Status: %v", err)
	}
	if _, err := v.Exec(t.Context(), []string{"true"}, nil, nil, nil, nil); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Exec: %v", err)
	}
}

func TestStartErrors(t *testing.T) {
	v := plan(t)
	try := func(change func(*virtual)) string {
		w := *v
		change(&w)
		c, err := Start(t.Context(), w.ns, "/proc/self/exe", w.socket, w.cfg)
		if err == nil {
			c.Kill(t.Context())
			return ""
		}
		return err.Error()
	}
	for name, c := range map[string]struct {
		change func(*virtual)
		want   string
	}{
		"long socket":     {func(v *virtual) { v.socket = "/run/" + strings.Repeat("s", 103) }, "108 bytes, 107 are possible"},
		"no directory":    {func(v *virtual) { v.socket = "/run/nowhere/init.sock" }, "no such file or directory"},
		"somebody's file": {func(v *virtual) { v.socket = "/etc/resolv.conf" }, "is not a socket"},
		"bad config":      {func(v *virtual) { v.cfg.ID = 0 }, "id: is not positive"},
	} {
		if got := try(c.change); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if _, err := Start(t.Context(), v.ns, "/nonexistent", v.socket, v.cfg); err == nil {
		t.Error("started what does not exist")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, v.ns, "/proc/self/exe", v.socket, v.cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	eventually(t, "no init is left", func() bool {
		return len(processes("vs-init vs"+strconv.Itoa(v.cfg.ID)+" ")) == 0
	})
}

func TestOnlyOneInit(t *testing.T) {
	v := up(t)
	_, err := Start(t.Context(), v.ns, "/proc/self/exe", v.socket, v.cfg)
	if err == nil || !strings.Contains(err.Error(), "another init listens there") {
		t.Errorf("the second: %v", err)
	}
	c, err := Dial(v.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Pid() != v.Pid() || c.init.number() != v.cfg.ID {
		t.Errorf("found process %d of %d", c.Pid(), c.init.number())
	}
}

func TestInitByHand(t *testing.T) {
	for _, namespaces := range []uintptr{0, unix.CLONE_NEWPID | unix.CLONE_NEWNS} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args[0] = "vs-init"
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
		out, err := cmd.CombinedOutput()
		if failed, ok := errors.AsType[*exec.ExitError](err); !ok || failed.ExitCode() != 2 {
			t.Errorf("%v: %s", err, out)
		}
	}
}
