package service

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

// tryWrite is a script that says which of the directories can be written to.
func tryWrite(dirs ...string) string {
	return "for d in " + strings.Join(dirs, " ") + "; do if (echo >$d/written) 2>/dev/null; then echo $d; rm $d/written; fi; done"
}

func TestReadOnly(t *testing.T) {
	const base = "/srv/read-only"
	for _, dir := range []string{"data", "data/deep", "other", "private"} {
		if err := os.MkdirAll(base+"/"+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("other", base+"/link"); err != nil {
		t.Fatal(err)
	}
	// A filesystem in what is to be read-only.
	if err := unix.Mount("tmpfs", base+"/other", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(base+"/other", unix.MNT_DETACH)
	write(t, base+"/file", "")
	v := up(t)
	dirs := []string{base, base + "/data", base + "/data/deep", base + "/other", base + "/private", "/etc", "/var", "/sys", "/run", "/tmp", "/var/tmp", "/dev/shm", "/dev"}
	ask := tryWrite(dirs...) + "; echo >>" + base + "/file && echo file; echo comm >/proc/self/comm && echo proc"
	try := func(what string, settings Settings, private []string, want ...string) {
		t.Helper()
		got := answer(t, v, "("+ask+") 2>/dev/null", settings, private...)
		if got := strings.Join(strings.Fields(got), " "); got != strings.Join(want, " ") {
			t.Errorf("%s, it writes to\n%s, not\n%s", what, got, strings.Join(want, " "))
		}
	}
	memory := []string{"/run", "/tmp", "/var/tmp", "/dev/shm", "/dev"}
	try("by default", Settings{}, nil, append(append(dirs[:5:5], "/var"), append(memory, "file", "proc")...)...)
	try("read-only", Settings{ReadOnly: true}, nil, append(memory, "proc")...)
	try("with a writable directory", Settings{ReadOnly: true, Writable: []string{base + "/data"}}, nil,
		append(append(dirs[1:3:3], memory...), "proc")...)
	try("with a writable file", Settings{ReadOnly: true, Writable: []string{base + "/file"}}, nil, append(memory, "file", "proc")...)
	try("with a writable mount", Settings{ReadOnly: true, Writable: []string{base + "/other"}}, nil,
		append(append(dirs[3:4:4], memory...), "proc")...)
	try("with a private directory", Settings{ReadOnly: true}, []string{base + "/private", "/run/private"}, append(append(dirs[4:5:5], memory...), "proc")...)
	try("with the system's settings", Settings{Writable: []string{"/etc"}}, nil,
		append(dirs[:7:7], append(memory, "file", "proc")...)...)

	for want, path := range map[string]string{
		"cannot let it write to " + base + "/link: a symlink is on the way: name where it leads to":      base + "/link",
		"cannot let it write to " + base + "/link/x: a symlink is on the way: name where it leads to":    base + "/link/x",
		"cannot let it write to " + base + "/no: " + base + "/no does not exist on this host: create it": base + "/no",
	} {
		err := v.Set(t.Context(), []Service{{Name: "a", Command: []string{"true"}, Restart: RestartNever, Settings: Settings{Writable: []string{path}}}})
		if err == nil || err.Error() != "cannot start a: "+want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// What happens to the virtual server's mounts happens to what a service sees.
func TestServiceFollowsTheInit(t *testing.T) {
	const base = "/srv/follow"
	for _, dir := range []string{"mount", "later"} {
		if err := os.MkdirAll(base+"/"+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, settings := range []Settings{{}, {ReadOnly: true}} {
		t.Run(fmt.Sprintf("read-only=%v", settings.ReadOnly), func(t *testing.T) {
			a := Service{Name: "a", Command: []string{"sleep", "1000"}, Settings: settings}
			v := up(t, a)
			view := fmt.Sprintf("/proc/%d/root", v.unit("a").Pid)
			text := func(path string) string { b, _ := os.ReadFile(view + path); return string(b) }
			name := fmt.Sprintf("vs%d\n", v.cfg.ID)
			if got := text("/etc/hostname"); got != name {
				t.Errorf("at first %q", got)
			}
			write(t, "/etc/hostname.new", hostsText)
			if err := os.Rename("/etc/hostname.new", "/etc/hostname"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "what the host made vanish is there again", func() bool { return text("/etc/hostname") == name })

			if err := unix.Mount("tmpfs", base+"/mount", "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			write(t, base+"/mount/new", "new\n")
			if got := text(base + "/mount/new"); got != "new\n" {
				t.Errorf("what the host has mounted: %q", got)
			}
			if err := unix.Unmount(base+"/mount", 0); err != nil {
				t.Errorf("the host's filesystem is busy: %v", err)
			}

			b := Service{Name: "b", Command: []string{"sh", "-c", "echo b >" + base + "/later/own; exec sleep 1000"}, Private: []string{base + "/later"}}
			if err := v.Set(t.Context(), []Service{a, b}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "another's private directory is there", func() bool { return text(base+"/later/own") == "b\n" })
			if err := v.Set(t.Context(), []Service{a}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "and gone with it", func() bool { return text(base+"/later/own") == "" })
		})
	}
}

// What is read-only is not written to by a mount that has come since, nor by another
// service's.
func TestReadOnlyFromBehind(t *testing.T) {
	lab.Require(t, "landlock")
	const base = "/srv/behind"
	for _, dir := range []string{"mount", "data", "data/sub"} {
		if err := os.MkdirAll(base+"/"+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	other := sh("other", "exec sleep 271828")
	v := up(t, other)
	one := sh("one", fmt.Sprintf(`while ! [ -e %[1]s/mount/new ]; do sleep 0.05; done
		%[2]s
		for p in /proc/[0-9]*; do [ "$(tr '\0' ' ' <$p/cmdline)" = "sleep 271828 " ] && %[3]s; done
		echo x >%[1]s/data/file && mv %[1]s/data/file %[1]s/data/sub/moved && echo moved; exec sleep 1000`,
		base, tryWrite(base+"/mount", base+"/data"), tryWrite("$p/root"+base)))
	one.ReadOnly, one.Writable = true, []string{base + "/data"}
	if err := v.Set(t.Context(), []Service{other, one}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", base+"/mount", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(base+"/mount", unix.MNT_DETACH)
	write(t, base+"/mount/new", "")
	waitForLog(v, "one", "moved\n")
	if got := said(v, "one"); got != base+"/data\nmoved\n" {
		t.Errorf("it writes to %s", got)
	}
}

// A pseudo-terminal is the virtual server's own, and so is what is made in /dev.
func TestDevices(t *testing.T) {
	v := up(t)
	if got := v.output("ls /dev /dev/pts | xargs"); got != "/dev: fd full null ptmx pts random shm stderr stdin stdout tty urandom zero /dev/pts: ptmx" {
		t.Errorf("there is %s", got)
	}
	if got := answer(t, v, "echo x >/dev/null && head -c 3 /dev/zero | wc -c; cat </dev/stdin; echo y >/dev/stderr", Settings{}); got != "3\ny" {
		t.Errorf("they do %q", got)
	}
	t.Run("as a user", func(t *testing.T) {
		lab.NeedRoot(t, "there is another user then")
		if got := answer(t, v, "echo x >/dev/null && head -c 3 /dev/urandom | wc -c && : <>/dev/ptmx && ls /dev/pts", Settings{User: "65533"}); got != "3\nptmx" {
			t.Errorf("they do %q", got)
		}
	})
	// One of the host's is there when it is named.
	entries, err := os.ReadDir("/dev")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, inside := v.run("test", "-e", "/dev/"+e.Name()); inside != 0 && e.Type()&os.ModeDevice != 0 {
			w := plan(t)
			w.cfg.Share = []string{"/dev/" + e.Name()}
			w.begin()
			w.output("test -e /dev/" + e.Name())
			return
		}
	}
	t.Error("this host has no device that a virtual server has not")
}
