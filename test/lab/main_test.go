package lab_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// scene names what TestScene plays in a host within this one.
const scene = "LAB_TEST_SCENE"

// nested is this test binary as go test would start it, to run one test.
func nested(test, playing string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+test+"$", "-test.v")
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "VSRUN_LAB_STAGE=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, scene+"="+playing)
	return cmd
}

// TestScene is not a test of its own: others run it in a host of its own.
func TestScene(t *testing.T) {
	switch os.Getenv(scene) {
	case "fail":
		t.Fatal("as the scene wants it")
	case "exit":
		os.Exit(42)
	case "killed":
		self, _ := os.FindProcess(os.Getpid())
		self.Kill()
		time.Sleep(time.Hour)
	case "hang":
		// One that a plain kill of its group or parent would not reach.
		h := lab.New(t)
		h.Run(t, "setsid", "sh", "-c", "trap '' TERM HUP; sleep 1000 >/dev/null 2>&1 &")
		os.Stdout.WriteString("hanging\n")
		time.Sleep(time.Hour)
	}
}

func TestStatusIsHandedOn(t *testing.T) {
	for playing, want := range map[string]int{"fail": 1, "exit": 42, "killed": 128 + 9} {
		cmd := nested("TestScene", playing)
		out, err := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%s: exit status %d, want %d (%v)\n%s", playing, got, want, err, out)
		}
		if playing == "fail" && !strings.Contains(string(out), "as the scene wants it") {
			t.Errorf("the output is not handed on:\n%s", out)
		}
	}
}

func TestHostDiesWithItsStarter(t *testing.T) {
	h := lab.New(t)
	cmd := nested("TestScene", "hang")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for seen := ""; !strings.Contains(seen, "hanging"); {
		b := make([]byte, 100)
		n, err := out.Read(b)
		if seen += string(b[:n]); err != nil {
			t.Fatalf("it never hung, it said %q", seen)
		}
	}
	if !strings.Contains(h.Leaks(), "sleep 1000") {
		t.Errorf("the scene has no process to leave behind:\n%s", h.Leaks())
	}
	cmd.Process.Kill()
	cmd.Wait()
	eventually(t, func() bool { return !strings.Contains(h.Leaks(), "process") })
	// All that a killed one cannot remove is its cgroup; the next one does, once that is empty.
	eventually(t, func() bool {
		nested("TestScene", "").Run()
		return !strings.Contains(h.Leaks(), "cgroup")
	})
}

func TestOrphansAreReaped(t *testing.T) {
	h := lab.New(t)
	h.Run(t, "sh", "-c", "(sleep 0.05 >/dev/null 2>&1 &)")
	eventually(t, func() bool {
		// Zombies are listed by ps, though not in a snapshot.
		return !strings.Contains(h.Run(t, "sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null || true"), "(sleep)")
	})
}

func TestHostIsBare(t *testing.T) {
	h := lab.New(t)
	if devices := h.Run(t, "ls", "/sys/class/net"); devices != "lo\n" {
		t.Errorf("/sys/class/net shows %q, want lo alone", devices)
	}
	if names := h.Run(t, "ip", "netns"); names != "" {
		t.Errorf("ip netns shows %q, want nothing", names)
	}
	h.Run(t, "ping", "-n", "-c", "1", "127.0.0.1")
}

func eventually(t *testing.T, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not so after 5 seconds")
		}
	}
}
