package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil/cgroup"
)

// The descriptors that the starter hands over besides the standard ones.
const (
	configFd = 3 // the configuration is read from it, until its end
	answerFd = 4 // "ready" or the text of an error is written to it
	volumeFd = 5 // the first of the volumes that the configuration names; then comes the virtual server's cgroup
)

const ready = "ready\n"

// InitMain is the whole program of a virtual server's init. It does not return.
func InitMain() {
	if filepath.Base(os.Args[0]) == launchName {
		launchMain()
	}
	// Anywhere else than as the first process of a PID namespace the mounts
	// that it parts and replaces would be somebody's.
	if os.Getpid() != 1 || !isPipe(configFd) || !isPipe(answerFd) {
		fmt.Fprintln(os.Stderr, "vs-init: is started by vsrun, as the first process of a virtual server")
		os.Exit(2)
	}
	if err := runInit(); err != nil {
		log.Print(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func isPipe(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}

func runInit() error {
	config, answer := os.NewFile(configFd, "config"), os.NewFile(answerFd, "answer")
	b, err := readBoot(config)
	if err != nil {
		return err
	}
	config.Close()
	end := volumeFd + len(b.Config.Volumes)
	group := cgroup.Inherit(end, b.Groups)
	if err := closeInherited(end); err != nil {
		return err
	}
	s, err := prepare(b)
	if err == nil {
		s.group = group
		if group.HasV2() {
			err = showCgroup()
		}
	}
	if err == nil {
		err = s.appear(b, answer)
	}
	if err != nil {
		io.WriteString(answer, err.Error())
		return err
	}
	answer.Close()
	log.Printf("ready for virtual server %d", b.Config.ID)
	s.run()
	return nil
}

// appear makes the socket, as the last thing before the directory that it is in
// goes out of sight, and tells the starter.
func (s *supervisor) appear(b boot, answer io.Writer) error {
	dir, err := os.OpenRoot(filepath.Dir(b.Socket))
	if err != nil {
		return err
	}
	defer dir.Close()
	listener, err := listen(b.Socket)
	if err != nil {
		return err
	}
	err = errors.Join(s.mounts.settle(b.Config), listenForNotes(s.notes))
	if err == nil {
		// A starter that died meanwhile may be followed by one that has looked
		// for an init, found none that listened, and goes by that.
		if _, err = io.WriteString(answer, ready); err != nil {
			err = fmt.Errorf("the starter ended before this init was ready: %w", err)
		}
	}
	if err != nil {
		dir.Remove(filepath.Base(b.Socket))
		return err
	}
	return s.serve(listener)
}

// closeInherited lets go of what the starter was started with, such as the lock
// or the terminal of whoever called it: an init holds it for months. What
// survived the exec and is not handed over on purpose lacks close-on-exec,
// which everything that Go opens has. Descriptors below first are handed over.
func closeInherited(first int) error {
	for fd := configFd; fd < first; fd++ {
		unix.CloseOnExec(fd)
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < first {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	return nil
}

// readBoot reads the configuration. A starter that dies before it has written
// all of it leaves an incomplete text, and no virtual server.
func readBoot(r io.Reader) (boot, error) {
	var b boot
	text, err := io.ReadAll(r)
	if err != nil {
		return b, fmt.Errorf("cannot read the configuration: %w", err)
	}
	if err := json.Unmarshal(text, &b); err != nil {
		return b, fmt.Errorf("the starter ended before the configuration was complete: %w", err)
	}
	return b, nil
}

// prepare makes the process the virtual server's init, up to its socket.
func prepare(b boot) (*supervisor, error) {
	c := b.Config
	unix.Umask(0o022)
	setOOMScore(initOOMScore) // refused to an ordinary user
	if err := takeNoSignals(); err != nil {
		return nil, err
	}
	if err := hold(c.LogDir); err != nil {
		log.Printf("%v: without its socket, this init cannot be found", err)
	}
	// Opened before anything can cover them.
	logs, err := os.OpenRoot(c.LogDir)
	if err != nil {
		return nil, err
	}
	keep, err := os.OpenRoot(filepath.Dir(c.PrivateDir))
	if err != nil {
		return nil, err
	}
	s := &supervisor{
		config: c, host: b.Host, env: environment(c.ID), logs: logs, journald: openJournald(c),
		mounts: &mounts{keep: keep, dir: filepath.Base(c.PrivateDir)},
		calls:  make(chan *call), ticks: make(chan tick), shifts: make(chan struct{}, 1),
		heard: make(chan tick), looks: make(chan tick), signs: make(chan tick), overdue: make(chan *task), notes: make(chan note),
	}
	log.SetFlags(0)
	log.SetOutput(newJournal(logs, initName, s.journald))
	s.catchSignals()
	if err := partMounts(c.NetnsDir); err != nil {
		return nil, err
	}
	if err := unix.Sethostname([]byte(c.hostname())); err != nil {
		return nil, fmt.Errorf("cannot set the host name %s: %w", c.hostname(), err)
	}
	if err := s.mounts.furnish(c); err != nil {
		return nil, err
	}
	return s, watchMounts(s.shifts)
}

// nobodys is a user's number that nobody has (https://systemd.io/UIDS-GIDS).
const nobodys = 2_000_000_118

// takeNoSignals keeps services that run as root from ending this init by a signal: who
// sends one without CAP_KILL must have its real or its saved user (kill(2)). Its
// effective one, with all powers, is root's as before. A user namespace may not know
// another user.
func takeNoSignals() error {
	err := unix.Setresuid(nobodys, -1, nobodys)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("cannot part from the services' user: %w", err)
	}
	return nil
}

// catchSignals has all signals caught: PID 1 that dies takes everything along,
// and a caught signal, unlike an ignored one, is back at its default in a
// program that is started.
func (s *supervisor) catchSignals() {
	s.exits = make(chan os.Signal, 1)
	s.terms = make(chan os.Signal, 1)
	signal.Notify(make(chan os.Signal, 1)) // nobody receives: dropped
	signal.Notify(s.exits, unix.SIGCHLD)
	signal.Notify(s.terms, unix.SIGTERM, unix.SIGINT)
}

// serve answers whoever connects.
func (s *supervisor) serve(f *os.File) error {
	listener, err := f.SyscallConn()
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := accept(listener)
			if err != nil { // out of descriptors or memory, for now
				log.Printf("cannot take a connection: %v", err)
				<-time.After(time.Second)
				continue
			}
			go s.welcome(conn)
		}
	}()
	return nil
}

// welcome serves a connection. Whoever may not command this init hears so in
// answer to each request: a connection that is closed at once tells nothing.
func (s *supervisor) welcome(conn *os.File) {
	ask := s.ask
	if err := checkPeer(conn, s.host); err != nil {
		ask = func(r request) *call {
			c := newCall(r)
			c.answer <- response{Error: err.Error()}
			return c
		}
	}
	serve(conn, ask)
}

// watchMounts wakes whoever listens to shifts each time the mounts of this
// namespace change (proc_pid_mountinfo(5)). The file is opened past package os:
// the runtime would poll it too, and a change is told to one poll only.
func watchMounts(shifts chan<- struct{}) error {
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot watch the mounts: %w", err)
	}
	go func() {
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, -1)
			switch {
			case err == nil:
				wake(shifts)
			case !errors.Is(err, unix.EINTR):
				log.Printf("cannot watch the mounts: %v", err)
				return
			}
		}
	}()
	return nil
}
