package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vsrun/vsrun/stats/ipmd"
	"github.com/vsrun/vsrun/test/lab"
)

// asIPMD makes the test binary ipmd itself.
const asIPMD = "IPMD_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asIPMD) != "" {
		main()
		os.Exit(0)
	}
	lab.Main(m)
}

func TestCommandLine(t *testing.T) {
	const hint = "\nhint: ipmd --help lists the flags\n"
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
		{[]string{"--version"}, 0, "ipmd ", ""},
		{[]string{"--help"}, 0, "--netns-dir directory ", ""},
		{[]string{"--bogus"}, 2, "", "ipmd: cannot understand the flags: unknown flag: --bogus" + hint},
		{[]string{"--socket"}, 2, "", "ipmd: cannot understand the flags: flag needs an argument: --socket" + hint},
		{[]string{"serve"}, 2, "", `ipmd: cannot understand "serve": there are only flags` + hint},
		{[]string{"--socket", file}, 1, "", "ipmd: cannot listen: " + file + " is there, and is not a socket\n"},
		{[]string{"--run-dir", file + "/below"}, 1, "", "ipmd: cannot listen: mkdir " + file + ": not a directory\n"},
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

func TestServes(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		h := lab.New(t)
		daemon, client, log := start(t, "--state-dir", h.StateDir)
		h.MustVsrun(t, "create", "8", "--name", "finance")
		t.Cleanup(func() { h.MustVsrun(t, "destroy", "8") })
		samples, err := client.Stats(t.Context(), "finance")
		if err != nil || len(samples) != 1 || samples[0].ID != 8 {
			t.Fatalf("%+v, %v", samples, err)
		}
		if ttl, ok := samples[0].MIB.Lookup("Ip", "DefaultTTL"); ttl != 64 || !ok {
			t.Errorf("DefaultTTL is %d, %v", ttl, ok)
		}
		if _, err := client.Stats(t.Context(), "9"); !errors.Is(err, ipmd.ErrNotFound) {
			t.Errorf("%v", err)
		}
		h.MustVsrun(t, "disable", "8")
		if samples, err := client.Stats(t.Context()); err != nil || len(samples) != 0 {
			t.Errorf("%+v, %v", samples, err)
		}
		daemon.Process.Signal(signal)
		if err := daemon.Wait(); err != nil {
			t.Errorf("%v: %v\n%s", signal, err, log)
		}
		if _, err := os.Lstat(client.Socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: the socket stays: %v", signal, err)
		}
		if !strings.Contains(log.String(), "ipmd is listening") {
			t.Errorf("%v: log %s", signal, log)
		}
	}
}

func TestStartsOverAKilledOne(t *testing.T) {
	daemon, client, _ := start(t)
	again := command(t, "--socket", client.Socket)
	out, err := again.CombinedOutput()
	if want := "ipmd: cannot listen: ipmd is already running on " + client.Socket + "\n"; err == nil || string(out) != want {
		t.Errorf("%s, want %s", out, want)
	}
	daemon.Process.Kill()
	daemon.Wait()
	if _, err := client.Stats(t.Context()); !errors.Is(err, ipmd.ErrNotRunning) {
		t.Errorf("%v", err)
	}
	startOn(t, client.Socket)
	if _, err := client.Stats(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDirectoriesFromEnvironment(t *testing.T) {
	run := t.TempDir()
	t.Setenv("VSRUN_RUN_DIR", run)
	t.Setenv("VSRUN_NETNS_DIR", "")
	help, err := command(t, "--help").Output()
	if err != nil || !strings.Contains(string(help), run) || !strings.Contains(string(help), `"/run/netns"`) {
		t.Errorf("%s, %v", help, err)
	}
	daemon := command(t)
	waitFor(t, daemon, filepath.Join(run, "ipmd.sock"))
}

// A record that cannot be read takes only its own virtual server's figures away.
func TestUnreadableRecord(t *testing.T) {
	h := lab.New(t)
	h.MustVsrun(t, "create", "8", "--name", "finance")
	t.Cleanup(func() { h.MustVsrun(t, "destroy", "8") })
	broken := filepath.Join(h.StateDir, "vs9.json")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(broken) })
	_, client, log := start(t, "--state-dir", h.StateDir)
	samples, err := client.Stats(t.Context())
	if err != nil || len(samples) != 1 || samples[0].Name != "finance" {
		t.Errorf("%+v, %v", samples, err)
	}
	waitForLog(t, log, broken)
}

// command is ipmd with args, not started.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), asIPMD+"=1")
	return cmd
}

// start starts ipmd on a new socket.
func start(t *testing.T, args ...string) (*exec.Cmd, ipmd.Client, *output) {
	t.Helper()
	return startOn(t, filepath.Join(t.TempDir(), "ipmd.sock"), args...)
}

func startOn(t *testing.T, socket string, args ...string) (*exec.Cmd, ipmd.Client, *output) {
	t.Helper()
	cmd := command(t, append([]string{"--socket", socket}, args...)...)
	log := new(output)
	cmd.Stderr = log
	waitFor(t, cmd, socket)
	return cmd, ipmd.Client{Socket: socket}, log
}

// output is what a running program has written.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func waitForLog(t *testing.T, log *output, words string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(log.String(), words); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the log lacks %q:\n%s", words, log)
		}
	}
}

// waitFor starts cmd and waits until it listens. The test's end kills it.
func waitFor(t *testing.T, cmd *exec.Cmd, socket string) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not listening after 10 s: %v", err)
		}
	}
}

func TestConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ipmd.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := command(t, "--config", file).CombinedOutput()
	if want := "ipmd: cannot read the configuration: open " + file + ": no such file or directory\n"; err == nil || string(out) != want {
		t.Errorf("%s, want %s", out, want)
	}
	write("maxAge: soon\nbogus: 1\n")
	out, err = command(t, "--config", file).CombinedOutput()
	want := "ipmd: cannot use the configuration: " + file + ":1:9: soon is not a time, such as 10s or 1m30s\n" +
		file + ":2:1: unknown field bogus\nhint: ipmd --help explains the file's fields\n"
	if err == nil || string(out) != want {
		t.Errorf("%s, want %s", out, want)
	}
	write("maxAge: 2s\n")
	daemon, client, log := start(t, "--config", file)
	for _, test := range []struct{ text, logged string }{
		{"maxAge: -2s\n", "the configuration stays as it was"},
		{"maxAge: 3s\n", "the configuration was read again"},
	} {
		write(test.text)
		daemon.Process.Signal(syscall.SIGHUP)
		waitForLog(t, log, test.logged)
	}
	if _, err := client.Stats(t.Context()); err != nil {
		t.Error(err)
	}
}

// What waits to be pushed stays when push: does, and is lost when that changes.
func TestReloadKeepsWhatWaitsToBePushed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ipmd.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("push: {url: http://127.0.0.1:1/, interval: 1s}\n")
	daemon, _, log := start(t, "--config", file)
	waitForLog(t, log, "cannot push")
	time.Sleep(1200 * time.Millisecond) // the first is on its way, the second waits
	write("maxAge: 3s\npush: {url: http://127.0.0.1:1/, interval: 1s}\n")
	daemon.Process.Signal(syscall.SIGHUP)
	waitForLog(t, log, "the configuration was read again")
	if strings.Contains(log.String(), "pushes that waited are lost") {
		t.Errorf("what waited is lost:\n%s", log)
	}
	write("push: {url: http://127.0.0.1:2/}\n")
	daemon.Process.Signal(syscall.SIGHUP)
	waitForLog(t, log, "pushes that waited are lost")
}

// What --help says of the file is what a file may say, and what holds without one.
func TestHelpShowsTheDefaults(t *testing.T) {
	config, err := ipmd.ReadConfig(strings.NewReader(fields), "help")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(ipmd.DefaultConfig(), config, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
}

// A socket that is there before ipmd is, and after it: who connects meanwhile waits.
func TestSocketOfSystemd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "ipmd.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	client := ipmd.Client{Socket: socket}
	answered := make(chan error, 1)
	go func() {
		_, err := client.Stats(context.Background())
		answered <- err
	}()
	for range 2 {
		daemon := command(t)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		daemon.Path, daemon.Args = "/bin/sh", []string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" --socket /nowhere/else`, self}
		daemon.ExtraFiles = []*os.File{file}
		if err := daemon.Start(); err != nil {
			t.Fatal(err)
		}
		if err := <-answered; err != nil {
			t.Error(err)
		}
		_, err = client.Stats(t.Context())
		answered <- err
		daemon.Process.Signal(syscall.SIGTERM)
		if err := daemon.Wait(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(socket); err != nil {
			t.Errorf("the socket went with ipmd: %v", err)
		}
	}
}
