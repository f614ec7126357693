package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/test/lab"
)

// covered mounts a filesystem on a directory for the time of a test.
func covered(t *testing.T, dir, source, fstype string, flags uintptr, options string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(source, dir, fstype, flags, options); err != nil {
		t.Fatalf("cannot mount on %s: %v", dir, err)
	}
	t.Cleanup(func() { uncovered(t, dir) })
}

func uncovered(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
		t.Error(err)
	}
}

// fill leaves no page of a filesystem free.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "fill"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, 4096); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// crowded has a state directory with little room, vs8 that runs, and vs9 that is disabled.
func crowded(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	s.Keep(filepath.Join(s.StateDir, "fill"))
	covered(t, s.StateDir, "none", "tmpfs", 0, "size=512k")
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24")
	add(t, s, "8", "one", []string{"sleep", "100000"})
	s.MustVsrun(t, "create", "9", "--disabled")
	t.Cleanup(func() { s.MustVsrun(t, "destroy", "--all") })
	return s
}

// writing are commands that have something to store, and then looking those that do not.
var (
	writing = []string{
		"create 10", "create 10 --no-probe --port eth1 --address 192.0.2.10/24", "enable 9", "disable 8",
		"attach 8 --no-probe --port eth1 --address 192.0.2.11/24", "detach 8 eth0", "service rm 8 one",
		"service add 8 two -- sleep 100000", "apply --no-probe -f -", "ledger reset 8",
	}
	looking = []string{
		"ls", "show 8", "ps 8", "logs 8 one", "stats 8", "ledger ls", "diff", "gc --dry-run", "create 10 --dry-run",
		"exec 8 -- true", "service stop 8 one", "service start 8 one", "service restart 8 one", "enable 8", "boot",
	}
)

// refused has each command that would store something say why it cannot, and what to do,
// and change nothing; the others do what they do.
func (s *site) refused(t *testing.T, why, cure string) {
	t.Helper()
	for _, line := range writing {
		before, stored := s.Snapshot(), storedFiles(t, s.Host)
		r := s.VsrunIn("id: 8\nname: other\n", strings.Fields(line)...)
		if first, hint, _ := strings.Cut(r.Stderr, "\n"); r.Code != 1 || !strings.Contains(first, why) || !strings.HasPrefix(hint, "hint: "+cure) {
			t.Errorf("%v\nnot %q, %q", r, why, cure)
		}
		if changes := before.Diff(s.Snapshot()); changes != "" {
			t.Errorf("%s has changed the host:\n%s", line, changes)
		}
		if diff := cmp.Diff(stored, storedFiles(t, s.Host)); diff != "" {
			t.Errorf("%s has changed the state directory:\n%s", line, diff)
		}
	}
	for _, line := range looking {
		s.MustVsrun(t, strings.Fields(line)...)
	}
}

// A full disk loses nothing, takes nothing down, and can be left.
func TestFullDisk(t *testing.T) {
	s := crowded(t)
	fill(t, s.StateDir)
	s.refused(t, "no space left on device", "make room there: df -h ")
	s.Run(t, "ip", "-n", "vs8", "address", "flush", "dev", "eth0")
	s.MustVsrun(t, "enable", "8", "--no-probe")
	s.MustVsrun(t, "shutdown")
	s.MustVsrun(t, "boot")
	if err := reach(s.client, "192.0.2.8"); err != nil {
		t.Error(err)
	}
	vsd := s.Start(t, filepath.Join(lab.Programs(t), "vsd"), "--checkpoint=1s")
	const complaint = "cannot write all that was counted"
	awaitOutput(t, vsd, complaint)
	s.Run(t, "ip", "-n", "vs8", "address", "flush", "dev", "eth0")
	soon(t, func() error { return reach(s.client, "192.0.2.8") })
	if err := os.Truncate(filepath.Join(s.StateDir, "fill"), 0); err != nil {
		t.Fatal(err)
	}
	soon(t, func() error {
		_, err := os.Stat(filepath.Join(s.StateDir, "ledger.json"))
		return err
	})
	vsd.Stop()
	os.RemoveAll(filepath.Join(s.RunDir, "vsd.sock"))
	if n := strings.Count(vsd.Output(), complaint); n != 1 {
		t.Errorf("vsd says %d times that the disk is full:\n%s", n, vsd.Output())
	}
	fill(t, s.StateDir)
	s.MustVsrun(t, "destroy", "8")
	fill(t, s.StateDir)
	s.MustVsrun(t, "destroy", "9")
	if left := storedFiles(t, s.Host); len(left) != 2 { // lock and fill
		t.Errorf("destroyed, they leave %v", left)
	}
}

// With little room, wherever it ends, a create makes all or nothing, and a destroy takes
// all away.
func TestLittleRoom(t *testing.T) {
	s := newSite(t)
	s.Keep(filepath.Join(s.StateDir, "fill"))
	s.MustVsrun(t, "create", "8")
	s.MustVsrun(t, "destroy", "8")
	for _, where := range []struct {
		dir  string
		per  string // what each round has more of
		from int    // that a lock can be made
	}{{s.StateDir, "nr_inodes", 2}, {s.StateDir, "nr_blocks", 1}, {s.RunDir, "nr_inodes", 1}} {
		t.Run(filepath.Base(where.dir)+" "+where.per, func(t *testing.T) {
			whole := 0
			for room := where.from; whole < 3; room++ {
				if room > 40 {
					t.Fatal("it never has enough")
				}
				whole += s.inLittleRoom(t, where.dir, fmt.Sprintf("%s=%d", where.per, room))
			}
		})
	}
}

// inLittleRoom counts 1 when all could be done.
func (s *site) inLittleRoom(t *testing.T, dir, room string) (whole int) {
	covered(t, dir, "none", "tmpfs", 0, room)
	defer uncovered(t, dir)
	before := s.Snapshot()
	r := s.VsrunIn(crashDocument, "create", "--no-probe", "-f", "-")
	switch changes := before.Diff(s.Snapshot()); {
	case r.Code == 0:
		if err := reach(s.client, "192.0.2.8"); err != nil {
			t.Errorf("%s: %v", room, err)
		}
	case !strings.Contains(r.Stderr, "no space left on device"):
		t.Errorf("%s: %v", room, r)
	case changes != "":
		t.Errorf("%s: %v\nleaves\n%s", room, r, changes)
	}
	if d := s.Vsrun("destroy", "8"); d.Code != 0 {
		t.Errorf("%s: %v", room, d)
	}
	if changes := before.Diff(s.Snapshot()); changes != "" {
		t.Errorf("%s: destroyed, it leaves\n%s", room, changes)
	}
	if r.Code == 0 {
		whole = 1
	}
	t.Logf("%s: %s", room, strings.TrimSpace(r.Stdout+r.Stderr))
	return whole
}

// With a state directory that is read-only, as after an error of its disk, all goes on as
// it is, and is mended.
func TestReadOnlyState(t *testing.T) {
	s := crowded(t)
	s.Keep(filepath.Join(s.RunDir, "lock"))
	t.Cleanup(func() { // that, and what a vsd that was killed leaves
		for _, name := range []string{"lock", "vsd.sock", "2"} {
			os.RemoveAll(filepath.Join(s.RunDir, name))
		}
	})
	covered(t, s.StateDir, s.StateDir, "", syscall.MS_BIND, "")
	if err := syscall.Mount("", s.StateDir, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	s.refused(t, "read-only file system", "make that filesystem writable again: findmnt -T ")
	if r := s.Vsrun("destroy", "8"); r.Code != 1 || !strings.Contains(r.Stderr, "read-only file system") {
		t.Error(r)
	}

	vsd := s.Start(t, filepath.Join(lab.Programs(t), "vsd"))
	awaitOutput(t, vsd, "vsd is running")
	if r := s.TryRun(filepath.Join(lab.Programs(t), "vsd"), "--run-dir", s.RunDir+"/2"); r.Code != 1 || !strings.Contains(r.Stderr, "another one is running") {
		t.Errorf("a second one: %v", r)
	}
	s.Run(t, "ip", "-n", "vs8", "address", "flush", "dev", "eth0")
	if err := killInit(s, "vs8"); err != nil {
		t.Error(err)
	}
	soon(t, func() error {
		r := s.Vsrun("diff")
		if r.Code != 0 {
			return errors.New(r.String())
		}
		return reach(s.client, "192.0.2.8")
	})
	vsd.Stop()
}

func awaitOutput(t *testing.T, p *lab.Process, words string) {
	t.Helper()
	soon(t, func() error {
		if !strings.Contains(p.Output(), words) {
			return errors.New(p.Output())
		}
		return nil
	})
}

// A port is made wholly or not at all where nothing can be stored. On a full disk one can be
// destroyed, and on one that is read-only it stays as it is.
func TestPortsOnABadDisk(t *testing.T) {
	s := newPortSite(t)
	s.Keep(filepath.Join(s.StateDir, "fill"), filepath.Join(s.RunDir, "lock"))
	t.Cleanup(func() { os.Remove(filepath.Join(s.RunDir, "lock")) })
	covered(t, s.StateDir, "none", "tmpfs", 0, "size=256k")
	s.MustVsrun(t, "port", "ls")
	s.MustVsrun(t, "create", "9", "--disabled")
	s.MustVsrun(t, "destroy", "9")
	refused := func(why, verb string, flags ...string) {
		t.Helper()
		if r := s.Vsrun(append([]string{"port", verb, "bond0"}, flags...)...); r.Code != 1 || !strings.Contains(r.Stderr, why) {
			t.Errorf("%v\nwant %s", r, why)
		}
	}
	before := s.Snapshot()
	create := []string{"--mode", "active-backup", "--members", "eth2,eth3"}
	fill(t, s.StateDir)
	refused("no space left on device", "create", create...)
	if changes := before.Diff(s.Snapshot()); changes != "" {
		t.Errorf("refused, it has changed the host:\n%s", changes)
	}
	if err := os.Truncate(filepath.Join(s.StateDir, "fill"), 0); err != nil {
		t.Fatal(err)
	}
	s.MustVsrun(t, append([]string{"port", "create", "bond0"}, create...)...)
	fill(t, s.StateDir)
	s.MustVsrun(t, "port", "destroy", "bond0")
	if r := s.TryRun("ip", "link", "show", "bond0"); r.Code == 0 {
		t.Error(r)
	}
	if err := os.Truncate(filepath.Join(s.StateDir, "fill"), 0); err != nil {
		t.Fatal(err)
	}
	s.MustVsrun(t, append([]string{"port", "create", "bond0"}, create...)...)
	remount := func(flags uintptr) {
		t.Helper()
		if err := syscall.Mount("", s.StateDir, "", syscall.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	refused("read-only file system", "destroy")
	s.MustVsrun(t, "diff")
	remount(0)
	s.MustVsrun(t, "port", "destroy", "bond0")
}
