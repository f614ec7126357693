package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vsrun/vsrun/nsutil"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

func TestMountsWithin(t *testing.T) {
	const text = `22 27 0:21 / /proc rw,relatime - proc proc rw
40 27 0:25 / /run/netns rw shared:5 - tmpfs tmpfs rw
41 40 0:4 net:[4026532] /run/netns/vs8 rw shared:6 - nsfs nsfs rw
42 40 0:4 net:[4026533] /run/netns/a\040b\134 rw - nsfs nsfs rw
43 27 0:4 / /run/netns2 rw - tmpfs tmpfs rw
`
	got, err := mountsWithin(strings.NewReader(text), "/run/netns")
	if want := []string{"/run/netns", "/run/netns/vs8", `/run/netns/a b\`}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := mountsWithin(strings.NewReader("what\n"), "/"); err == nil {
		t.Error("what is a mount")
	}
}

func TestDNS(t *testing.T) {
	v := plan(t)
	v.cfg.DNS = DNS{Servers: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, Search: []string{"example.test"}}
	v.begin()
	want := strings.TrimSpace(v.cfg.DNS.resolvConf())
	if got := v.output("cat /etc/resolv.conf"); got != want {
		t.Errorf("inside: %q", got)
	}
	const real = "/run/resolver/resolv.conf"
	if got := read(t, real); got != "# the host's\n" {
		t.Errorf("on the host: %q", got)
	}
	// The host's resolver writes a new file, and renames it over the old one.
	write(t, real+".new", "# the host's\n")
	if err := os.Rename(real+".new", real); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is its own again", func() bool { return v.output("cat /etc/resolv.conf") == want })
}

// Where /etc/resolv.conf is a file, it is replaced in its place, and without it
// there is nothing to replace.
func TestDNSWithoutSymlink(t *testing.T) {
	const path, away = "/etc/resolv.conf", "/etc/resolv.conf.away"
	if err := os.Rename(path, away); err != nil {
		t.Fatal(err)
	}
	defer os.Rename(away, path)
	dns := DNS{Servers: []netip.Addr{netip.MustParseAddr("192.0.2.53")}}
	v := plan(t)
	v.cfg.DNS = dns
	_, err := Start(t.Context(), v.ns, "/proc/self/exe", v.socket, v.cfg)
	if err == nil || err.Error() != "/etc/resolv.conf does not exist on this host: create it, an empty file will do" {
		t.Errorf("without one: %v", err)
	}
	write(t, path, hostsText)
	plain := up(t)
	v.begin()
	for range 2 {
		eventually(t, "both have what they should", func() bool {
			return v.output("cat "+path) == strings.TrimSpace(dns.resolvConf()) &&
				plain.output("cat "+path) == strings.TrimSpace(read(t, path))
		})
		write(t, path+".new", "# a new one of the host's\n")
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPrivate(t *testing.T) {
	ctx := t.Context()
	const dir = "/srv/daemon"
	if err := os.MkdirAll(dir+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, os.ModeSticky|0o751); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/host", "")
	v := up(t)
	private := sh("a", "exec sleep 1000")
	private.Private = []string{dir}
	missing := sh("b", "exec sleep 1000")
	missing.Private = []string{"/srv/absent"}
	err := v.Set(ctx, []Service{private, missing})
	if err == nil || err.Error() != "/srv/absent does not exist on this host: create it" {
		t.Errorf("missing: %v", err)
	}
	if list, _ := v.Status(ctx); len(list) != 0 {
		t.Errorf("something has changed: %v", list)
	}
	if err := v.Set(ctx, []Service{private}); err != nil {
		t.Fatal(err)
	}
	if got := v.output("ls -A " + dir + "; stat -c %a:%u " + dir + "; echo inside >" + dir + "/own"); got != "1751:0" {
		t.Errorf("inside: %q", got)
	}
	if got := read(t, v.cfg.PrivateDir+dir+"/own"); got != "inside\n" {
		t.Errorf("kept: %q", got)
	}
	if _, err := os.Stat(dir + "/own"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the host sees it: %v", err)
	}
	// The host's own daemon ends, its directory is removed and made again.
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is private again", func() bool { return v.output("cat "+dir+"/own || true") == "inside" })
	// Nobody wants it any more.
	if err := v.Set(ctx, []Service{sh("a", "exec sleep 1000")}); err != nil {
		t.Fatal(err)
	}
	if got := v.output("ls -A " + dir); got != "" {
		t.Errorf("not private any more: %q", got)
	}
	// And again: what it kept is there.
	if err := v.Set(ctx, []Service{private}); err != nil {
		t.Fatal(err)
	}
	if got := v.output("cat " + dir + "/own"); got != "inside" {
		t.Errorf("private again: %q", got)
	}
}

// Private directories in private directories, in whatever order they come, and
// those that hold the logs and the private directories themselves.
func TestPrivateNested(t *testing.T) {
	ctx := t.Context()
	if err := os.MkdirAll("/srv/outer/inner", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("outer", "/srv/alias"); err != nil {
		t.Fatal(err)
	}
	defer os.Remove("/srv/alias")
	service := func(private ...string) []Service {
		s := sh("a", "echo .; exec sleep 1000")
		s.Private = private
		return []Service{s}
	}
	v := up(t)
	for i, private := range [][]string{
		{"/srv/outer/inner"},
		{"/srv/outer", "/srv/outer/inner"},
		{"/srv/outer/inner/new", "/srv/outer"},
		{"/srv/alias", "/srv/outer"},
		{"/srv/outer/inner"},
		{"/srv"}, // the logs' and the private directories' own
		{"/srv/outer"},
	} {
		if err := v.Set(ctx, service(private...)); err != nil {
			t.Fatalf("%q: %v", private, err)
		}
		waitForLog(v, "a", strings.Repeat(".\n", i+1)) // written where it always was
		for _, dir := range private {
			file := fmt.Sprintf("%s/own%d", dir, i)
			v.output(">" + file)
			if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%q: the host sees %s", private, file)
			}
		}
	}
}

// nestedRole starts an init in a user namespace that sees a covered /proc or
// /sys, and tells what became of it.
func nestedRole() error {
	var n nested
	ns, err := nsutil.New()
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return err
	}
	c, err := Start(context.Background(), ns, "/proc/self/exe", "/run/init.sock",
		Config{ID: 1, NetnsDir: "/run/netns", LogDir: "/run/log", PrivateDir: "/run/private"})
	if err != nil {
		n.Error = err.Error()
	} else {
		entries, err := os.ReadDir(c.init.proc("root/sys"))
		if err != nil {
			return err
		}
		n.Sys = len(entries)
		if err := c.Kill(context.Background()); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(n)
}

type nested struct {
	Error string
	Sys   int // entries in /sys
}

func TestCoveredProcAndSys(t *testing.T) {
	for _, c := range []struct{ cover, err string }{
		{"/proc/tty", "and the kernel gives a user namespace no uncovered one"},
		{"/sys/kernel", ""},
		{"", ""},
	} {
		cmd := again("nested")
		cover := "mount --make-rprivate /"
		if c.cover != "" {
			cover += " && mount -t tmpfs cover " + c.cover
		}
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c",
			cover + " && exec unshare --user --map-root-user --mount --uts --ipc " + exe}
		cmd.Stdout = nil
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%q: %v", c.cover, err)
		}
		var n nested
		if err := json.Unmarshal(out, &n); err != nil {
			t.Fatal(err)
		}
		t.Logf("%q covered: %+v", c.cover, n)
		switch {
		case c.err == "" && n.Error != "", !strings.Contains(n.Error, c.err):
			t.Errorf("%q covered: %q", c.cover, n.Error)
		case n.Error == "" && (n.Sys == 0) != (c.cover == "/sys/kernel"):
			t.Errorf("%q covered: %d entries in /sys", c.cover, n.Sys)
		}
	}
}

// Below the directories in memory, private ones need not be there: it is the
// virtual server that makes them, and keeps what is in them.
func TestPrivateInMemory(t *testing.T) {
	ctx := t.Context()
	service := func(private ...string) []Service {
		s := sh("a", "exec sleep 1000")
		s.Private = private
		return []Service{s}
	}
	v := plan(t)
	v.begin()
	for _, private := range [][]string{
		{"/run/new/deep", "/var/run/other", "/var/tmp/x"},
		{"/run", "/dev/shm"},
		{"/run/new"}, // which is there in the private /run
		{"/tmp/x/y", "/run/new", "/run/new/deep/er"},
		{"/run/new/deep", "/var/run/other", "/var/tmp/x"},
	} {
		if err := v.Set(ctx, service(private...)); err != nil {
			t.Fatalf("%q: %v", private, err)
		}
		for _, dir := range private {
			v.output("echo kept >>" + dir + "/own")
			at := strings.Replace(dir, "/var/run", "/run", 1)
			if got := read(t, v.cfg.PrivateDir+at+"/own"); !strings.HasPrefix(got, "kept\n") {
				t.Errorf("%q: %s holds %q", private, dir, got)
			}
		}
	}
	v.output("echo lost >/run/lost")
	if err := v.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	v.begin()
	if err := v.Set(ctx, service("/run/new/deep", "/run/other")); err != nil {
		t.Fatal(err)
	}
	if got := v.output("cat /run/new/deep/own /run/other/own; ls /run"); got != "kept\nkept\nkept\nkept\nnew\nother\nresolver" {
		t.Errorf("after the init's end: %q", got)
	}
	// A file is in the way.
	v.output("echo >/run/file")
	err := v.Set(ctx, service("/run/file/dir"))
	if err == nil || !strings.Contains(err.Error(), "/run/file/dir") {
		t.Errorf("below a file: %v", err)
	}
}

// A private directory that is made belongs to the user of the service that asks for
// it, else to whom the host's belongs.
func TestPrivateOwner(t *testing.T) {
	lab.NeedRoot(t, "there is another user then")
	const dir = "/srv/owned"
	for _, name := range []string{"theirs", "plain"} {
		if err := os.MkdirAll(dir+"/"+name, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir+"/theirs", 12, 34); err != nil {
		t.Fatal(err)
	}
	v := up(t)
	try := func(settings Settings, want string, paths ...string) {
		t.Helper()
		s := sh("a", "exec sleep 1000")
		s.Private, s.Settings = paths, settings
		if err := v.Set(t.Context(), []Service{s}); err != nil {
			t.Fatal(err)
		}
		if got := v.output("stat -c '%u:%g %a' " + strings.Join(paths, " ")); got != want {
			t.Errorf("%+v: %q", settings, got)
		}
	}
	user := Settings{User: "65533", Group: "65532"}
	try(Settings{}, "0:0 755\n12:34 750", "/run/root", dir+"/theirs")
	try(user, "65533:65532 755\n65533:65532 750\n12:34 750", "/run/new", dir+"/plain", dir+"/theirs") // the last one is there
	try(Settings{Group: "65532"}, "0:65532 755\n65533:65532 755", "/run/group", "/run/new")
	if got := answer(t, v, "touch /run/own/file && stat -c %u /run/own/file", user, "/run/own"); got != "65533" {
		t.Errorf("it makes a file in it: %q", got)
	}

	// Of two that ask for the same one, it is the first one's.
	one, two := sh("one", "exec sleep 1000"), sh("two", "exec sleep 1000")
	one.Private, two.Private = []string{"/run/both"}, []string{"/run/both"}
	one.User, two.User = "65533", "65532"
	if err := v.Set(t.Context(), []Service{one, two}); err != nil {
		t.Fatal(err)
	}
	if got := v.output("stat -c %u /run/both"); got != "65533" {
		t.Errorf("that of two is %s's", got)
	}
	one.User, one.Private = "no-such-user", []string{"/run/nobodys"}
	err := v.Set(t.Context(), []Service{one})
	if err == nil || err.Error() != "cannot make a private /run/nobodys: there is no user no-such-user" {
		t.Errorf("%v", err)
	}
}
