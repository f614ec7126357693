package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/test/lab"
)

// asVSD makes the test binary vsd itself.
const asVSD = "VSD_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asVSD) != "" {
		main()
		os.Exit(0)
	}
	lab.Main(m)
}

func TestCommandLine(t *testing.T) {
	const hint = "\nhint: vsd --help lists the flags\n"
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args   []string
		status int
		stdout string // what it has; stderr is compared whole
		stderr string
	}{
		{[]string{"--version"}, 0, "vsd ", ""},
		{[]string{"--help"}, 0, "--netns-dir directory ", ""},
		{[]string{"--bogus"}, 2, "", "vsd: cannot understand the flags: unknown flag: --bogus" + hint},
		{[]string{"run"}, 2, "", `vsd: cannot understand "run": there are only flags` + hint},
		{[]string{"--state-dir", file}, 1, "", "vsd: cannot start: cannot make the state directory: mkdir " + file + ": not a directory\n"},
	} {
		var stdout, stderr bytes.Buffer
		cmd := command(t, test.args...)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		cmd.Run()
		if status := cmd.ProcessState.ExitCode(); status != test.status {
			t.Errorf("%q: status %d, want %d", test.args, status, test.status)
		}
		if !strings.Contains(stdout.String(), test.stdout) || test.stdout == "" && stdout.Len() > 0 {
			t.Errorf("%q: stdout %q", test.args, &stdout)
		}
		if diff := cmp.Diff(test.stderr, stderr.String()); diff != "" {
			t.Errorf("%q: stderr\n%s", test.args, diff)
		}
	}
}

// What systemd hears, and that a second vsd is refused: after a kill the next one
// is not.
func TestLife(t *testing.T) {
	const run = "/run/vsrun" // it stays, as packages make it
	if err := os.MkdirAll(run, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(run) })
	h := lab.New(t)
	h.Keep(filepath.Join(h.StateDir, "lock"))
	t.Setenv("WATCHDOG_USEC", "300000")
	first := start(t)
	first.expect(t, "READY=1")
	first.expect(t, "WATCHDOG=1")
	out, err := command(t).CombinedOutput()
	if want := "vsd: cannot start: another one is running, on " + h.StateDir + "\nhint: end that one first: systemctl stop vsd\n"; err == nil || string(out) != want {
		t.Errorf("%v: %s, want %s", err, out, want)
	}
	out, err = command(t, "--state-dir", t.TempDir()).CombinedOutput()
	if want := "vsd: cannot start: another one is running, on " + run + "\nhint: give each its own run directory: --run-dir\n"; err == nil || string(out) != want {
		t.Errorf("%v: %s, want %s", err, out, want)
	}
	first.cmd.Process.Kill()
	first.cmd.Wait()

	second := start(t)
	second.expect(t, "READY=1")
	second.cmd.Process.Signal(syscall.SIGHUP)
	second.expect(t, "RELOADING=1")
	second.expect(t, "READY=1")
	second.cmd.Process.Signal(syscall.SIGTERM)
	second.expect(t, "STOPPING=1")
	if err := second.cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, second.log)
	}
}

// command is vsd with args, not started.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), asVSD+"=1")
	return cmd
}

// A vsd is one as systemd has it.
type vsd struct {
	cmd     *exec.Cmd
	log     *bytes.Buffer
	systemd *net.UnixConn
}

func start(t *testing.T) *vsd {
	t.Helper()
	at := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: at, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	d := &vsd{command(t), new(bytes.Buffer), systemd}
	d.cmd.Env = append(d.cmd.Env, "NOTIFY_SOCKET="+at)
	d.cmd.Stderr = d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.cmd.Process.Kill(); d.cmd.Wait(); systemd.Close() })
	return d
}

// expect waits until systemd hears it, whatever else it hears.
func (d *vsd) expect(t *testing.T, want string) {
	t.Helper()
	d.systemd.SetReadDeadline(time.Now().Add(10 * time.Second))
	for b := make([]byte, 100); ; {
		n, err := d.systemd.Read(b)
		if err != nil {
			t.Fatalf("systemd does not hear %s: %v\n%s", want, err, d.log)
		}
		if string(b[:n]) == want {
			return
		}
	}
}
