package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// field is a line of one of /proc's files that are made of a name and kB.
func field(t testing.TB, file, name string) (kb float64) {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	_, rest, found := strings.Cut("\n"+string(text), "\n"+name+":")
	if _, err := fmt.Sscan(rest, &kb); !found || err != nil {
		t.Fatalf("%s says nothing of %s: %v", file, name, err)
	}
	return kb
}

// resident is what a process has of memory, in MB.
func resident(t testing.TB, pid int) float64 {
	t.Helper()
	return field(t, fmt.Sprintf("/proc/%d/status", pid), "VmRSS") * 1024 / 1e6
}

// pidsOf are the processes of that name on the host.
func pidsOf(t testing.TB, name string) (pids []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/comm")
	must(t, err)
	for _, path := range all {
		var pid int
		if text, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(text)) == name {
			fmt.Sscanf(path, "/proc/%d/comm", &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}

func pidOf(t testing.TB, name string) int {
	t.Helper()
	pids := pidsOf(t, name)
	if len(pids) != 1 {
		t.Fatalf("%d processes are %s", len(pids), name)
	}
	return pids[0]
}

// kernelMemory is, in KiB, what the kernel has for itself and cannot take back: there are
// namespaces in it. The machine's free memory is others', too.
func kernelMemory(t testing.TB) float64 {
	t.Helper()
	return field(t, "/proc/meminfo", "SUnreclaim") + field(t, "/proc/meminfo", "Percpu")
}
