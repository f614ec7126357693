package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/test/lab"
)

// scene names what TestScene plays, in a virtual machine or beside one.
const scene = "VSRUN_VM_SCENE"

// kernel is the one that these tests boot.
var kernel = "6.1"

// command is the command under test.
const command = "../../bin/vm"

func TestMain(m *testing.M) {
	if k := os.Getenv("VSRUN_VM_KERNEL"); k != "" {
		kernel = k
	}
	os.Exit(m.Run())
}

// TestScene is not a test of its own: others run it.
func TestScene(t *testing.T) {
	switch os.Getenv(scene) {
	case "pass":
		if _, err := os.Stat("testdata/shipped"); err != nil {
			t.Error("the package's testdata:", err)
		}
		if text, err := io.ReadAll(os.Stdin); len(text) > 0 || err != nil {
			t.Errorf("stdin has %q, %v", text, err)
		}
	case "mixed":
		t.Run("passes", func(t *testing.T) { fmt.Println("a line of its own"); t.Log("two\nlines") })
		t.Run("skips", func(t *testing.T) { t.Skip("as it likes") })
		t.Run("fails", func(t *testing.T) { fmt.Print("no end of line"); t.Error("as the scene wants it") })
		fmt.Fprintln(os.Stderr, "\x16=== RUN\ttab, CR\r\nand \x00 odd bytes")
	case "panic":
		panic("as the scene wants it")
	case "much":
		much(os.Stdout)
	case "hang":
		fmt.Println("hanging")
		time.Sleep(time.Hour)
	}
}

// much writes several megabytes in pieces of odd lengths.
func much(w io.Writer) {
	for i := range 4000 {
		w.Write(bytes.Repeat([]byte{byte(i), '\n', '\r', 0x16}, i%700+1))
	}
}

// vm is the command under test, to run a program on the kernel.
func vm(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	lab.Require(t, "qemu-system-x86_64", "busybox", "cpio", "depmod", "mmdebstrap", "mke2fs")
	if out, err := exec.Command("go", "build", "-o", command, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(command, append([]string{"-kernel", kernel}, args...)...)
	return cmd
}

// play is vm with this test binary as the program, playing a scene.
func play(t *testing.T, playing string, options ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := vm(t, append(options, self, "-test.run=^TestScene$")...)
	cmd.Env = append(os.Environ(), scene+"="+playing)
	return cmd
}

// outcome runs the command and returns its exit status and what it wrote.
func outcome(t *testing.T, cmd *exec.Cmd) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestStatusIsHandedOn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		cmd    *exec.Cmd
		status int
		stdout string
	}{
		{"pass", play(t, "pass"), 0, "PASS\n"},
		{"fail", play(t, "mixed"), 1, "no end of line"},
		{"panic", play(t, "panic"), 2, "panic: as the scene wants it"},
		{"killed", vm(t, "sh", "-c", "echo out; echo err >&2; kill -9 $$"), 128 + 9, "out\nerr\n"},
		{"absent", vm(t, "no-such-program"), 127, "no-such-program"},
	} {
		status, stdout, stderr := outcome(t, c.cmd)
		if status != c.status || !strings.Contains(stdout, c.stdout) || stderr != "" {
			t.Errorf("%s: exit status %d, want %d\nstdout: %s\nstderr: %s", c.name, status, c.status, stdout, stderr)
		}
	}
}

// TestGoTestSeesTheSame runs go test natively and in a virtual machine.
func TestGoTestSeesTheSame(t *testing.T) {
	t.Parallel()
	vm(t) // builds it
	abs, err := filepath.Abs(command)
	if err != nil {
		t.Fatal(err)
	}
	events := func(flags ...string) string {
		cmd := exec.Command("go", append([]string{"test", "-json", "-count=1", "-run=^TestScene$"}, flags...)...)
		cmd.Env = append(os.Environ(), scene+"=mixed")
		_, stdout, _ := outcome(t, cmd)
		return withoutTimes(t, stdout)
	}
	native := events()
	if diff := cmp.Diff(native, events("-exec="+abs+" -kernel="+kernel)); diff != "" {
		t.Errorf("-natively +in a virtual machine:\n%s", diff)
	}
	if !strings.Contains(native, `"skip"`) || !strings.Contains(native, "odd bytes") {
		t.Errorf("the scene was not played:\n%s", native)
	}
}

// withoutTimes leaves out of the events of go test what differs from run to run.
func withoutTimes(t *testing.T, stream string) string {
	t.Helper()
	seconds := regexp.MustCompile(`\d+\.\d+s`)
	var out strings.Builder
	for line := range strings.Lines(stream) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if strings.HasPrefix(fmt.Sprint(e["Action"]), "build") {
			continue
		}
		delete(e, "Time")
		delete(e, "Elapsed")
		if text, ok := e["Output"].(string); ok {
			e["Output"] = seconds.ReplaceAllString(text, "0s")
		}
		text, _ := json.Marshal(e)
		fmt.Fprintf(&out, "%s\n", text)
	}
	return out.String()
}

func TestMuchOutput(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := outcome(t, play(t, "much"))
	var want bytes.Buffer
	much(&want)
	want.WriteString("PASS\n")
	if status != 0 || stdout != want.String() {
		t.Errorf("exit status %d, and %d bytes that are the %d written: %t\n%s", status, len(stdout), want.Len(), stdout == want.String(), stderr)
	}
}

func TestCoverageComesBack(t *testing.T) {
	t.Parallel()
	vm(t)
	abs, err := filepath.Abs(command)
	if err != nil {
		t.Fatal(err)
	}
	profile := filepath.Join(t.TempDir(), "cover.out")
	cmd := exec.Command("go", "test", "-count=1", "-run=^TestTail$", "-coverprofile="+profile, "-exec="+abs+" -kernel="+kernel)
	status, stdout, stderr := outcome(t, cmd)
	text, err := os.ReadFile(profile)
	if status != 0 || err != nil || !strings.Contains(string(text), "/test/vm/machine.go:") {
		t.Errorf("exit status %d, %v\n%s%s", status, err, stdout, stderr)
	}
}

func TestKernelPanics(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := outcome(t, vm(t, "sh", "-c", "echo before; sleep 1; echo c >/proc/sysrq-trigger"))
	if status != broken || stdout != "before\n" || !strings.Contains(stderr, "Kernel panic - not syncing: sysrq") {
		t.Errorf("exit status %d\nstdout: %s\nstderr: %s", status, stdout, stderr)
	}
	if strings.Contains(stderr, "ONCE MORE") {
		t.Error("it was tried again, though the program had been started")
	}
}

func TestKernelComplains(t *testing.T) {
	t.Parallel()
	const warn = "echo '<4>WARNING: CPU: 0 PID: 1 at nowhere' >/dev/kmsg; echo done"
	status, stdout, stderr := outcome(t, vm(t, "sh", "-c", warn))
	if status != 0 || stdout != "done\n" || !strings.Contains(stderr, "WARNING: CPU: 0") {
		t.Errorf("exit status %d\nstdout: %s\nstderr: %s", status, stdout, stderr)
	}
}

func TestTimeLimit(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := outcome(t, play(t, "hang", "-time=10s"))
	if status != broken || stdout != "hanging\n" || !strings.Contains(stderr, "did not end within 10s") {
		t.Errorf("exit status %d\nstdout: %s\nstderr: %s", status, stdout, stderr)
	}
}

func TestTimeLimitIsTheTests(t *testing.T) {
	for args, want := range map[string]time.Duration{
		"-test.timeout=5m0s":        5*time.Minute + 30*time.Second,
		"-test.v -test.timeout=20s": 50 * time.Second,
		"-test.timeout=0":           10 * time.Minute,
		"":                          10 * time.Minute,
	} {
		if got := timeLimit(strings.Fields(args)); got != want {
			t.Errorf("%q: %v, want %v", args, got, want)
		}
	}
}

func TestDiesWithItsRunner(t *testing.T) {
	t.Parallel()
	cmd := play(t, "hang")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 100)); err != nil {
		t.Fatal("it never hung:", err)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
	qemu, err2 := strconv.Atoi(strings.TrimSpace(string(children)))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	for end := time.Now().Add(10 * time.Second); alive(qemu); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("QEMU, process %d, is alive 5 seconds after its runner", qemu)
		}
	}
}

// alive tells whether the process exists and is no zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

// A virtual machine that does not get as far as the program is started twice.
func TestBootFails(t *testing.T) {
	vm(t)
	dir := t.TempDir()
	for _, name := range []string{"vmlinuz", "initrd", "modules", "image"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 1<<20), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	disk, err := os.Open(filepath.Join(dir, "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	var r result
	said := stderrOf(t, func() { r = machine{kernel: dir, image: dir}.runTwice(disk, options{limit: time.Minute}) })
	if r.status != broken || strings.Count(said, "the virtual machine failed") != 2 || strings.Count(said, "ONCE MORE") != 1 {
		t.Errorf("exit status %d\n%s", r.status, said)
	}
}

func stderrOf(t *testing.T, f func()) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	old := os.Stderr
	os.Stderr = file
	f()
	os.Stderr = old
	text, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTail(t *testing.T) {
	if got := string(tail([]byte("a\nb\nc\n\n"), 2)); got != "b\nc" {
		t.Errorf("%q", got)
	}
	if got := string(tail([]byte("a"), 2)); got != "a" {
		t.Errorf("%q", got)
	}
}

// What is made once is made by one, and found by the others.
func TestCacheIsMadeOnce(t *testing.T) {
	c, err := openCache(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	made := make(chan string, 10)
	get := func(recipe string) string {
		path, err := c.get("thing", []string{recipe}, func(dir string) error {
			made <- recipe
			time.Sleep(50 * time.Millisecond)
			return os.WriteFile(filepath.Join(dir, "file"), []byte(recipe), 0o644)
		})
		text, err2 := os.ReadFile(filepath.Join(path, "file"))
		if err := errors.Join(err, err2); err != nil || string(text) != recipe {
			t.Errorf("%q, %v", text, err)
		}
		return path
	}
	ctx, done := context.WithTimeout(t.Context(), time.Minute)
	defer done()
	paths := make(chan string, 3)
	for range 3 {
		go func() { paths <- get("one") }()
	}
	first := ""
	for range 3 {
		select {
		case path := <-paths:
			if first != "" && path != first {
				t.Errorf("%s and %s", first, path)
			}
			first = path
		case <-ctx.Done():
			t.Fatal("it hangs")
		}
	}
	get("two")
	if exists(first) {
		t.Error("what was made from another recipe is still there")
	}
	if len(made) != 2 {
		t.Errorf("made %d times, want 2", len(made))
	}
}
