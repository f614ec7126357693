package e2e_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// gc removes what no command will, says what, and touches nothing else.
func TestGC(t *testing.T) {
	s := newSite(t)
	if r := s.Vsrun("gc"); r.Code != 1 || !strings.Contains(r.Stderr, "no virtual server has ever been kept in") {
		t.Errorf("of a directory that nothing is kept in: %v", r)
	}
	record := filepath.Join(s.StateDir, "vs8.json")
	made := func() { s.must(t, s.VsrunIn(crashDocument, "create", "--no-probe", "-f", "-")) }
	lose := func(path string) {
		t.Helper()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	killInit := func() {
		t.Helper()
		one := s.service(t, "8", "one")
		if err := syscall.Kill(parentOf(t, one.Pid), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		soon(t, func() error {
			if err := syscall.Kill(one.Pid, 0); err == nil {
				return errors.New("it lives")
			}
			return nil
		})
	}
	s.MustVsrun(t, "create", "7", "--no-probe", "--port", "eth1", "--address", "192.0.2.7/24")
	add(t, s, "7", "other", []string{"sleep", "100001"})
	s.MustVsrun(t, "create", "6", "--disabled")
	s.Run(t, "ip", "netns", "add", "vs9") // somebody's
	t.Cleanup(func() { s.Run(t, "ip", "netns", "del", "vs9") })
	rest := s.Leaks()
	ledger := "vsrun: left alone: " + s.StateDir + "/vs8: data of vs8, which there is not; to remove it: vsrun destroy 8\n"
	for _, c := range []struct {
		what string
		make func()
		want []string
	}{
		{"nothing", func() {}, nil},
		{"a whole one without a record", func() { made(); lose(record) }, []string{
			"namespace /run/netns/vs8 of vs8, which there is not", "init of vs8, which there is not",
		}},
		{"the same, whose init is dead", func() { made(); killInit(); lose(record) }, []string{
			"namespace /run/netns/vs8 of vs8, which there is not", "run directory /run/vsrun/vs8 of an init that has ended", "cgroup vs8 of an init that has ended",
		}},
		{"a disabled one that is there", func() {
			made()
			b, err := os.ReadFile(record)
			if err != nil {
				t.Fatal(err)
			}
			write(record, strings.Replace(string(b), `"id": 8`, `"id": 8, "disabled": true`, 1))
			t.Cleanup(func() { s.MustVsrun(t, "destroy", "8") })
		}, []string{"namespace /run/netns/vs8 of vs8, which is disabled", "init of vs8, which is disabled"}},
		{"half of things", func() {
			write(filepath.Join(s.StateDir, ".vs8.json.new"), "{")
			write(filepath.Join(s.StateDir, ".port-bond7.json.new"), "{")
			write("/run/netns/vs8", "")
		}, []string{
			"name /run/netns/vs8 without a namespace", "half a record, " + s.StateDir + "/.vs8.json.new", "half a record, " + s.StateDir + "/.port-bond7.json.new",
		}},
	} {
		s.MustVsrun(t, "destroy", "8")
		c.make()
		for _, word := range []string{"would remove ", "would remove ", "removed "} {
			args := []string{"gc"}
			if word != "removed " {
				args = append(args, "--dry-run")
			}
			r := s.Vsrun(args...)
			want := "nothing to remove\n"
			if len(c.want) > 0 {
				want = word + strings.Join(c.want, "\n"+word) + "\n"
			}
			if _, err := os.Stat("/sys/fs/cgroup/vsrun/vs7"); err != nil { // this user may make none
				want = strings.ReplaceAll(want, word+"cgroup vs8 of an init that has ended\n", "")
			}
			if r.Code != 0 || r.Stdout != want || r.Stderr != "" && r.Stderr != ledger {
				t.Errorf("%s: %v\nwant\n%s", c.what, r, want)
			}
		}
		if r := s.Vsrun("gc"); r.Stdout != "nothing to remove\n" {
			t.Errorf("%s, once more: %v", c.what, r)
		}
		s.MustVsrun(t, "destroy", "8")
		if leaks := s.Leaks(); leaks != rest {
			t.Errorf("%s: it leaves\n%s\nnot\n%s", c.what, leaks, rest)
		}
	}
	if now := s.service(t, "7", "other"); now.State != "running" {
		t.Errorf("another is %+v", now)
	}
	gcKeepsData(t, s)
}

// What a virtual server has written is its owner's, and what another state directory has
// is another's.
func gcKeepsData(t *testing.T, s *site) {
	t.Helper()
	data := filepath.Join(s.StateDir, "vs8", "private", "srv")
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	r := s.Vsrun("gc")
	if r.Code != 0 || r.Stdout != "nothing to remove\n" || !strings.Contains(r.Stderr, "left alone: "+s.StateDir+"/vs8: data of vs8, which there is not; to remove it: vsrun destroy 8") {
		t.Error(r)
	}
	if _, err := os.Stat(data); err != nil {
		t.Error(err)
	}
	s.MustVsrun(t, "destroy", "8")
	gcKeepsCgroups(t, s)
	elsewhere := t.TempDir()
	s.MustVsrun(t, "create", "4") // without an init to tell whose it is
	defer s.MustVsrun(t, "destroy", "4")
	for _, args := range [][]string{{"create", "5"}, {"destroy", "5"}, {"gc"}} {
		r = s.Vsrun(append(args, "--state-dir", elsewhere)...)
		if r.Code != 0 {
			t.Error(r)
		}
	}
	const alone = "left alone: namespace /run/netns/vs4: "
	if now := s.Vsrun("diff", "4"); !strings.Contains(r.Stderr, alone) || now.Code != 0 {
		t.Errorf("from another state directory: %v\n%v", r, now)
	}
	if !strings.Contains(r.Stderr, "left alone: init of vs7") || s.service(t, "7", "other").State != "running" {
		t.Errorf("from another state directory: %v", r)
	}
}

// Cgroups are the machine's: another host's virtual server may have this number.
func gcKeepsCgroups(t *testing.T, s *site) {
	t.Helper()
	const group = "/sys/fs/cgroup/vsrun/vs5"
	if err := os.Mkdir(group, 0o755); err != nil { // this user may make none
		return
	}
	other := exec.Command("sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	if err := os.WriteFile(group+"/cgroup.procs", []byte(strconv.Itoa(other.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	const want = "left alone: cgroup vs5: there are processes in it, and no init of vs5 here"
	if r := s.Vsrun("gc"); r.Code != 0 || !strings.Contains(r.Stderr, want) {
		t.Error(r)
	}
	s.MustVsrun(t, "destroy", "5")
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Error("it was killed: ", err)
	}
	other.Process.Kill()
	other.Wait()
	if r := s.Vsrun("gc"); r.Stdout != "removed cgroup vs5 of an init that has ended\n" {
		t.Error(r)
	}
}
