package e2e_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vsrun/vsrun/runtime/service"
	"github.com/vsrun/vsrun/test/lab"
)

// A service that dies at once, a thousand times, leaving a process each time, costs
// its init nothing that stays: no descriptor, thread, process, cgroup or memory.
func TestRestartStorm(t *testing.T) {
	lab.Require(t, "cgroup2") // without, what a service leaves in a session of its own lives on
	const times = 1000
	s := &site{Host: bareHost(t)}
	s.MustVsrun(t, "create", "8")
	add(t, s, "8", "steady", []string{"sleep", "100000"})
	add(t, s, "8", "storm", []string{"sh", "-c", "setsid sleep 161803398 & exit 3"}, "--restart", "never")
	c, err := service.Dial(filepath.Join(s.RunDir, "vs8", "init.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	status := func() map[string]string { // the init's, with how many descriptors it has
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Pid()))
		if err != nil {
			t.Fatal(err)
		}
		fields := map[string]string{}
		for line := range strings.Lines(string(b)) {
			name, value, _ := strings.Cut(line, ":")
			fields[name] = strings.TrimSpace(value)
		}
		fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.Pid()))
		fields["fds"] = fmt.Sprintf("%3d", len(fds))
		return fields
	}
	ended := func() error {
		if now := s.service(t, "8", "storm"); now.State != "failed" {
			return fmt.Errorf("%+v", now)
		}
		return nil
	}
	soon(t, ended)
	before, used := status(), processorTime(t, c.Pid())
	began := time.Now()
	for range times {
		if _, err := c.Order(t.Context(), service.OrderRestart, "storm"); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	soon(t, ended)
	t.Logf("%d restarts: %v each, of which %v the init's processor time; resident at most %s", times,
		(took / times).Round(time.Microsecond), ((processorTime(t, c.Pid()) - used) / times).Round(time.Microsecond), status()["VmHWM"])
	soon(t, func() error {
		now := status()
		kib, _, _ := strings.Cut(now["VmRSS"], " ")
		n, err := strconv.Atoi(kib)
		if err != nil || n > 4608 || now["fds"] > before["fds"] {
			return fmt.Errorf("at rest: %s resident, %s descriptors, %s threads; before %s, %s, %s", now["VmRSS"], now["fds"], now["Threads"],
				before["VmRSS"], before["fds"], before["Threads"])
		}
		return nil
	})
	t.Logf("at rest: %s resident, %s threads; before %s, %s", status()["VmRSS"], status()["Threads"], before["VmRSS"], before["Threads"])
	if n := alive(t, "161803398"); n != 0 {
		t.Errorf("%d processes are left", n)
	}
	filepath.WalkDir("/sys/fs/cgroup", func(path string, _ fs.DirEntry, _ error) error {
		if strings.HasPrefix(filepath.Base(path), "storm") {
			t.Errorf("the cgroup %s is left", path)
			return fs.SkipDir
		}
		return nil
	})
	var size int64
	logs, _ := filepath.Glob(filepath.Join(s.StateDir, "vs8", "log", "*"))
	for _, log := range logs {
		if fi, err := os.Stat(log); err == nil {
			size += fi.Size()
		}
	}
	t.Logf("logs: %d bytes each time", size/times)
}

// processorTime is what a process has used (proc_pid_stat(5)); the clock ticks a
// hundred times a second.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')'):]))
	user, _ := strconv.Atoi(fields[12])
	system, _ := strconv.Atoi(fields[13])
	return time.Duration(user+system) * 10 * time.Millisecond
}
