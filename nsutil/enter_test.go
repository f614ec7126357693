package nsutil_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/test/lab"
)

// startInside starts a shell by way of a program that unshares, and returns when
// it has run the script. It ends with the test.
func startInside(t *testing.T, script string, unshare ...string) *exec.Cmd {
	t.Helper()
	argv := append(unshare, "sh", "-ec", script+"\necho ready; read end")
	cmd := exec.Command(argv[0], argv[1:]...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("%v: %q, %v", argv, line, err)
	}
	return cmd
}

// What is made inside is the namespace's wherever it is used, and errors are
// fn's own.
func TestDo(t *testing.T) {
	h := lab.New(t)
	ns := newNamespace(t)
	h.Run(t, "nsenter", "--net="+path(ns), "ip", "link", "set", "lo", "up")
	var l net.Listener
	err := ns.Do(func() (err error) { l, err = net.Listen("tcp", "127.0.0.1:77"); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if c, err := net.Dial("tcp", "127.0.0.1:77"); err == nil {
		c.Close()
		t.Error("the host reaches what listens inside")
	}
	err = ns.Do(func() error {
		c, err := net.Dial("tcp", "127.0.0.1:77")
		if err == nil {
			c.Close()
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := ns.Do(func() error { return io.ErrUnexpectedEOF }); err != io.ErrUnexpectedEOF {
		t.Errorf("got %v, want fn's error", err)
	}
	// One in another.
	other := newNamespace(t)
	err = ns.Do(func() error {
		return errors.Join(isIn(ns), other.Do(func() error { return isIn(other) }), isIn(ns))
	})
	if err != nil {
		t.Error(err)
	}
}

// isIn is nil if the calling thread is in the namespace.
func isIn(ns *nsutil.Namespace) error {
	here, err := nsutil.Current()
	if err != nil {
		return err
	}
	defer here.Close()
	if !here.Same(ns) {
		return errors.New("a goroutine is in a wrong namespace")
	}
	return nil
}

func TestDoInAClosedOne(t *testing.T) {
	lab.New(t)
	ns := newNamespace(t)
	ns.Close()
	called := false
	if err := ns.Do(func() error { called = true; return nil }); err == nil || called {
		t.Errorf("called: %t, error: %v", called, err)
	}
}

// Whatever is done to threads, no other goroutine notices: while it is done, and
// after.
func TestNoThreadStaysBehind(t *testing.T) {
	lab.New(t)
	home := current(t)
	inside := []*nsutil.Namespace{newNamespace(t), newNamespace(t), newNamespace(t)}
	var done atomic.Bool
	var others, work sync.WaitGroup
	for range 8 {
		others.Go(func() {
			for !done.Load() {
				if err := isIn(home); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for k := range 1000 {
		ns := inside[k%len(inside)]
		work.Go(func() {
			if err := ns.Do(func() error { return isIn(ns) }); err != nil {
				t.Error(err)
			}
		})
		if k%20 == 0 {
			work.Go(func() {
				if made, err := nsutil.New(); err != nil {
					t.Error(err)
				} else {
					made.Close()
				}
			})
		}
	}
	work.Wait()
	done.Store(true)
	others.Wait()
	for _, thread := range strayThreads(t) {
		t.Error(thread)
	}
}

// strayThreads are the threads that are elsewhere than the host.
func strayThreads(t *testing.T) (stray []string) {
	t.Helper()
	for _, kind := range []string{"net", "mnt", "uts"} {
		want, err := os.Readlink("/proc/1/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		links, err := filepath.Glob("/proc/self/task/*/ns/" + kind)
		if err != nil || len(links) == 0 {
			t.Fatalf("no threads: %v", err)
		}
		for _, link := range links {
			// One that is ending has none any more.
			if got, err := os.Readlink(link); err == nil && got != want {
				stray = append(stray, fmt.Sprintf("%s is %s, want %s", link, got, want))
			}
		}
	}
	return stray
}

func pidfd(t *testing.T, pid int) int {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestJoin(t *testing.T) {
	lab.New(t)
	other := startInside(t, "mount -t tmpfs none /mnt; touch /mnt/inside", "unshare", "--net", "--mount", "--uts")
	fd := pidfd(t, other.Process.Pid)
	const kinds = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS
	var joined sync.WaitGroup
	for range 20 {
		joined.Go(func() {
			err := nsutil.Join(fd, kinds, func() error {
				for _, kind := range []string{"net", "mnt", "uts"} {
					here, err := os.Readlink("/proc/thread-self/ns/" + kind)
					there, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", other.Process.Pid, kind))
					if err := errors.Join(err, err2); err != nil || here != there {
						return fmt.Errorf("%s is %s, want %s: %v", kind, here, there, err)
					}
				}
				_, err := os.Stat("/mnt/inside")
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	joined.Wait()
	if _, err := os.Stat("/mnt/inside"); err == nil {
		t.Error("the host has the mounts of the one joined")
	}
	if err := nsutil.Join(fd, unix.CLONE_NEWUTS, func() error { return io.ErrUnexpectedEOF }); err != io.ErrUnexpectedEOF {
		t.Errorf("got %v, want fn's error", err)
	}
	// The threads that joined end, some time after fn.
	for end := time.Now().Add(10 * time.Second); len(strayThreads(t)) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(strayThreads(t))
		}
	}
}

// With its PID namespace it is the processes started that are inside.
func TestJoinStartsProcesses(t *testing.T) {
	lab.New(t)
	other := startInside(t, "", "unshare", "--pid", "--fork", "--kill-child")
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", other.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var child int
	if _, err := fmt.Sscan(string(children), &child); err != nil {
		t.Fatal(err)
	}
	var in, out string
	err = nsutil.Join(pidfd(t, child), unix.CLONE_NEWPID, func() error {
		cmd := exec.Command("cat")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		in, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", cmd.Process.Pid))
		stdin.Close()
		return errors.Join(err, cmd.Wait())
	})
	if err != nil {
		t.Fatal(err)
	}
	if out, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", child)); err != nil || in != out {
		t.Errorf("started in %s, want %s: %v", in, out, err)
	}
}

func TestJoinOfTheDead(t *testing.T) {
	lab.New(t)
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd := pidfd(t, cmd.Process.Pid)
	in.Close()
	cmd.Wait()
	called := false
	err = nsutil.Join(fd, unix.CLONE_NEWNET, func() error { called = true; return nil })
	if !errors.Is(err, unix.ESRCH) || called {
		t.Errorf("called: %t, error: %v", called, err)
	}
}
