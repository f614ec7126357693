package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/stats"
	"github.com/vsrun/vsrun/stats/ipmd"
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

// How counters are read is told, and can be said; either way the figures are the same.
func TestReaderIsToldAndChosen(t *testing.T) {
	h := lab.New(t)
	for id := range 9 {
		id := fmt.Sprint(11 + id)
		h.MustVsrun(t, "create", id)
		t.Cleanup(func() { h.MustVsrun(t, "destroy", id) })
	}
	config := filepath.Join(t.TempDir(), "ipmd.yaml")
	set := func(how string) {
		if err := os.WriteFile(config, []byte("maxAge: 0s\nreader: "+how+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set("proc")
	daemon, client, log := start(t, "--state-dir", h.StateDir, "--config", config)
	waitForLog(t, log, `counters are read from /proc" why="the configuration says so"`)
	if text := metrics(t, client); !strings.Contains(text, `ipmd_reader_info{reader="proc",reason="the configuration says so"} 1`) {
		t.Error(text)
	}
	before, err := client.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lab.NeedRoot(t, "nobody else loads a program that reads the kernel's memory")
	lab.Require(t, "kernel:btf", "capability:bpf", "capability:perfmon")
	set("auto")
	daemon.Process.Signal(unix.SIGHUP)
	const ebpf = "counters of many are read by eBPF"
	for end := time.Now().Add(30 * time.Second); !strings.Contains(log.String(), ebpf); time.Sleep(10 * time.Millisecond) {
		if _, err := client.Stats(t.Context()); err != nil { // it is tried when many are asked for
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatalf("30 s later:\n%s", log)
		}
	}
	for range 2 { // at the second time they are known to the program
		after, err := client.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, after, cmpopts.IgnoreFields(stats.Sample{}, "Time", "Ledger", "Sockets")); diff != "" {
			t.Error(diff)
		}
	}
	if text := metrics(t, client); !strings.Contains(text, `ipmd_reader_info{reader="ebpf",reason=""} 1`) {
		t.Error(text)
	}
}

func metrics(t *testing.T, c ipmd.Client) string {
	t.Helper()
	http := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", c.Socket)
	}}}
	res, err := http.Get("http://ipmd/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
