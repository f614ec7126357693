package nsutil_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/test/lab"
)

func newNamespace(t *testing.T) *nsutil.Namespace {
	t.Helper()
	ns, err := nsutil.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func current(t *testing.T) *nsutil.Namespace {
	t.Helper()
	ns, err := nsutil.Current()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// path is where a namespace is reached as long as it is held.
func path(ns *nsutil.Namespace) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd()) }

// namesOf are the devices that the calling thread sees.
func namesOf() ([]string, error) {
	list, err := net.Interfaces()
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return names, err
}

func TestNew(t *testing.T) {
	h := lab.New(t)
	home, a, b := current(t), newNamespace(t), newNamespace(t)
	if a.Same(b) || a.Same(home) || !a.Same(a) || !home.Same(current(t)) {
		t.Error("namespaces are taken for one another")
	}
	if out := h.Run(t, "ip", "netns", "list"); out != "" {
		t.Errorf("it has a name: %s", out)
	}
	var names []string
	if err := a.Do(func() (err error) { names, err = namesOf(); return err }); err != nil || !slices.Equal(names, []string{"lo"}) {
		t.Errorf("a new one has %v, %v", names, err)
	}
}

// Nothing keeps a namespace without a name but its descriptor.
func TestNewIsGoneWhenClosed(t *testing.T) {
	h := lab.New(t)
	ns := newNamespace(t)
	events := linkEvents(t)
	h.Run(t, "ip", "link", "add", "veth7", "type", "veth", "peer", "name", "veth8", "netns", path(ns))
	ns.Close()
	awaitGone(t, events, "veth7") // with its peer, in the namespace
}

// linkEvents hears of changes of the host's devices from now on.
func linkEvents(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func awaitGone(t *testing.T, events int, name string) {
	t.Helper()
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(events, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatalf("%s is not gone after 5 seconds: %v", name, err)
		}
		kind := binary.NativeEndian.Uint16(buf[4:])
		if kind == unix.RTM_DELLINK && strings.Contains(string(buf[:n]), name+"\x00") {
			return
		}
	}
}

func TestPublish(t *testing.T) {
	h := lab.New(t)
	ns := newNamespace(t)
	vs8 := filepath.Join(h.NetnsDir, "vs8")
	if _, err := nsutil.Open(vs8); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before it is there: %v", err)
	}
	if err := ns.Publish(vs8); err != nil {
		t.Fatal(err)
	}
	if out := h.Run(t, "ip", "netns", "list"); !strings.HasPrefix(out, "vs8") {
		t.Errorf("ip sees %q", out)
	}
	h.Run(t, "ip", "-n", "vs8", "link", "set", "lo", "up")

	opened, err := nsutil.Open(vs8)
	if err != nil || !opened.Same(ns) {
		t.Fatalf("opened, it is another one: %v", err)
	}
	defer opened.Close()
	second := newNamespace(t)
	for _, again := range []*nsutil.Namespace{ns, second} {
		if err := again.Publish(vs8); !errors.Is(err, fs.ErrExist) {
			t.Errorf("published where there is one: %v", err)
		}
	}
	still, err := nsutil.Open(vs8)
	if err != nil || !still.Same(ns) {
		t.Errorf("and now it is another one: %v", err)
	}
	still.Close()

	for range 2 {
		if err := nsutil.Unpublish(vs8); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(vs8); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its file is left: %v", err)
	}
	if err := opened.Do(func() error { return nil }); err != nil {
		t.Errorf("without a name it is gone, though held: %v", err)
	}
	// The name is free for another one.
	if err := second.Publish(vs8); err != nil {
		t.Error(err)
	}
	h.Run(t, "ip", "netns", "delete", "vs8")
	if err := nsutil.Unpublish(vs8); err != nil {
		t.Errorf("ip has removed it already: %v", err)
	}
}

// iproute2's namespaces and ours are of one kind.
func TestOpenWhatIPMade(t *testing.T) {
	h := lab.New(t)
	h.Run(t, "ip", "netns", "add", "vs8")
	vs8 := filepath.Join(h.NetnsDir, "vs8")
	ns, err := nsutil.Open(vs8)
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
	if err := nsutil.Unpublish(vs8); err != nil {
		t.Error(err)
	}
}

// What somebody else keeps where a namespace would be is told, and left alone.
func TestForeignFiles(t *testing.T) {
	h := lab.New(t)
	vs8 := filepath.Join(h.NetnsDir, "vs8")
	ns := newNamespace(t)
	elsewhere := filepath.Join(t.TempDir(), "precious")
	for _, tt := range []struct {
		name string
		make func() error
		err  string
	}{
		{"a file", func() error { return os.WriteFile(vs8, []byte("precious"), 0o600) },
			vs8 + " is not a network namespace, but a file of somebody's"},
		{"a directory", func() error { return os.Mkdir(vs8, 0o700) },
			vs8 + " is not a network namespace, but a file of somebody's"},
		{"a link to a file", func() error {
			return errors.Join(os.WriteFile(elsewhere, []byte("precious"), 0o600), os.Symlink(elsewhere, vs8))
		}, vs8 + " is not a network namespace, but a file of somebody's"},
		{"another kind of namespace", func() error { return os.Symlink("/proc/self/ns/mnt", vs8) },
			vs8 + " is a namespace, but not a network namespace"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.make(); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(vs8)
			before, _ := os.Lstat(vs8)
			text, _ := os.ReadFile(vs8)
			opened, err := nsutil.Open(vs8)
			if err == nil {
				opened.Close()
			}
			for does, err := range map[string]error{"Open": err, "Publish": ns.Publish(vs8), "Unpublish": nsutil.Unpublish(vs8)} {
				if err == nil || err.Error() != tt.err || errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: got %v, want %s", does, err, tt.err)
				}
			}
			after, err := os.Lstat(vs8)
			if err != nil || !os.SameFile(before, after) || before.Mode() != after.Mode() {
				t.Fatalf("it was changed: %v, %v", after, err)
			}
			if now, _ := os.ReadFile(vs8); string(now) != string(text) {
				t.Errorf("it holds %q now", now)
			}
		})
	}
}

// A crash between the making of a file and the mounting on it leaves the file:
// it counts as nothing.
func TestHalfPublished(t *testing.T) {
	h := lab.New(t)
	vs8 := filepath.Join(h.NetnsDir, "vs8")
	leave := func() {
		if err := os.WriteFile(vs8, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	if _, err := nsutil.Open(vs8); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opened: %v", err)
	}
	if err := nsutil.Unpublish(vs8); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(vs8); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
	leave()
	ns := newNamespace(t)
	if err := ns.Publish(vs8); err != nil {
		t.Fatal(err)
	}
	if opened, err := nsutil.Open(vs8); err != nil || !opened.Same(ns) {
		t.Errorf("published over the file: %v", err)
	} else {
		opened.Close()
	}
	if err := nsutil.Unpublish(vs8); err != nil {
		t.Error(err)
	}
}

// A directory of namespaces is made, and its mounts are shared: whoever has a
// mount namespace of his own sees them come and go, and does not keep them.
func TestPublishInANewDirectory(t *testing.T) {
	h := lab.New(t)
	dir := "/run/test/netns"
	t.Cleanup(func() {
		h.Run(t, "umount", dir)
		os.RemoveAll("/run/test")
	})
	first := newNamespace(t)
	if err := first.Publish(filepath.Join(dir, "vs7")); err != nil {
		t.Fatal(err)
	}
	defer nsutil.Unpublish(filepath.Join(dir, "vs7"))

	other := startInside(t, "", "unshare", "--mount", "--propagation", "unchanged")
	vs8 := filepath.Join(dir, "vs8")
	sees := func() bool {
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", other.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(info), " "+vs8+" ")
	}
	if err := newNamespace(t).Publish(vs8); err != nil {
		t.Fatal(err)
	}
	if !sees() {
		t.Error("another mount namespace does not see it")
	}
	if err := nsutil.Unpublish(vs8); err != nil {
		t.Error(err)
	}
	if sees() {
		t.Error("another mount namespace keeps it")
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if n := strings.Count(string(info), " "+dir+" "); err != nil || n != 1 {
		t.Errorf("%s is mounted %d times: %v", dir, n, err)
	}
}

// Nothing stays open, neither of what succeeds nor of what fails.
func TestDescriptors(t *testing.T) {
	h := lab.New(t)
	vs8, file := filepath.Join(h.NetnsDir, "vs8"), filepath.Join(h.NetnsDir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(file)
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := count()
	for range 50 {
		ns, err := nsutil.New()
		if err != nil {
			t.Fatal(err)
		}
		ns.Do(func() error { return errors.New("no") })
		nsutil.Open(file)
		nsutil.Open(file + " that is not there")
		nsutil.Open("/proc/self/ns/mnt")
		ns.Publish(file)
		if err := ns.Publish(vs8); err != nil {
			t.Fatal(err)
		}
		ns.Publish(vs8)
		if opened, err := nsutil.Open(vs8); err == nil {
			opened.Close()
		}
		nsutil.Join(-1, unix.CLONE_NEWNET, func() error { return nil })
		nsutil.Unpublish(file)
		if err := nsutil.Unpublish(vs8); err != nil {
			t.Fatal(err)
		}
		ns.Close()
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

// What a person has to know to get on is in the errors.
func TestRefusedByTheKernel(t *testing.T) {
	lab.New(t)
	root := []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
	for _, tt := range []struct {
		role string
		uids []syscall.SysProcIDMap // of its own user namespace: without, it is nobody there
		want string
	}{
		{"powerless", nil, "cannot create a network namespace: operation not permitted\n" +
			"it takes CAP_SYS_ADMIN: run it as root, outside of a restricted container\n"},
		{"limited", root, "cannot create a network namespace: there are as many as the limit allows\n" +
			"raise the limit: sysctl user.max_net_namespaces\n"},
	} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), roleVar+"="+tt.role)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: tt.uids}
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != tt.want {
			t.Errorf("%s: got %q, %v; want %q", tt.role, out, err, tt.want)
		}
	}
}

// Of many that want a name at once one gets it, and it is mounted once.
func TestPublishAtOnce(t *testing.T) {
	path := filepath.Join(lab.New(t).NetnsDir, "vs8")
	var rivals []*nsutil.Namespace
	for range 8 {
		rivals = append(rivals, newNamespace(t))
	}
	for range 200 {
		var won atomic.Int32
		var all sync.WaitGroup
		for _, ns := range rivals {
			all.Go(func() {
				switch err := ns.Publish(path); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, fs.ErrExist):
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := won.Load(); n != 1 {
			t.Errorf("%d got it", n)
		}
		if err := nsutil.Unpublish(path); err != nil {
			t.Fatal(err)
		}
	}
}
