package main

import (
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// guest is this program inside the virtual machine, as the shell that is PID 1
// there starts it. What it prints goes to the console.
func guest() int {
	port, err := openPort()
	if err != nil {
		fmt.Println("vm: cannot speak to the outside:", err)
		return broken
	}
	g := agent{gob.NewEncoder(port)}
	text, err := os.ReadFile(jobFile)
	if err != nil {
		fmt.Println("vm:", err)
		return broken
	}
	var j job
	if err := json.Unmarshal(text, &j); err != nil {
		fmt.Println("vm:", err)
		return broken
	}
	g.run(j)
	return 0
}

// openPort opens the only serial port of the virtio kind, for writes that wait:
// os.Open would want to be told when it is ready.
func openPort() (*os.File, error) {
	ports, _ := filepath.Glob("/dev/vport*")
	if len(ports) != 1 {
		return nil, fmt.Errorf("%d ports", len(ports))
	}
	fd, err := syscall.Open(ports[0], syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	return os.NewFile(uintptr(fd), ports[0]), err
}

// An agent tells the outside what becomes of the program.
type agent struct{ *gob.Encoder }

// Write passes on the program's output.
func (g agent) Write(p []byte) (int, error) {
	return len(p), g.Encode(message{Kind: output, Data: p})
}

func (g agent) run(j job) {
	os.Clearenv()
	for _, v := range j.Env {
		name, value, _ := strings.Cut(v, "=")
		os.Setenv(name, value)
	}
	for _, dir := range []string{guestDir, valueOf(j.Args, "-test.gocoverdir")} {
		os.MkdirAll(dir, 0o755)
	}
	os.Chdir(guestDir)
	g.Encode(message{Kind: started})
	status := g.status(g.command(j).Run())
	if name := valueOf(j.Args, "-test.coverprofile"); name != "" {
		if text, err := os.ReadFile(name); err == nil {
			g.Encode(message{Kind: file, File: name, Data: text})
		}
	}
	g.Encode(message{Kind: ended, Status: status})
}

func (g agent) command(j job) *exec.Cmd {
	if j.Shell {
		tty, err := os.OpenFile("/dev/ttyS0", os.O_RDWR|syscall.O_NOCTTY, 0)
		if err != nil {
			fmt.Println("vm:", err)
		}
		cmd := exec.Command("bash", "-i")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		return cmd
	}
	cmd := exec.Command(j.Args[0], j.Args[1:]...)
	cmd.Stdout, cmd.Stderr = g, g
	cmd.WaitDelay = 10 * time.Second // for what it leaves behind with its output open
	return cmd
}

// status is what a shell would call the outcome of a command.
func (g agent) status(err error) int {
	exit := (*exec.ExitError)(nil)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if s := exit.Sys().(syscall.WaitStatus); s.Signaled() {
			return 128 + int(s.Signal())
		}
		return exit.ExitCode()
	case errors.Is(err, exec.ErrWaitDelay):
		fmt.Fprintln(g, "vm: the program ended, and left processes that hold its output")
		return 1
	}
	fmt.Fprintln(g, "vm:", err)
	return 127
}

// valueOf is the value of a flag, written flag=value, or "".
func valueOf(args []string, flag string) string {
	for _, arg := range args {
		if name, value, ok := strings.Cut(arg, "="); ok && name == flag {
			return value
		}
	}
	return ""
}
