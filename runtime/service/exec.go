package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/nsutil/cgroup"
	"golang.org/x/sys/unix"
)

// The exit codes that a shell gives a command that it cannot run.
const (
	codeNotExecutable = 126
	codeNotFound      = 127
)

// inside are the namespaces of a virtual server.
const inside = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC

// Exec runs a command in the virtual server, as one of its processes, and
// returns its exit code: 128 plus the number of the signal that ended it, 127
// when there is no such program, 126 when it cannot be executed; an error comes
// with the latter two. env is added to the environment that services have. The
// command has the three files themselves, and so the terminal behind them; nil
// is /dev/null.
// SIGTERM, SIGHUP, SIGINT and SIGQUIT are passed on as long as it runs. When ctx
// ends it is killed.
func (c *Client) Exec(ctx context.Context, argv, env []string, stdin, stdout, stderr *os.File) (int, error) {
	if len(argv) == 0 {
		return 0, errors.New("there is no command")
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(signals)
	attr := &os.ProcAttr{
		Dir:   "/",
		Env:   merge(environment(c.init.number()), env),
		Files: []*os.File{cmp.Or(stdin, null), cmp.Or(stdout, null), cmp.Or(stderr, null)},
	}
	group, err := execCgroup(c.init.number())
	if err != nil {
		return 0, err
	}
	defer group.Close()
	way, err := group.Entry()
	if err != nil {
		return 0, err
	}
	defer way.Close()
	attr.Sys = new(syscall.SysProcAttr)
	way.Use(attr.Sys)
	var p *os.Process
	var refusal error
	err = nsutil.Join(c.Pidfd(), inside, func() error {
		if err := group.EnterThread(); err != nil {
			return err
		}
		p, refusal = startProcess(argv, attr)
		return nil
	})
	if !c.init.alive() { // a PID namespace without its init gives ENOMEM
		err = ErrNotRunning
	}
	switch {
	case p != nil:
		return attend(ctx, p, signals)
	case err != nil:
		return 0, err
	}
	return notStarted(argv[0], refusal)
}

// execCgroup is where commands count as what the virtual server uses.
func execCgroup(id int) (*cgroup.Group, error) {
	all := cgroup.Find().Open(cgroup.Name(id))
	defer all.Close()
	return all.Child(execGroup)
}

// merge adds to an environment; what is added counts where both have a name.
func merge(env, added []string) []string {
	name := func(e string) string { n, _, _ := strings.Cut(e, "="); return n }
	env = slices.DeleteFunc(env, func(e string) bool {
		return slices.ContainsFunc(added, func(a string) bool { return name(a) == name(e) })
	})
	return append(env, added...)
}

// startProcess starts a command that it looks up where the calling thread is.
func startProcess(argv []string, attr *os.ProcAttr) (*os.Process, error) {
	path := ""
	for _, e := range attr.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	path, err := lookup(argv[0], path)
	if err != nil {
		return nil, err
	}
	return os.StartProcess(path, argv, attr)
}

// notStarted makes an exit code of the error that a command could not be started
// with.
func notStarted(command string, err error) (int, error) {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return 0, err
	}
	err = fmt.Errorf("%s: %w", command, errno)
	switch errno {
	case unix.ENOENT, unix.ENOTDIR:
		return codeNotFound, err
	case unix.EACCES, unix.ENOEXEC, unix.EISDIR:
		return codeNotExecutable, err
	}
	return 0, err
}

// attend waits for the process, passes signals on to it and kills it when ctx
// ends.
func attend(ctx context.Context, p *os.Process, signals <-chan os.Signal) (int, error) {
	type end struct {
		state *os.ProcessState
		err   error
	}
	ended := make(chan end, 1)
	go func() {
		state, err := p.Wait()
		ended <- end{state, err}
	}()
	done := ctx.Done()
	for {
		select {
		case e := <-ended:
			if e.err != nil {
				return 0, e.err
			}
			if ctx.Err() != nil {
				return exitCode(e.state), ctx.Err()
			}
			return exitCode(e.state), nil
		case sig := <-signals:
			if !fromTerminal(sig) {
				p.Signal(sig)
			}
		case <-done:
			p.Kill()
			done = nil // the end follows
		}
	}
}

// fromTerminal reports whether the signal is likely to be the terminal's, which
// has sent it to the whole foreground process group, the command included.
func fromTerminal(sig os.Signal) bool {
	if sig != unix.SIGINT && sig != unix.SIGQUIT {
		return false
	}
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	foreground, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && foreground == unix.Getpgrp()
}

func exitCode(state *os.ProcessState) int {
	status := state.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
