package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A Host is a throw-away host as one test sees it. Tests that use one cannot
// be parallel: the host is the whole process's.
type Host struct {
	StateDir, RunDir, NetnsDir string

	t      testing.TB
	origin Snapshot       // as New found it
	rights Snapshot       // origin, and what the lab has added for the test
	undo   []func() error // takes away again what the lab has added, last first
	group  bool           // what is built is part of one building
	kept   []string
}

// New gives the test a host with empty state and run directories, and checks
// when the test is over that everything is again as it was. Clean-ups that the
// test registers come before that.
func New(t testing.TB) *Host {
	t.Helper()
	if err := Inside(); err != nil {
		t.Fatalf("lab: %v", err)
	}
	h := &Host{
		StateDir: filepath.Join(t.TempDir(), "state"),
		RunDir:   "/run/vsrun", // short: a unix socket's path has at most 107 bytes
		NetnsDir: netnsDir,
		t:        t,
	}
	h.Keep(filepath.Join(h.StateDir, "lock"), filepath.Join(h.StateDir, ".claims")) // one for all virtual servers
	t.Setenv("VSRUN_STATE_DIR", h.StateDir)
	t.Setenv("VSRUN_RUN_DIR", h.RunDir)
	t.Setenv("VSRUN_NETNS_DIR", h.NetnsDir)
	run("", "true") // the runtime opens its poller with the first pipe
	h.origin, h.rights = h.Snapshot(), Snapshot{}
	h.rights.add(h.origin)
	t.Cleanup(h.close)
	return h
}

// Dir makes a directory for the time of the test that virtual servers see, as
// they do not see those of t.TempDir. Other users may go in.
func (h *Host) Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(seenDir, "test")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Keep names files and directories (patterns of path/filepath, a directory
// covers what is in it) that may rightly stay when a test is over.
func (h *Host) Keep(patterns ...string) { h.kept = append(h.kept, patterns...) }

func (h *Host) isKept(path string) bool {
	for ; path != "/"; path = filepath.Dir(path) {
		for _, pattern := range h.kept {
			if ok, _ := filepath.Match(pattern, path); ok {
				return true
			}
		}
	}
	return false
}

// Leaks is what differs from a host in which only the lab has made things: ""
// if nothing.
func (h *Host) Leaks() string {
	h.t.Helper()
	return h.rights.Diff(h.Snapshot())
}

// grace is for what ends by itself after a test, as a process that was told to.
// It is no licence: a test of "gone when the command returns" asks Leaks.
const grace = time.Second

func (h *Host) leaksAfterGrace() string {
	end := time.Now().Add(grace)
	for {
		leaks := h.Leaks()
		if leaks == "" || time.Now().After(end) {
			return leaks
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (h *Host) close() {
	leaks := h.leaksAfterGrace()
	switch {
	case leaks == "":
	case h.t.Failed():
		h.t.Logf("and, after that failure, it left its host changed:\n%s", leaks)
	default:
		h.t.Errorf("the test left its host changed:\n%s", leaks)
	}
	if leaks != "" {
		h.sweep()
	}
	for i := len(h.undo) - 1; i >= 0; i-- {
		if err := h.undo[i](); err != nil && leaks == "" {
			h.t.Errorf("lab: %v", err)
		}
	}
	if diff := h.origin.Diff(h.Snapshot()); leaks == "" && diff != "" {
		h.t.Errorf("lab: the lab itself left this behind:\n%s", diff)
	}
}

// build lets the lab add something to the host: it is there by rights until
// undo takes it away.
func (h *Host) build(make func() error, undo func() error) {
	h.t.Helper()
	h.Together(func() {
		h.undo = append(h.undo, undo)
		if err := make(); err != nil {
			h.t.Fatalf("lab: %v", err)
		}
	})
}

// Together lets fn have segments and clients made, and nothing else, and looks at the
// host once for all of them: on a slow machine that is what making them takes.
func (h *Host) Together(fn func()) {
	h.t.Helper()
	if h.group {
		fn()
		return
	}
	before := h.Snapshot()
	h.group = true
	fn()
	h.group = false
	h.rights.add(before.delta(h.Snapshot()))
}

// Run runs a command on the host and returns its output. The test fails if the
// command does.
func (h *Host) Run(t testing.TB, argv ...string) string {
	t.Helper()
	return must(t, run("", argv...))
}

// TryRun runs a command on the host.
func (h *Host) TryRun(argv ...string) Result { return run("", argv...) }

// Vsrun runs vsrun on the host.
func (h *Host) Vsrun(args ...string) Result {
	h.t.Helper()
	return h.VsrunIn("", args...)
}

// VsrunIn runs vsrun on the host with stdin.
func (h *Host) VsrunIn(stdin string, args ...string) Result {
	h.t.Helper()
	r := run(stdin, append([]string{filepath.Join(Programs(h.t), "vsrun")}, args...)...)
	r.command = fmt.Sprint("vsrun ", strings.Join(args, " "))
	return r
}

// MustVsrun runs vsrun on the host and returns its output. The test fails if
// vsrun does.
func (h *Host) MustVsrun(t testing.TB, args ...string) string {
	t.Helper()
	return must(t, h.Vsrun(args...))
}

// Start starts a command on the host that runs beside the test, until Stop or
// the end of the test.
func (h *Host) Start(t testing.TB, argv ...string) *Process {
	t.Helper()
	p, err := start(argv...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop() })
	return p
}
