package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

// volumes is a document of vs8 with a service, and volumes on directories of which
// each is made on the host first.
func volumes(t *testing.T, list ...string) string {
	t.Helper()
	for _, v := range list {
		path := strings.TrimSuffix(strings.Fields(v)[1], ",")
		if strings.HasPrefix(path, "/run/") { // in memory, and not the host's
			continue
		}
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return "id: 8\nvolumes: [" + strings.Join(list, ", ") + "]\nservices: [{name: idle, command: [sleep, infinity]}]\n"
}

func apply(t *testing.T, s *site, document string) {
	t.Helper()
	if r := s.VsrunIn(document, "apply", "-f", "-"); r.Code != 0 {
		t.Fatal(r)
	}
}

// inside runs a script in vs8.
func inside(t *testing.T, s *site, script string, args ...any) string {
	t.Helper()
	return strings.TrimSpace(s.MustVsrun(t, "exec", "8", "--", "sh", "-ec", fmt.Sprintf(script, args...)))
}

// loops names the loop devices that show a file of the host.
func loops(t *testing.T, host *lab.Host) []string {
	t.Helper()
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var names []string
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), host.StateDir) {
			names = append(names, strings.Split(f, "/")[3])
		}
	}
	return names
}

func TestVolume(t *testing.T) {
	lab.NeedRoot(t, "loop devices are the machine's")
	lab.Require(t, "mkfs.ext4", "loop")
	s := &site{Host: bareHost(t)}
	dir := filepath.Join(s.Dir(t), "data")
	document := volumes(t, "{path: "+dir+", size: 16M}")
	if err := os.Chmod(dir, 0o2770|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	apply(t, s, document)

	if got := inside(t, s, "stat -c '%%a %%u %%g' %s; stat -f -c %%T %[1]s; awk '$5 == \"%[1]s\" { print $4 }' /proc/self/mountinfo", dir); got != "2770 65534 65534\next2/ext3\n/" {
		t.Errorf("owner, type or root of it: %s", got)
	}
	inside(t, s, "echo kept >%s/file", dir)
	if r := s.Vsrun("exec", "8", "--", "dd", "if=/dev/zero", "of="+dir+"/big", "bs=1M", "count=100"); !strings.Contains(r.Stderr, "No space left") {
		t.Errorf("more than its size: %v", r)
	}
	inside(t, s, "rm %s/big", dir)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("the host sees what is in it: %v, %v", entries, err)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), dir) {
		t.Errorf("the host has it mounted")
	}

	if r := s.VsrunIn(strings.ReplaceAll(document, "16M", "16M, type: btrfs"), "apply", "-f", "-"); r.Code != 1 ||
		!strings.Contains(r.Stderr, "its image holds ext4, not btrfs\nhint: give it its type back") {
		t.Errorf("of another type: %v", r)
	}
	init := initOf(t, s)
	if apply(t, s, strings.ReplaceAll(document, "16M", "16384K, type: ext4")); initOf(t, s) != init {
		t.Errorf("written otherwise, the same volume restarts everything")
	}

	// Whatever happens to its processes, what is in it stays, and is mounted once.
	intact := func(when string) {
		t.Helper()
		if got := inside(t, s, "cat %s/file", dir); got != "kept" {
			t.Errorf("%s: %q", when, got)
		}
		if got := loops(t, s.Host); len(got) != 1 {
			t.Errorf("%s: loop devices %q", when, got)
		}
	}
	s.MustVsrun(t, "disable", "8")
	if got := loops(t, s.Host); len(got) != 0 {
		t.Errorf("disabled, it keeps %q", got)
	}
	s.MustVsrun(t, "enable", "8")
	intact("after disable and enable")
	for range 5 {
		if err := syscall.Kill(initOf(t, s), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.MustVsrun(t, "enable", "8")
		intact("after a crash")
	}
	if err := errors.Join(os.Mkdir(dir+".new", 0o755), unix.Rename(dir+".new", dir)); err != nil {
		t.Fatal(err)
	}
	soon(t, func() error { return contains(s.Vsrun("exec", "8", "--", "cat", dir+"/file").Stdout, "kept") })
	intact("after the host has replaced the directory")

	s.MustVsrun(t, "destroy", "8")
	if got := loops(t, s.Host); len(got) != 0 {
		t.Errorf("destroyed, it keeps %q", got)
	}
	if leaks := s.Leaks(); leaks != "" {
		t.Errorf("destroyed, it leaves\n%s", leaks)
	}
}

func TestVolumeGrows(t *testing.T) {
	lab.NeedRoot(t, "loop devices are the machine's")
	lab.Require(t, "mkfs.ext4", "loop")
	s := &site{Host: bareHost(t)}
	dir := filepath.Join(s.Dir(t), "data")
	document := volumes(t, "{path: "+dir+", size: 16M}")
	apply(t, s, document)
	inside(t, s, "echo kept >%s/file", dir)
	larger := strings.ReplaceAll(document, "16M", "40M")

	// Not allowed to grow it, vsrun goes back to what was.
	vsrun := filepath.Join(lab.Programs(t), "vsrun")
	file := filepath.Join(s.Dir(t), "larger.yaml")
	if err := os.WriteFile(file, []byte(larger), 0o644); err != nil {
		t.Fatal(err)
	}
	r := s.TryRun("setpriv", "--bounding-set=-sys_resource", "--", vsrun, "apply", "-f", file)
	if r.Code != 1 || !strings.Contains(r.Stderr, "cannot grow it to 40M: operation not permitted\nhint: run vsrun where") {
		t.Error(r)
	}
	if got := strings.Fields(inside(t, s, "cat %s/file; df --output=size %[1]s | tail -1", dir)); got[0] != "kept" || len(got[1]) != 5 {
		t.Errorf("after a refusal: %q", got)
	}

	lab.Require(t, "capability:sys_resource")
	// Grown in vain, for a service that cannot be started, it stays so, and works.
	broken := strings.Replace(larger, "services: [", "services: [{name: bad, command: [/nowhere]}, ", 1)
	if r := s.VsrunIn(broken, "apply", "-f", "-"); r.Code != 1 || strings.Contains(r.Stderr, "cannot go back") {
		t.Error(r)
	}
	s.MustVsrun(t, "disable", "8")
	s.MustVsrun(t, "enable", "8")
	if got := s.show(t, "8"); got.State != "enabled" || got.Volumes[0].Size != "16M" {
		t.Errorf("it is %+v", got)
	}
	apply(t, s, larger)
	inside(t, s, "cat %s/file; dd if=/dev/zero of=%[1]s/big bs=1M count=30 2>&1", dir)
	r = s.VsrunIn(document, "apply", "-f", "-")
	if r.Code != 1 || !strings.Contains(r.Stderr, "cannot shrink to 16M\nhint: give it its size back") {
		t.Errorf("shrunk: %v", r)
	}
	if got := s.show(t, "8"); got.State != "enabled" || len(got.Volumes) != 1 || got.Volumes[0].Size != "40M" {
		t.Errorf("it is %+v", got)
	}
}

// initOf is the init of vs8: the parent of its service.
func initOf(t *testing.T, s *site) int {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.service(t, "8", "idle").Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	pid, err := strconv.Atoi(strings.Fields(rest)[1])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// A device has one user, whatever it is called.
func TestVolumeOnDevice(t *testing.T) {
	lab.NeedRoot(t, "loop devices are the machine's")
	lab.Require(t, "mkfs.ext4", "loop", "losetup")
	s := &site{Host: bareHost(t)}
	image, alias := filepath.Join(s.Dir(t), "image"), filepath.Join(s.Dir(t), "alias")
	s.Run(t, "truncate", "-s", "16M", image)
	s.Run(t, "mkfs.ext4", "-q", image)
	device := strings.TrimSpace(s.Run(t, "losetup", "--find", "--show", image))
	t.Cleanup(func() { s.Run(t, "losetup", "--detach", device) })
	if err := os.Symlink(device, alias); err != nil {
		t.Fatal(err)
	}
	document := volumes(t, "{path: "+filepath.Join(s.Dir(t), "data")+", device: "+device+"}")
	apply(t, s, document)
	other := strings.NewReplacer("id: 8", "id: 9", device, alias).Replace(document)
	if r := s.VsrunIn(other, "apply", "-f", "-"); r.Code != 1 || !strings.Contains(r.Stderr, alias+" is in use\nhint: see where it is mounted") {
		t.Error(r)
	}
	s.MustVsrun(t, "destroy", "8")
	apply(t, s, other)
	s.MustVsrun(t, "destroy", "9")
}

func TestVolumeInMemory(t *testing.T) {
	s := &site{Host: bareHost(t)}
	dir := filepath.Join(s.Dir(t), "data")
	apply(t, s, volumes(t, "{path: "+dir+", size: 1M, type: tmpfs}", "{path: /run/fast, size: 64K, type: tmpfs}"))
	if got := inside(t, s, "df -k --output=size,target %s /run/fast | tail -n +2 | tr -s ' '", dir); got != "1024 "+dir+"\n 64 /run/fast" {
		t.Errorf("the sizes are %q", got)
	}
	inside(t, s, "echo mine >%s/file", dir)
	s.MustVsrun(t, "service", "restart", "8", "idle")
	if got := inside(t, s, "cat %s/file", dir); got != "mine" {
		t.Errorf("after a service's restart: %q", got)
	}
	s.MustVsrun(t, "disable", "8")
	s.MustVsrun(t, "enable", "8")
	if got := inside(t, s, "ls %s", dir); got != "" {
		t.Errorf("after disable and enable it holds %q", got)
	}
}

func TestVolumeRefusals(t *testing.T) {
	s := &site{Host: bareHost(t)}
	for name, c := range map[string]struct {
		document string
		want     string
	}{
		"no directory": {"id: 8\nvolumes: [{path: /nowhere, size: 64K, type: tmpfs}]\nservices: [{name: a, command: [sleep, infinity]}]",
			"cannot mount a volume: /nowhere does not exist on this host: create it"},
		"no device": {"id: 8\nvolumes: [{path: /srv, device: /dev/nothing}]\nservices: [{name: a, command: [sleep, infinity]}]",
			"cannot mount the volume /srv: cannot open /dev/nothing: no such file or directory"},
		"no size":   {"id: 8\nvolumes: [{path: /srv}]", "stdin:2:11: size is missing"},
		"too small": {"id: 8\nvolumes: [{path: /srv, size: 100K}]", `size "100K" is too small for a filesystem: 1M at least`},
		"twice":     {"id: 8\nvolumes: [{path: /srv, size: 1M}, {path: /srv, size: 1M}]", `path "/srv" is there twice`},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "no device" {
				lab.NeedRoot(t, "nobody else may mount a device")
			}
			r := s.VsrunIn(c.document, "create", "-f", "-")
			if r.Code == 0 || !strings.Contains(r.Stderr, c.want) {
				t.Error(r)
			}
			if leaks := s.Leaks(); leaks != "" {
				t.Errorf("refused, it leaves\n%s", leaks)
			}
		})
	}
	// The program that makes filesystems is looked for before anything is done.
	vsrun := filepath.Join(lab.Programs(t), "vsrun")
	r := s.TryRun("env", "PATH=/nowhere", vsrun, "create", "8", "--volume", "/srv=16M")
	if r.Code != 1 || !strings.Contains(r.Stderr, "mkfs.ext4 is not installed\nhint: install e2fsprogs, or use another type") {
		t.Error(r)
	}
}
