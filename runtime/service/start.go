package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/nsutil/cgroup"
	"golang.org/x/sys/unix"
)

// Start starts the init of a virtual server in its network namespace, and
// returns when it can be talked to; it has no services yet. program is the path
// of vs-init. The directory of socket must exist. An init that listens there
// already is ErrTaken.
//
// Start may be interrupted at any instant, by SIGKILL too. Until the whole
// configuration is in its pipe, an init that has been made reads the pipe's end
// and exits; until it has told that it listens, it finds nobody to tell and
// exits. From then on Dial finds it. Of two that start at once the later one is
// refused, under the lock of the socket's directory.
//
// volumes are cfg.Volumes, each mounted and without a place (fsmount(2)).
func Start(ctx context.Context, ns *nsutil.Namespace, program, socket string, cfg Config, volumes ...*os.File) (*Client, error) {
	if err := errors.Join(joined(cfg.Validate()), checkSocketPath(socket)); err != nil {
		return nil, err
	}
	b, err := newBoot(cfg, socket)
	if err != nil {
		return nil, err
	}
	p, answer, err := launchInit(ns, program, b, volumes)
	if errors.Is(err, cgroup.ErrBusy) {
		if c, listens := Dial(socket); listens == nil {
			c.Close()
			return nil, ErrTaken
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", program, err)
	}
	defer answer.Close()
	c, err := meet(ctx, p, answer, socket)
	if err != nil {
		p.Kill()
		p.Wait()
		return nil, err
	}
	// As long as this process lives it is the parent, and the one to reap.
	go p.Wait()
	return c, nil
}

// meet waits for the init's word that it is ready and connects to it.
func meet(ctx context.Context, p *os.Process, answer *os.File, socket string) (*Client, error) {
	stop := context.AfterFunc(ctx, func() { answer.Close() })
	defer stop()
	text, err := io.ReadAll(answer)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, err
	case len(text) == 0:
		return nil, errors.New("the init ended before it was ready: see its log")
	case strings.HasSuffix(string(text), ErrTaken.Error()):
		return nil, fmt.Errorf("cannot listen on %s: %w", socket, ErrTaken)
	case string(text) != ready:
		return nil, errors.New(string(text))
	}
	c, err := Dial(socket)
	if err != nil {
		return nil, err
	}
	if c.Pid() != p.Pid {
		c.Close()
		return nil, fmt.Errorf("cannot listen on %s: %w", socket, ErrTaken)
	}
	return c, nil
}

// launchInit starts the program with the configuration on its way; the answer
// can be read from the file.
func launchInit(ns *nsutil.Namespace, program string, b boot, volumes []*os.File) (*os.Process, *os.File, error) {
	for _, dir := range []string{b.Config.LogDir, filepath.Dir(b.Config.PrivateDir)} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return nil, nil, err
		}
	}
	logs, err := os.OpenRoot(b.Config.LogDir)
	if err != nil {
		return nil, nil, err
	}
	defer logs.Close()
	log, err := openLog(logs, initName)
	if err != nil { // the disk is full, or read-only: services do without, and so does this
		log, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	configR, configW, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer configR.Close()
	defer configW.Close()
	group, err := cgroup.Find().Make(cgroup.Name(b.Config.ID))
	if err != nil {
		return nil, nil, err
	}
	defer group.Close()
	b.Groups = len(group.Files())
	text, err := json.Marshal(b)
	if err != nil {
		return nil, nil, err
	}
	answerR, answerW, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer answerW.Close()
	p, err := clone(ns, program, b.Config.ID, group, []*os.File{2: log, configFd: configR, answerFd: answerW}, volumes)
	if err != nil {
		answerR.Close()
		return nil, nil, err
	}
	// An error means that the init has ended, which its answer tells.
	configW.Write(text)
	return p, answerR, nil
}

// clone makes the init's process, in namespaces of its own except for the
// network's, which it finds itself in.
func clone(ns *nsutil.Namespace, program string, id int, group *cgroup.Group, files, volumes []*os.File) (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	files[0], files[1] = null, null
	attr := &os.ProcAttr{
		Dir: "/",
		// Few and short-lived objects: one processor's caches and an early
		// garbage collection keep the init small.
		Env: []string{"PATH=" + searchPath, "GOMAXPROCS=1", "GOGC=10", "GODEBUG=disablethp=1"},
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
			Setsid:     true,
		},
	}
	if group != nil {
		way, err := group.Entry()
		if err != nil {
			return nil, err
		}
		defer way.Close()
		way.Use(attr.Sys)
		attr.Sys.Unshareflags = unix.CLONE_NEWCGROUP // the root is where the process is by then
	}
	attr.Files = slices.Concat(files, volumes, group.Files()) // from volumeFd on
	var p *os.Process
	err = ns.Do(func() (err error) {
		p, err = os.StartProcess(program, []string{"vs-init", fmt.Sprintf("vs%d", id)}, attr)
		return err
	})
	if err != nil || group == nil {
		return p, err
	}
	if err := settle(group, p.Pid); err != nil {
		p.Kill()
		p.Wait()
		return nil, err
	}
	return p, nil
}

// settle gives the init a cgroup of its own below the virtual server's, which can
// hand down controllers when it is empty.
func settle(group *cgroup.Group, pid int) error {
	own, err := group.Child(initGroup)
	if err != nil {
		return err
	}
	defer own.Close()
	if err := own.Move(pid); err != nil {
		return err
	}
	group.HandDown()
	return nil
}
