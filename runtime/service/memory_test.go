package service

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// reachRole connects to a unix socket and prints what it is told there.
func reachRole() error {
	conn, err := net.Dial("unix", os.Getenv("SOCKET"))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.Copy(os.Stdout, conn)
	return err
}

// greeter is a daemon of the host's that greets whoever connects to the socket.
func greeter(t *testing.T, socket string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "hello")
			conn.Close()
		}
	}()
}

// reach connects to a socket from inside.
func (v *virtual) reach(socket string) (said string, ok bool) {
	v.t.Helper()
	said, code := v.run("env", roleVar+"=reach", "SOCKET="+socket, binary)
	return said, code == 0
}

// Two virtual servers and the host keep the same files where programs of one
// machine find each other, and none sees another's.
func TestMemoryIsOwn(t *testing.T) {
	one, two := up(t), up(t)
	for _, d := range []struct{ path, mode string }{{"/run", "755"}, {"/tmp", "1777"}, {"/var/tmp", "1777"}, {"/dev/shm", "1777"}} {
		file := fmt.Sprintf("%s/daemon-%d", d.path, os.Getpid())
		write(t, file, "the host's\n")
		defer os.Remove(file)
		for _, v := range []*virtual{one, two} {
			if got := v.output("ls -A " + d.path); got != "" && (d.path != "/run" || got != "resolver") {
				t.Errorf("%s holds at first %q", d.path, got)
			}
			if got := v.output("stat -c %a " + d.path); got != d.mode {
				t.Errorf("%s has mode %s", d.path, got)
			}
			if got := v.output("sed -n 's, " + d.path + " , ,p' /proc/self/mountinfo"); !strings.Contains(got, " rw,nosuid,nodev,relatime ") || !strings.Contains(got, " - tmpfs ") {
				t.Errorf("%s is mounted: %s", d.path, got)
			}
			v.output(fmt.Sprintf("set -C; echo %d >%s", v.cfg.ID, file)) // open(2) with O_EXCL
		}
		for _, v := range []*virtual{one, two} {
			if got := v.output("cat " + file); got != fmt.Sprint(v.cfg.ID) {
				t.Errorf("%s holds %q in virtual server %d", file, got, v.cfg.ID)
			}
		}
		if got := read(t, file); got != "the host's\n" {
			t.Errorf("%s holds %q on the host", file, got)
		}
	}
	if got := one.output("ls -A /var/run/"); !strings.HasPrefix(got, "daemon-") {
		t.Errorf("/var/run is not /run: %q", got)
	}
}

// A path that is no symlink on this host is no way around.
func TestVarRunOfItsOwn(t *testing.T) {
	if err := errors.Join(os.Remove("/var/run"), os.Mkdir("/var/run", 0o755)); err != nil {
		t.Fatal(err)
	}
	defer func() { os.RemoveAll("/var/run"); os.Symlink("/run", "/var/run") }()
	write(t, "/var/run/pid", "1\n")
	write(t, "/var/run/seen", "2\n")
	v := plan(t)
	v.cfg.Share = []string{"/var/run/seen"}
	v.begin()
	if got := v.output("ls -A /var/run"); got != "seen" {
		t.Errorf("inside: %q", got)
	}
}

// What the host and the virtual server do to mounts and directories changes
// nothing of that, and the host's filesystems stay the host's to unmount.
func TestMemoryStays(t *testing.T) {
	v := up(t)
	v.output("for d in /run /tmp /var/tmp /dev/shm; do echo mine >$d/own; done")
	holds := func() bool {
		return v.output("cat /run/own /tmp/own /var/tmp/own /dev/shm/own || true") == strings.TrimSpace(strings.Repeat("mine\n", 4))
	}
	if !holds() {
		t.Fatal("at first")
	}
	for range 2 {
		if err := unix.Mount("tmpfs", "/var/tmp", "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		write(t, "/var/tmp/host", "")
		if !holds() || v.output("ls /var/tmp") != "own" {
			t.Error("a filesystem of the host's came through")
		}
		if err := unix.Unmount("/var/tmp", 0); err != nil {
			t.Errorf("it keeps a filesystem of the host's busy: %v", err)
		}
	}
	// At once, as a package would: a name that is missing for a moment is complained of.
	if err := errors.Join(os.Mkdir("/var/tmp.new", 0o755), unix.Rename("/var/tmp.new", "/var/tmp")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is there after the host has replaced the directory", holds)
	v.output("umount -l /run /tmp /var/tmp /dev/shm")
	eventually(t, "it is there after all was unmounted", holds)
	if log := read(t, v.cfg.LogDir+"/init.log"); strings.Contains(log, "cannot") {
		t.Errorf("the log complains:\n%s", log)
	}
}

// A daemon of the host's that listens in /run is none of a virtual server's,
// unless it is shared.
func TestSocketOfTheHost(t *testing.T) {
	const socket = "/run/hostd/socket"
	if err := os.MkdirAll("/run/hostd", 0o755); err != nil {
		t.Fatal(err)
	}
	greeter(t, socket)
	without, with := up(t), plan(t)
	with.cfg.Share = []string{socket}
	with.begin()
	for _, path := range []string{socket, "/var/run/hostd/socket", "/proc/1/root" + socket} {
		if said, ok := without.reach(path); ok || said == "hello" {
			t.Errorf("%s answers %q", path, said)
		}
		if said, ok := with.reach(path); !ok || said != "hello" {
			t.Errorf("shared, %s answers %q", path, said)
		}
	}
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	for name, to := range map[string]string{
		"up": "..", "there": "real", "dangling": "real/none", "chain": "dangling", "absolute": dir + "/real", "loop": "loop",
	} {
		if err := os.Symlink(to, dir+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir+"/real", 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/real": "/real", "/there": "/real", "/there/a/b": "/real/a/b", "/none/a": "/none/a",
		"/dangling": "/real/none", "/chain": "/real/none", "/chain/a": "/real/none/a", "/absolute/x": "/real/x",
	} {
		if got, err := resolve(dir + path); err != nil || got != dir+want {
			t.Errorf("%s: %s, %v", path, got, err)
		}
	}
	if got, err := resolve(dir + "/loop/a"); err == nil {
		t.Errorf("a loop leads to %s", got)
	}
}
