package service

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A task is a command that is run for a service beside its main process: with the
// service's settings, in its cgroup, and in a session of its own.
type task struct {
	pid   int
	word  *os.File // what the launched process said before it became the command
	said  *feed
	limit time.Duration
	timer *time.Timer
	late  bool // it has overrun its time, and was killed
	done  func(error)
}

// begin starts a task that has the time within; done hears in the loop, later, how
// it ended. An error means that it was not started.
func (s *supervisor) begin(u *unit, command, env []string, within time.Duration, done func(error)) error {
	return s.withOutput(u, nil, func(out *os.File, said *feed) error {
		pid, word, err := spawn(out, u.group, u.service.Name, nil,
			order{command, append(slices.Clone(s.env), env...), s.mounts.targets(u.launched.Private), u.launched.Settings, 0})
		if err != nil {
			return err
		}
		t := &task{pid: pid, word: word, said: said, limit: within, done: done}
		t.timer = time.AfterFunc(within, func() { s.overdue <- t })
		u.tasks = append(u.tasks, t)
		return nil
	})
}

// expire ends a task that has overrun its time, unless it has ended just now.
func (t *task) expire() {
	t.late = t.pid != 0
	t.kill()
}

// kill ends all processes of the task's that are in its process group; the others
// end with the service.
func (t *task) kill() {
	if t.pid != 0 {
		unix.Kill(-t.pid, unix.SIGKILL)
	}
}

// ended is heard when the task's process has been reaped.
func (t *task) ended(status unix.WaitStatus) {
	t.pid = 0
	t.timer.Stop()
	text, _ := io.ReadAll(t.word) // nobody has its other end any more
	t.word.Close()
	switch {
	case t.late:
		t.done(fmt.Errorf("it took longer than %s", t.limit))
	case len(text) > 0:
		t.done(errors.New(string(text)))
	case !status.Exited() || status.ExitStatus() != 0:
		t.done(errors.New(describe(status)))
	default:
		t.done(nil)
	}
}

// dropTasks ends the unit's tasks; each hears so when it has.
func (u *unit) dropTasks() {
	for _, t := range u.tasks {
		t.kill()
	}
}
