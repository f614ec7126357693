package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	firstPause = 100 * time.Millisecond
	longPause  = 30 * time.Second
	calm       = 10 * time.Second // running that long makes the pauses short again
	stopWithin = 10 * time.Second // between SIGTERM and SIGKILL
)

// A unit is a service as the init keeps it.
type unit struct {
	service  Service // as wanted
	launched Service // as the main process was started
	state    State
	since    time.Time
	pid      int   // of the main process, 0 when there is none
	refusal  error // why the latest launch failed
	last     string
	restarts int
	pause    time.Duration // the latest one, 0 when the next is the first
	timer    *time.Timer   // of the state's entry; a later one replaces it
	armed    int           // how many timers there were
}

func (u *unit) status() Status {
	return Status{u.service.Name, u.state, u.pid, u.restarts, u.since.UTC().Truncate(time.Millisecond), u.last}
}

// nextPause is how long to wait before the next try.
func (u *unit) nextPause() time.Duration {
	u.pause = min(max(2*u.pause, firstPause), longPause)
	return u.pause
}

// launch starts the main process, in a session of its own: smbd answers SIGTERM
// with kill(0, SIGTERM), which is everybody of its process group.
func (u *unit) launch(logs *os.Root, env []string) error {
	u.refusal = u.exec(logs, env)
	if u.refusal != nil {
		u.last = "cannot start: " + u.refusal.Error()
	}
	return u.refusal
}

func (u *unit) exec(logs *os.Root, env []string) error {
	log, err := openLog(logs, u.service.Name)
	if err != nil {
		return err
	}
	defer log.Close()
	command := u.service.Command
	path, err := lookup(command[0], searchPath)
	if err == nil {
		// ForkExec reaps the child whose exec fails; nobody else does
		// meanwhile, for only the event loop reaps, and it is here.
		u.pid, err = syscall.ForkExec(path, command, &syscall.ProcAttr{
			Dir:   "/",
			Env:   env,
			Files: []uintptr{0, log.Fd(), log.Fd()}, // the init's own stdin is /dev/null
			Sys:   &syscall.SysProcAttr{Setsid: true},
		})
	}
	if err != nil {
		u.pid = 0
		return fmt.Errorf("%s: %w", command[0], err)
	}
	u.launched = u.service
	return nil
}

// openLog opens the file that a service's output is appended to.
func openLog(logs *os.Root, name string) (*os.File, error) {
	return logs.OpenFile(name+".log", os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
}

// died notes how the main process ended and says which event that is.
func (u *unit) died(status unix.WaitStatus) event {
	if time.Since(u.since) >= calm {
		u.pause = 0
	}
	u.pid = 0
	u.last = describe(status)
	if status.Exited() && status.ExitStatus() == 0 {
		return succeeded
	}
	return broke
}

func describe(status unix.WaitStatus) string {
	switch {
	case status.Exited():
		return fmt.Sprintf("exit status %d", status.ExitStatus())
	case status.CoreDump():
		return fmt.Sprintf("signal: %s (core dumped)", status.Signal())
	}
	return fmt.Sprintf("signal: %s", status.Signal())
}

// environment is what a program in the virtual server gets to see.
func environment(id int) []string {
	return []string{"PATH=" + searchPath, "HOME=/", "LANG=C.UTF-8", fmt.Sprintf("VSRUN_ID=%d", id)}
}

const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookup finds the program as execvp(3) does, on the calling thread: ENOENT
// when no directory has it, EACCES when one has it, but not executable.
func lookup(program, path string) (string, error) {
	if strings.Contains(program, "/") {
		return program, nil
	}
	var result error = unix.ENOENT
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, program)
		fi, err := os.Stat(file)
		if err != nil || fi.IsDir() {
			if errors.Is(err, fs.ErrPermission) {
				result = unix.EACCES
			}
			continue
		}
		if unix.Access(file, unix.X_OK) == nil {
			return file, nil
		}
		result = unix.EACCES
	}
	return "", result
}
