package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a command may take before the test gives it up.
const patience = 60 * time.Second

// A Result is what a command left. Code is −1 when it could not be started or
// was given up, and 128 + the signal's number when it was killed.
type Result struct {
	Stdout, Stderr string
	Code           int

	command string
}

// String shows the command, its status and all its output.
func (r Result) String() string {
	return fmt.Sprintf("$ %s\n%s%s(exit status %d)", r.command, r.Stdout, r.Stderr, r.Code)
}

func run(stdin string, argv ...string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out, errs heard
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	cmd.Cancel = func() error { // said at once: it may be where even SIGKILL does not reach it
		fmt.Fprintf(os.Stderr, "lab: %s has not ended, but is\n%s", strings.Join(argv, " "), Whereabouts(cmd.Process.Pid))
		return cmd.Process.Kill()
	}
	// A daemon that kept the output open must not hold the test for ever.
	cmd.WaitDelay = 10 * time.Second // fifty at once in a virtual machine are not heard at once
	err := cmd.Run()
	r := Result{out.String(), errs.String(), -1, strings.Join(argv, " ")}
	switch {
	case ctx.Err() != nil:
		r.Stderr += fmt.Sprintf("lab: given up after %v\n", patience)
	case cmd.ProcessState == nil:
		r.Stderr += err.Error() + "\n"
	default:
		r.Code = exitCode(cmd.ProcessState.Sys().(syscall.WaitStatus))
		if out.cut || errs.cut {
			r.Stderr += "lab: it left a process behind that holds its output, or was not heard to its end\n"
		}
	}
	return r
}

// A heard is the output of a command, and whether it was cut off. os/exec tells that of a
// command that succeeded alone: one that failed then seems to have said nothing.
type heard struct {
	bytes.Buffer
	cut bool
}

func (h *heard) ReadFrom(r io.Reader) (int64, error) {
	n, err := h.Buffer.ReadFrom(r)
	h.cut = err != nil
	return n, err
}

// must fails the test unless the command succeeded.
func must(t testing.TB, r Result) string {
	t.Helper()
	if r.Code != 0 {
		t.Fatal(r)
	}
	return r.Stdout
}

// A Process is a command that runs beside the test.
type Process struct {
	cmd  *exec.Cmd
	out  output
	done chan struct{}
}

// An output may be read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func start(argv ...string) (*Process, error) {
	p := &Process{cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Pid is the process's id, as the host sees it.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Output is what the process has printed so far, on stdout and stderr.
func (p *Process) Output() string { return p.out.String() }

// Stop kills the process if it still runs, and returns what it has printed.
func (p *Process) Stop() Result {
	p.cmd.Process.Kill() // an error means it has ended
	<-p.done
	return Result{p.out.String(), "", exitCode(p.cmd.ProcessState.Sys().(syscall.WaitStatus)), p.cmd.String()}
}
