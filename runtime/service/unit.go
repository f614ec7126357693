package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil/cgroup"
)

// A unit is a service as the init keeps it.
type unit struct {
	service   Service // as wanted
	launched  Service // as the main process was started
	state     State
	since     time.Time
	pid       int         // of the main process, 0 when there is none
	word      chan string // what the launched process said before it became the program; "" is success
	tasks     []*task
	journal   *journal
	said      *feed         // what the main process writes to it
	group     *cgroup.Group // nil while it does not run, and where the host has none
	listeners []listener    // in the order of the service's sockets
	groups    int           // how many could not be removed
	starved   bool          // the kernel has killed one of its processes for want of memory
	refusal   error         // why the latest launch failed
	last      string
	restarts  int
	pause     time.Duration // the latest one, 0 when the next is the first
	starts    []time.Time   // the latest, as many as the StartLimit counts
	timer     *time.Timer   // of the state's entry; a later one replaces it
	armed     int           // how many timers there were
	round     int           // how many states there were
	looking   *time.Timer   // for the next look whether it is ready, or well
	checked   bool          // whether it is well, since it runs
	failures  int           // of the latest checks, in a row
	illness   error         // what the latest check failed for
}

func (u *unit) status() Status {
	return Status{u.service.Name, u.state, u.pid, u.restarts, u.since.UTC().Truncate(time.Millisecond), u.last, u.health(), u.group.Use()}
}

// launch starts the main process, in a session of its own: smbd answers SIGTERM
// with kill(0, SIGTERM), which is everybody of its process group. What becomes of
// it is heard later.
func (u *unit) launch(out *os.File, env, private []string, heard func()) error {
	u.launched, u.word, u.refusal = u.service, make(chan string, 1), nil
	if u.service.Ready.Notify {
		env = append(slices.Clone(env), "NOTIFY_SOCKET="+notifySocket)
	}
	sockets, listen := u.handed()
	pid, word, err := spawn(out, u.group, u.service.Name, sockets,
		order{u.service.Command, append(slices.Clip(env), listen...), private, u.service.Settings, 0})
	u.pid = pid
	if err != nil {
		u.word = nil
		return err
	}
	go func(to chan<- string) {
		text, err := io.ReadAll(word)
		word.Close()
		if err != nil {
			text = []byte(err.Error())
		}
		to <- string(text)
		heard()
	}(u.word)
	return nil
}

// fail notes why the program could not be started, or did not get ready.
func (u *unit) fail(err error) {
	u.refusal = err
	u.last = "cannot start: " + err.Error()
}

// spawn starts a process that carries out the order, with the sockets, and returns it
// with the file that it writes to when it cannot.
func spawn(out *os.File, group *cgroup.Group, name string, sockets []uintptr, o order) (pid int, word *os.File, err error) {
	way, err := group.Entry()
	if err != nil {
		return 0, nil, err
	}
	defer way.Close()
	o.Enter = len(way.Rest)
	text, err := json.Marshal(o)
	if err != nil {
		return 0, nil, err
	}
	orders, err := memory(text)
	if err != nil {
		return 0, nil, err
	}
	defer orders.Close()
	word, tell, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer tell.Close()
	attr := &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS} // see order.fence
	way.Use(attr)
	files := append([]uintptr{0, out.Fd(), out.Fd()}, sockets...) // stdin is /dev/null
	files = append(files, orders.Fd(), tell.Fd())                 // orderFd, wordFd
	for _, f := range way.Rest {
		files = append(files, f.Fd()) // enterFd
	}
	// ForkExec reaps the child whose exec fails; nobody else does meanwhile, for
	// only the event loop reaps, and it is here.
	pid, err = syscall.ForkExec("/proc/self/exe", []string{launchName, name, strconv.Itoa(len(sockets))}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   o.Env,
		Files: files,
		Sys:   attr,
	})
	if err != nil {
		word.Close()
		return 0, nil, err
	}
	return pid, word, nil
}

// memory is a file in memory that holds text, and is read from its beginning.
func memory(text []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("order", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "order")
	if _, err := f.Write(text); err != nil {
		f.Close()
		return nil, err
	}
	_, err = f.Seek(0, io.SeekStart)
	return f, err
}

// openLog opens the file that a service's output is appended to. It waits for nobody, as
// it would for who reads a pipe.
func openLog(logs *os.Root, name string) (*os.File, error) {
	return logs.OpenFile(name+".log", os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NONBLOCK, 0o640)
}

// hear takes the launched process's word, once: "" when it became the program.
func (u *unit) hear() {
	if u.word == nil {
		return
	}
	text := <-u.word
	u.word = nil
	if text != "" {
		u.fail(errors.New(text))
	}
}

// died notes how the main process ended and says which event that is.
func (u *unit) died(status unix.WaitStatus) event {
	u.hear()
	if time.Since(u.since) >= calm {
		u.pause = 0
	}
	u.pid = 0
	if u.refusal != nil {
		return refused
	}
	u.last = describe(status)
	if u.state == Unhealthy {
		u.last = fmt.Sprintf("unhealthy: %v", u.illness)
	}
	if status.Exited() && status.ExitStatus() == 0 {
		return succeeded
	}
	if u.starved && status.Signal() == unix.SIGKILL {
		u.last += " (out of memory)"
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
