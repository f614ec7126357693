package service

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

// The directory /srv/v is that of all virtual servers of these tests: logs and
// private directories, and here a socket.
func TestHide(t *testing.T) {
	const dir = "/srv/hide-private"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	other := plan(t)
	other.socket = other.dir + "/init.sock"
	other.begin()
	v := plan(t)
	v.cfg.Hide = []string{"/srv/v", "/srv/v/1", "/srv/absent", "/run/netns"}
	v.cfg.DNS = DNS{Servers: []netip.Addr{netip.MustParseAddr("192.0.2.53")}}
	v.begin()
	private := sh("a", "echo .; exec sleep 1000")
	private.Private = []string{dir}
	if err := v.Set(t.Context(), []Service{private}); err != nil {
		t.Fatal(err)
	}
	hidden := func() bool { return !strings.Contains(v.output("find /srv/v"), "init") }
	if !hidden() {
		t.Errorf("inside: %s", v.output("find /srv/v"))
	}
	if _, code := v.run("touch", "/srv/v/x"); code == 0 {
		t.Error("/srv/v can be written")
	}
	if _, code := v.run("test", "-e", other.socket); code == 0 {
		t.Error("another's socket is there")
	}
	// Its own parts are there that lie in it.
	v.output("echo inside >" + dir + "/own")
	if got := read(t, v.cfg.PrivateDir+dir+"/own"); got != "inside\n" {
		t.Errorf("kept: %q", got)
	}
	waitForLog(v, "a", ".\n")
	if err := v.RestartService(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	waitForLog(v, "a", ".\n.\n")
	// Uncovered by whom it may concern, or by the host, it is covered again.
	v.run("umount", "/srv/v")
	eventually(t, "it is hidden again", hidden)
	// A private directory may cover it, too.
	private.Private = []string{"/srv"}
	if err := v.Set(t.Context(), []Service{private}); err != nil {
		t.Fatal(err)
	}
	if _, code := v.run("test", "-e", "/srv/v"); code == 0 {
		t.Error("a private /srv holds the host's")
	}
	if err := v.Set(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is hidden after all", hidden)
	if log := read(t, v.cfg.LogDir+"/init.log"); strings.Contains(log, "cannot") {
		t.Errorf("the log complains:\n%s", log)
	}
}

// Root in a virtual server has no say in another one, whatever it sees.
func TestForeignPeer(t *testing.T) {
	v, other := up(t), plan(t)
	other.socket = other.dir + "/init.sock"
	other.begin()
	conn, err := connect(other.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if home, err := peerNamespace(conn); home == 0 {
		lab.Require(t, "linux:6.11") // tells where a request comes from
		t.Fatal(err)
	}
	got, code := v.run("env", roleVar+"=ask", "SOCKET="+other.socket, binary)
	if want := "only processes of the host may command a virtual server\n"; got != want || code != 0 {
		t.Errorf("from another virtual server: %q, %d", got, code)
	}
}

// The host's resolver replaces its file all the time.
func TestResolvConfReplaced(t *testing.T) {
	const real = "/run/resolver/resolv.conf"
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			err := os.WriteFile(real+".new", []byte("# the host's\n"), 0o644)
			if err = errors.Join(err, os.Rename(real+".new", real)); err != nil {
				stopped <- err
				return
			}
		}
	}()
	for range 50 {
		v := plan(t)
		v.cfg.DNS = DNS{Servers: []netip.Addr{netip.MustParseAddr("192.0.2.53")}}
		c, err := Start(t.Context(), v.ns, "/proc/self/exe", v.socket, v.cfg)
		if err != nil {
			t.Error(err)
			continue
		}
		if err := c.Kill(t.Context()); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// Container managers mount a resolv.conf, and may have removed its source.
func TestResolvConfOfARemovedFile(t *testing.T) {
	const real, source = "/run/resolver/resolv.conf", "/run/resolver/source"
	write(t, source, "# the manager's\n")
	if err := unix.Mount(source, real, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(real, unix.MNT_DETACH)
	if err := os.Remove(source); err != nil {
		t.Fatal(err)
	}
	v := plan(t)
	v.cfg.DNS = DNS{Servers: []netip.Addr{netip.MustParseAddr("192.0.2.53")}}
	v.begin()
	if got := v.output("cat /etc/resolv.conf"); !strings.Contains(got, "192.0.2.53") {
		t.Errorf("inside: %q", got)
	}
	if got := read(t, real); got != "# the manager's\n" {
		t.Errorf("on the host: %q", got)
	}
}

// An init that waits for the directory that Clear removes does not listen in
// one that nobody sees.
func TestClear(t *testing.T) {
	v := up(t)
	dir := strings.TrimSuffix(v.socket, "/init.sock")
	if err := Clear(v.socket); !errors.Is(err, ErrTaken) {
		t.Errorf("while an init listens: %v", err)
	}
	if _, err := v.Status(t.Context()); err != nil {
		t.Errorf("after that: %v", err)
	}
	if err := v.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Clear(v.socket); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("cleared, it is there: %v", err)
	}

	w := plan(t)
	dir = strings.TrimSuffix(w.socket, "/init.sock")
	result := make(chan error, 1)
	err := locked(dir, func() error {
		go func() {
			c, err := Start(t.Context(), w.ns, "/proc/self/exe", w.socket, w.cfg)
			if err == nil {
				c.Kill(t.Context())
			}
			result <- err
		}()
		eventually(t, "the init waits for the lock", func() bool {
			pid, _ := holder(w.cfg.LogDir)
			fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
			open := 0
			for _, fd := range fds {
				if to, _ := os.Readlink(fd); to == dir {
					open++
				}
			}
			return open == 2 // one of them is to be locked
		})
		return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-result; err == nil || !strings.Contains(err.Error(), "no such file or directory") &&
		!strings.Contains(err.Error(), "file does not exist") {
		t.Errorf("the one that has waited: %v", err)
	}
}
