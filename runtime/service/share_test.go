package service

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestValidateShare(t *testing.T) {
	const below = "/run, /tmp, /var/tmp or /dev"
	for path, want := range map[string]string{
		"/run/dbus/system_bus_socket": "", "/var/run/a": "", "/tmp/a b": "", "/var/tmp/a": "", "/dev/shm/a": "", "/run/..a": "",
		"":             `"" is not an absolute path`,
		"run/a":        `"run/a" is not an absolute path`,
		"/run/../etc":  `"/run/../etc" is to be written "/etc"`,
		"/run/a/..":    `"/run/a/.." is to be written "/run"`,
		"/run/a/":      `"/run/a/" is to be written "/run/a"`,
		"/run//a":      `"/run//a" is to be written "/run/a"`,
		"/run/a\x00":   "holds a NUL byte",
		"/run":         `"/run" is too much: a share is a path below ` + below,
		"/var/run":     `"/var/run" is too much: a share is a path below ` + below,
		"/dev/shm":     `"/dev/shm" is too much: a share is a path below ` + below,
		"/":            `"/" is too much: a share is a path below ` + below,
		"/var":         `"/var" is too much: a share is a path below ` + below,
		"/runs":        `"/runs" is seen anyway: only what is below ` + below + ` has to be shared`,
		"/etc/hosts":   `"/etc/hosts" is seen anyway: only what is below ` + below + ` has to be shared`,
		"/proc/1/root": `"/proc/1/root" is the virtual server's own`,
		"/sys":         `"/sys" is the virtual server's own`,
	} {
		got := ""
		if p := ValidateShare([]string{path}); len(p) > 0 {
			got = p[0].Err.Error()
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", path, got, want)
		}
	}
	problems := ValidateShare([]string{"/run/a", "/run/b", "/run/a"})
	if len(problems) != 1 || problems[0].Error() != `share[2]: "/run/a" is there twice` {
		t.Errorf("twice: %v", problems)
	}
}

func TestSame(t *testing.T) {
	a := Config{ID: 8, Share: []string{"/run/a"}}
	for want, b := range map[bool]Config{
		true:  {ID: 8, Share: []string{"/run/a"}, LogDir: "/l", Hide: []string{"/h"}},
		false: {ID: 8},
	} {
		if a.Same(b) != want {
			t.Errorf("%+v: %v", b, !want)
		}
	}
}

// Files, directories and what is below them, by whatever name.
func TestShare(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "share")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(os.MkdirAll(dir+"/exchange/sub", 0o755), os.Chmod(dir, 0o700), os.MkdirAll("/run/files", 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("files", "/run/alias"); err != nil {
		t.Fatal(err)
	}
	defer os.Remove("/run/alias")
	if err := unix.Mount("tmpfs", dir+"/exchange/sub", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/exchange/sub/deep", "deep\n")
	for _, name := range []string{"one", "two", "three", "four"} {
		write(t, "/run/files/"+name, name+"\n")
	}
	v := plan(t)
	v.cfg.Share = []string{dir + "/exchange", dir + "/exchange/sub", "/run/files/one", "/var/run/files/two", "/run/alias/three"}
	v.begin()
	if got := v.output("cd /run; find files alias -type f -exec cat {} + | sort | xargs"); got != "one three two" {
		t.Errorf("of the files there are %q", got)
	}
	if got := v.output("ls -A /tmp; cat " + dir + "/exchange/sub/deep; stat -c %a " + dir); got != strings.TrimPrefix(dir, "/tmp/")+"\ndeep\n755" {
		t.Errorf("in /tmp there is %q", got)
	}
	// Each sees what the other does to a directory.
	v.output("echo inside >" + dir + "/exchange/own; echo one more >>/run/files/one")
	if a, b := read(t, dir+"/exchange/own"), read(t, "/run/files/one"); a != "inside\n" || b != "one\none more\n" {
		t.Errorf("the host reads %q and %q", a, b)
	}
	write(t, dir+"/exchange/new", "outside\n")
	if got := v.output("cat " + dir + "/exchange/new"); got != "outside" {
		t.Errorf("inside it reads %q", got)
	}
	// Unmounted by whom it may concern, it comes back.
	v.output("umount -l /run/files/one; umount -l " + dir + "/exchange; umount -l /run")
	eventually(t, "all is there again", func() bool {
		return v.output("cat /run/files/one "+dir+"/exchange/new "+dir+"/exchange/sub/deep || true") == "one\none more\noutside\ndeep"
	})
	if log := read(t, v.cfg.LogDir+"/init.log"); strings.Contains(log, "cannot") {
		t.Errorf("the log complains:\n%s", log)
	}
	// What the host unmounts is unmounted here as well.
	if err := unix.Unmount(dir+"/exchange/sub", unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
}

// What leads to vsrun's own directories, or out of those that are to be shared,
// is refused, whatever it is called.
func TestHostileShares(t *testing.T) {
	const base = "/run/hostile"
	state := t.TempDir() // below /tmp
	if err := errors.Join(os.MkdirAll(base+"/state/vs1", 0o755), os.MkdirAll(base+"/good", 0o755), os.MkdirAll(state+"/inner", 0o755)); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{
		"netns": "../netns", "etc": "/etc/hosts", "root": "/", "run": "/run", "home": base + "/state",
		"inner": base + "/state/vs1", "loop": "loop", "proc": "/proc/self", "elsewhere": "/usr", "up": "..",
	} {
		if err := os.Symlink(to, base+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	defer os.RemoveAll(base)
	const own, out, cure = "which is vsrun's own", "which is not below " + belowMemory, "does not exist on this host: start what makes it, or take it out of share"
	for path, want := range map[string]string{
		base + "/good":      "",
		"/run/netns":        "it would show /run/netns, " + own,
		"/run/netns/vs8":    "it would show /run/netns, " + own,
		base + "/netns":     "it would show /run/netns, " + own,
		"/var/run/netns":    "it would show /run/netns, " + own,
		base + "/run":       "it would show /run/netns, " + own,
		base + "/up":        "it would show /run/netns, " + own,
		base + "/root":      own,
		base + "/state":     own,
		base + "/state/vs1": own,
		base + "/home":      own,
		base + "/home/vs1":  own,
		base + "/inner":     own,
		base:                own, // it holds one
		state:               own,
		state + "/inner":    own,
		base + "/etc":       "it leads to /etc/hosts, " + out,
		base + "/elsewhere": "it leads to /usr, " + out,
		base + "/loop":      "too many levels of symbolic links",
		base + "/absent":    base + "/absent " + cure,
		base + "/good/none": base + "/good/none " + cure,
	} {
		v := plan(t)
		v.cfg.Share, v.cfg.Hide = []string{path}, []string{base + "/state", state}
		c, err := Start(t.Context(), v.ns, "/proc/self/exe", v.socket, v.cfg)
		if err == nil {
			if err := c.Kill(t.Context()); err != nil {
				t.Error(err)
			}
			c.Close()
		}
		if got := fmt.Sprint(err); want == "" && err != nil ||
			want != "" && (!strings.HasPrefix(got, "cannot share "+path+": ") || !strings.HasSuffix(got, want)) {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
		if _, err := os.Lstat(v.socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s leaves a socket: %v", path, err)
		}
		// What can be known before an init starts.
		if early := v.cfg.CheckShare(); strings.HasSuffix(want, own) != (early != nil) {
			t.Errorf("%s, early: %v", path, early)
		}
	}
}

// Root inside can put a symlink where a share's mount belongs: the init does not
// follow it.
func TestShareIsNotMountedElsewhere(t *testing.T) {
	if err := os.MkdirAll("/run/parent/lib", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, "/run/parent/lib/shared", "")
	v := plan(t)
	v.cfg.Share = []string{"/run/parent/lib"}
	v.begin()
	victim := v.dir + "/victim"
	if err := os.MkdirAll(victim+"/lib", 0o755); err != nil {
		t.Fatal(err)
	}
	v.output("mv /run/parent /run/moved; ln -s " + victim + " /run/parent; mount -t tmpfs tmpfs /tmp; umount /tmp")
	eventually(t, "the init has tried", func() bool {
		return strings.Contains(read(t, v.cfg.LogDir+"/init.log"), "cannot mount the virtual server's own /run/parent/lib")
	})
	if got := v.output("ls -A " + victim + "/lib"); got != "" {
		t.Errorf("it has mounted on %s: %q", victim, got)
	}
	v.output("rm /run/parent; mv /run/moved /run/parent")
	if got := strings.Fields(v.output("ls -A /run/parent/lib")); !slices.Equal(got, []string{"shared"}) {
		t.Errorf("after all: %q", got)
	}
}
