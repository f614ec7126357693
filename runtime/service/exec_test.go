package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

func TestExec(t *testing.T) {
	v := up(t)
	for script, want := range map[string]int{
		"exit 0": 0, "exit 3": 3, "kill -TERM $$": 128 + 15, "kill -KILL $$": 128 + 9,
	} {
		if _, code := v.run("sh", "-c", script); code != want {
			t.Errorf("%s: exit code %d, want %d", script, code, want)
		}
	}
	for _, ns := range []string{"net", "mnt", "pid", "uts", "ipc"} {
		of, err := os.Readlink(v.init.proc("ns/" + ns))
		if err != nil {
			t.Fatal(err)
		}
		if got := v.output("readlink /proc/self/ns/" + ns); got != of {
			t.Errorf("it runs in %s, the init in %s", got, of)
		}
	}
	// This process is where it was.
	for _, ns := range []string{"net", "mnt", "uts", "ipc", "pid_for_children"} {
		a, _ := os.Readlink("/proc/thread-self/ns/" + ns)
		b, _ := os.Readlink("/proc/1/ns/" + ns)
		if ns != "pid_for_children" && a != b {
			t.Errorf("this thread is in %s, the host in %s", a, b)
		}
	}
}

func TestExecNotStarted(t *testing.T) {
	v := up(t)
	plain := filepath.Join(v.dir, "plain")
	write(t, plain, "")
	garbage := plain + ".exe"
	write(t, garbage, "\x7fgarbage")
	if err := os.Chmod(garbage, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		program string
		code    int
		why     string
	}{
		{"no-such-program", 127, "no-such-program: no such file or directory"},
		{"/no/such/program", 127, "/no/such/program: no such file or directory"},
		{plain, 126, plain + ": permission denied"},
		{"/etc", 126, "/etc: permission denied"},
		{garbage, 126, garbage + ": exec format error"},
	} {
		code, err := v.Exec(t.Context(), []string{c.program}, nil, nil, nil, nil)
		if code != c.code || err == nil || err.Error() != c.why {
			t.Errorf("%s: %d, %v", c.program, code, err)
		}
	}
	if _, err := v.Exec(t.Context(), nil, nil, nil, nil, nil); err == nil {
		t.Error("no command is a command")
	}
}

// The program is looked up where it will run.
func TestExecLooksInside(t *testing.T) {
	v := plan(t)
	v.begin()
	dir := v.dir + "/bin"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	private := Service{Name: "a", Command: []string{"sleep", "1000"}, Private: []string{dir}}
	if err := v.Set(t.Context(), []Service{private}); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/here", "#!/bin/sh\n")
	write(t, v.cfg.PrivateDir+dir+"/there", "#!/bin/sh\necho $0 $PATH $VSRUN_ID $X\n")
	if err := errors.Join(os.Chmod(dir+"/here", 0o755), os.Chmod(v.cfg.PrivateDir+dir+"/there", 0o755)); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + dir + ":/bin", "X=y"}
	if code, err := v.Exec(t.Context(), []string{"here"}, env, nil, nil, nil); code != 127 {
		t.Errorf("here: %d, %v", code, err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	code, err := v.Exec(t.Context(), []string{"there"}, env, nil, w, nil)
	w.Close()
	if code != 0 || err != nil {
		t.Errorf("there: %d, %v", code, err)
	}
	buf := make([]byte, 1000)
	n, _ := r.Read(buf)
	if got, want := string(buf[:n]), fmt.Sprintf("%s/there %[1]s:/bin %d y\n", dir, v.cfg.ID); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestExecSignals(t *testing.T) {
	v := up(t)
	started := filepath.Join(v.dir, "started")
	type result struct {
		code int
		err  error
	}
	begin := func(ctx context.Context, script string) <-chan result {
		os.Remove(started)
		done := make(chan result, 1)
		go func() {
			code, err := v.Exec(ctx, []string{"sh", "-c", script}, nil, nil, nil, nil)
			done <- result{code, err}
		}()
		eventually(t, "it has started", func() bool { _, err := os.Stat(started); return err == nil })
		return done
	}
	// There is no terminal here, or this process is not in its foreground: all
	// are passed on.
	for sig, want := range map[unix.Signal]int{unix.SIGTERM: 9, unix.SIGHUP: 8, unix.SIGINT: 7} {
		done := begin(t.Context(), "trap 'exit 9' TERM; trap 'exit 8' HUP; trap 'exit 7' INT; >"+started+
			"; while :; do sleep 0.01; done")
		if err := unix.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		if r := <-done; r.code != want || r.err != nil {
			t.Errorf("%s: %+v", sig, r)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := begin(ctx, ">"+started+"; exec sleep 1000")
	cancel()
	if r := <-done; r.code != 128+9 || !errors.Is(r.err, context.Canceled) {
		t.Errorf("cancelled: %+v", r)
	}
	// The init takes along what runs inside.
	done = begin(t.Context(), ">"+started+"; exec sleep 1000")
	if err := v.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if r := <-done; r.code != 128+9 || r.err != nil {
		t.Errorf("killed init: %+v", r)
	}
}

// terminal makes a pair of terminal ends.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	lab.Require(t, "pty")
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func TestExecTerminal(t *testing.T) {
	v := up(t)
	master, slave := terminal(t)
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}); err != nil {
		t.Fatal(err)
	}
	code, err := v.Exec(t.Context(), []string{"sh", "-c", "test -t 0 && test -t 1 && stty size"}, nil, slave, slave, slave)
	if code != 0 || err != nil {
		t.Fatalf("%d, %v", code, err)
	}
	buf := make([]byte, 100)
	k, err := master.Read(buf)
	if got := strings.TrimSpace(string(buf[:k])); got != "33 77" {
		t.Errorf("its terminal is of size %q, %v", got, err)
	}
}

// execRole runs a command in the foreground of a terminal.
func execRole() error {
	c, err := Dial(os.Getenv("SOCKET"))
	if err != nil {
		return err
	}
	script := "trap 'echo int' INT; echo ready; sleep 0.4; sleep 0.2; exit 4"
	code, err := c.Exec(context.Background(), []string{"sh", "-c", script}, nil, os.Stdin, os.Stdout, os.Stderr)
	fmt.Println("code", code, err)
	return err
}

// Control-C reaches a command in the foreground once, and not who waits for it.
func TestExecInterrupt(t *testing.T) {
	v := up(t)
	master, slave := terminal(t)
	cmd := again("exec")
	cmd.Env = append(cmd.Env, "SOCKET="+v.socket)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	buf := make([]byte, 100)
	for !strings.Contains(out.String(), "code ") {
		n, err := master.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, out.String())
		}
		if before := out.Len(); before == 0 && n > 0 {
			if _, err := master.WriteString("\x03"); err != nil {
				t.Fatal(err)
			}
		}
		out.Write(buf[:n])
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if got := strings.Fields(strings.ReplaceAll(out.String(), "^C", "")); strings.Join(got, " ") != "ready int code 4 <nil>" {
		t.Errorf("%q", got)
	}
}

func TestMerge(t *testing.T) {
	got := strings.Join(merge([]string{"A=1", "B=2", "AB=3"}, []string{"A=9", "C="}), " ")
	if got != "B=2 AB=3 A=9 C=" {
		t.Error(got)
	}
}

// Both ways to the host's number of a process give the same.
func TestChild(t *testing.T) {
	v := up(t, sh("a", "exec sleep 1000"))
	pid := v.unit("a").Pid
	inner := innermost(pid)
	if inner == 0 || inner == pid {
		t.Fatalf("process %d is %d inside", pid, inner)
	}
	if got := v.init.childByStatus(inner); got != pid {
		t.Errorf("by status: %d, want %d", got, pid)
	}
	if got := v.init.child(1 << 20); got != 0 {
		t.Errorf("nobody's number is %d", got)
	}
	if got := v.init.childByStatus(1 << 20); got != 0 {
		t.Errorf("nobody's number is %d by status", got)
	}
	begin := time.Now()
	v.unit("a")
	t.Logf("a status takes %s", time.Since(begin))
}
