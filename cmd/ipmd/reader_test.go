package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

// A virtual server that is read all the time can be made again at once, with the same
// MAC: ipmd lets go of its namespace.
func TestRecreatedWhileRead(t *testing.T) {
	h := lab.New(t)
	h.Segment("eth1")
	daemon, client, log := start(t, "--state-dir", h.StateDir)
	var reading sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	reading.Go(func() {
		for ctx.Err() == nil {
			if _, err := client.Stats(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	var longest time.Duration
	for range 10 {
		h.MustVsrun(t, "create", "8", "--port", "eth1", "--address", "192.0.2.8/24", "--mac", "02:00:00:00:00:08")
		h.MustVsrun(t, "destroy", "8")
		begin := time.Now()
		for counterFiles(daemon) > 0 {
			if time.Sleep(time.Millisecond); time.Since(begin) > 5*time.Second {
				t.Fatalf("ipmd holds the namespace 5 s after it was destroyed\n%s", log)
			}
		}
		longest = max(longest, time.Since(begin))
	}
	t.Logf("a namespace outlives its name by %v at most", longest)
	stop()
	reading.Wait()
}

// counterFiles is how many files of namespaces' counters a process has open.
func counterFiles(p *exec.Cmd) (n int) {
	dir := fmt.Sprintf("/proc/%d/fd", p.Process.Pid)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if file, _ := os.Readlink(filepath.Join(dir, e.Name())); strings.Contains(file, "/net/") {
			n++
		}
	}
	return n
}

// ipmd may have as many descriptors as the hard limit allows.
func TestRaisesItsLimit(t *testing.T) {
	daemon, _, _ := start(t)
	var limit unix.Rlimit
	if err := unix.Prlimit(daemon.Process.Pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil || limit.Cur < limit.Max-1 { // Go leaves one out
		t.Errorf("%+v, %v", limit, err)
	}
}
