package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// What can be made in one hierarchy alone is made in none. Directories do for cgroups here.
func TestChildInAllOrNone(t *testing.T) {
	g := &Group{}
	defer g.Close()
	for _, occupied := range []bool{false, true} {
		path := t.TempDir()
		if occupied {
			if err := os.WriteFile(filepath.Join(path, "a"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		g.dirs = append(g.dirs, d)
	}
	if c, err := g.Child("a"); c != nil || !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("%v, %v", c, err)
	}
	if _, err := os.Stat(filepath.Join(g.dirs[0].Name(), "a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it has left one: %v", err)
	}
}

func TestNone(t *testing.T) {
	var g *Group
	g.Kill()
	g.Close()
	if c, err := g.Child("a"); c != nil || err != nil {
		t.Errorf("%v, %v", c, err)
	}
	if g.Use() != (Use{}) || g.Below() != nil || g.Has("a") || g.Starved() {
		t.Error("it has something")
	}
	if e, err := g.Entry(); err != nil || e.Rest != nil {
		t.Errorf("%v, %v", e, err)
	}
	if err := errors.Join(g.Limit(Limits{}), g.Move(1), g.Remove("a")); err != nil {
		t.Error(err)
	}
	if err := g.Limit(Limits{Tasks: 1}); err == nil || !strings.Contains(err.Error(), "no cgroups") {
		t.Errorf("%v", err)
	}
	none := &Tree{}
	if g, err := none.Make("vs8"); g != nil || err != nil || none.Open("vs8") != nil || none.Remove("vs8") != nil {
		t.Errorf("%v, %v", g, err)
	}
}

// made is the cgroup of a virtual server in this host, with one below it.
func made(t *testing.T) (all, one *Group) {
	t.Helper()
	lab.Require(t, "cgroup2")
	lab.New(t)
	all, err := Find().Make("vs8")
	if err != nil || all == nil {
		t.Fatalf("%v, %v", all, err)
	}
	t.Cleanup(func() {
		all.Close()
		if err := Find().Remove("vs8"); err != nil {
			t.Error(err)
		}
	})
	all.HandDown()
	one, err = all.Child("one.service")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(one.Close)
	return all, one
}

// run starts a command in the cgroup.
func run(t *testing.T, g *Group, words ...string) *exec.Cmd {
	t.Helper()
	e, err := g.Entry()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	cmd := exec.Command(words[0], words[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	e.Use(cmd.SysProcAttr)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range e.Rest {
		fmt.Fprint(f, cmd.Process.Pid)
	}
	return cmd
}

// In every hierarchy the process is where it belongs.
func TestEntry(t *testing.T) {
	_, one := made(t)
	cmd := run(t, one, "sleep", "1000")
	for _, d := range one.dirs {
		text, err := read(d, "cgroup.procs")
		if strings.Count(string(text), "\n") != 1 {
			t.Errorf("%s has processes %q, %v", d.Name(), text, err)
		}
	}
	one.Kill()
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Error(err)
	}
}

func TestMakeWaitsForNobodyForever(t *testing.T) {
	_, one := made(t)
	cmd := run(t, one, "sleep", "1000")
	if g, err := Find().Make("vs8"); g != nil || !errors.Is(err, ErrBusy) {
		t.Errorf("%v, %v", g, err)
	}
	all := Find().Open("vs8")
	if !all.Has("one.service") {
		t.Error("it was removed from under its process")
	}
	all.Close()
	if err := Find().Remove("vs8"); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Error(err)
	}
}

// What is empty is no obstacle, nor is it used again: a limit is gone.
func TestMakeAnew(t *testing.T) {
	lab.Require(t, "controller:pids")
	all, one := made(t)
	if err := all.Limit(Limits{Tasks: 7}); err != nil {
		t.Fatal(err)
	}
	one.Close()
	again, err := Find().Make("vs8")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for _, d := range again.dirs {
		if text, err := read(d, "pids.max"); err == nil && string(text) != "max\n" {
			t.Errorf("the new one has the limit %s", text)
		}
	}
	if again.Has("one.service") {
		t.Error("what was below is there")
	}
}

// Where only v1 is shown, nobody is born there, and nothing kills all at once.
func TestWithoutV2(t *testing.T) {
	lab.Require(t, "cgroup2", "cgroup:v1")
	lab.New(t)
	tree := Find()
	tree.paths = tree.paths[1:]
	all, err := tree.Make("vs8")
	if err != nil || all.HasV2() {
		t.Fatalf("%+v, %v", all, err)
	}
	defer all.Close()
	one, err := all.Child("one.service")
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	cmds := []*exec.Cmd{run(t, one, "sleep", "1000"), run(t, one, "sleep", "1000")}
	if n := len(all.processes()); n != 2 {
		t.Errorf("%d processes are in it", n)
	}
	for _, cmd := range cmds {
		go cmd.Wait()
	}
	if err := tree.Remove("vs8"); err != nil {
		t.Error(err)
	}
	if tree.Open("vs8") != nil {
		t.Error("it is still there")
	}
}

// v1 refuses that, v2 does not: nobody gets more than the whole.
func TestPartOfALimit(t *testing.T) {
	lab.Require(t, "controller:cpu")
	all, one := made(t)
	if err := all.Limit(Limits{CPU: 50}); err != nil {
		t.Fatal(err)
	}
	if err := one.Limit(Limits{CPU: 100}); err != nil && !strings.Contains(err.Error(), "cannot limit cpu: invalid argument: in cgroups v1 no part") {
		t.Error(err)
	}
	if err := one.Limit(Limits{CPU: 20}); err != nil {
		t.Error(err)
	}
}

func TestFigures(t *testing.T) {
	lab.Require(t, "controller:memory", "controller:pids", "controller:cpu")
	all, one := made(t)
	cmd := run(t, one, "sh", "-c", `sleep 0.1; x=$(head -c 1000000 /dev/zero | tr '\0' x); sleep 1000`)
	defer cmd.Wait()
	defer one.Kill()
	for end := time.Now().Add(10 * time.Second); *one.Use().Memory < 1_000_000 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	for name, g := range map[string]*Group{"of one": one, "of all": all} {
		u := g.Use()
		for figure, n := range map[string]*int64{
			"memory": u.Memory, "tasks": u.Tasks, "cpu": u.CPU, "cpuUser": u.CPUUser, "cpuSystem": u.CPUSystem, "throttled": u.Throttled,
		} {
			if n == nil {
				t.Errorf("%s: there is no %s", name, figure)
			}
		}
		if *u.Memory < 1_000_000 || *u.Tasks < 1 || *u.Tasks > 4 || *u.CPU < *u.CPUUser {
			t.Errorf("%s: memory %d, tasks %d, cpu %d of which %d user", name, *u.Memory, *u.Tasks, *u.CPU, *u.CPUUser)
		}
	}
	if below := all.Below(); len(below) != 1 || below["one.service"].Tasks == nil {
		t.Errorf("below are %v", below)
	}
}

func TestDevice(t *testing.T) {
	if _, err := Device("/proc"); err == nil || !strings.Contains(err.Error(), "/proc is on no block device") {
		t.Error(err)
	}
	if _, err := Device("/no/such"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// Where nobody could see which hierarchies there are, none is taken for there being none.
func TestMakeUnseen(t *testing.T) {
	if g, err := (&Tree{err: syscall.EIO}).Make("vs8"); !errors.Is(err, syscall.EIO) {
		t.Errorf("it makes %v, error %v", g, err)
	}
}
