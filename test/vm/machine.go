package main

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const emulator = "qemu-system-x86_64"

// A machine is what a virtual machine is started from: directories of the cache.
type machine struct {
	kernel, image string
	keep          bool // what is written to the image
}

func newMachine(root, kernel string) (machine, error) {
	var m machine
	if _, err := exec.LookPath(emulator); err != nil {
		return m, fmt.Errorf("%w\nhint: test/install vm", err)
	}
	c, err := openCache(filepath.Join(root, ".cache", "vm"))
	if err != nil {
		return m, err
	}
	if m.kernel, err = c.kernel(kernel); err != nil {
		return m, err
	}
	m.image, err = c.image(root)
	return m, err
}

// keepImage has what is written to the image there at the next start, in a copy of
// it until done is called.
func (m *machine) keepImage() (done func(), err error) {
	dir, err := os.MkdirTemp("", "vm-")
	if err != nil {
		return nil, err
	}
	done = func() { os.RemoveAll(dir) }
	if _, err := commandOutput("", "cp", "--sparse=always", filepath.Join(m.image, "image"), dir); err != nil {
		done()
		return nil, err
	}
	m.image, m.keep = dir, true
	return done, nil
}

// A result is what became of a virtual machine and of the program in it.
type result struct {
	status  int           // the program's, or broken
	boot    time.Duration // until the program started; 0 if it never did
	cpu     time.Duration // that the emulator took
	console []byte
	failure error // why the status is broken
}

// bootLimit is for a machine that is very busy.
const bootLimit = 90 * time.Second

// runTwice runs the job, and once more if the virtual machine failed before the
// program was started: nothing can have been tested then.
func (m machine) runTwice(disk *os.File, o options) result {
	r := m.run(disk, o)
	if r.failure != nil && r.boot == 0 {
		r.complain()
		fmt.Fprintln(os.Stderr, "vm: TRYING ONCE MORE")
		r = m.run(disk, o)
	}
	r.complain()
	return r
}

func (m machine) run(disk *os.File, o options) result {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	q, err := m.start(ctx, disk, o)
	if err != nil {
		return result{status: broken, failure: err}
	}
	r := result{status: broken, failure: errors.New("it ended before the program did")}
	r.follow(q.messages, o.limit, cancel)
	if m.keep && r.failure == nil {
		if r.failure = awaitOff(q.messages); r.failure != nil {
			r.status = broken
		}
	}
	if cause := context.Cause(ctx); r.failure != nil && cause != nil {
		r.failure = cause
	}
	cancel(nil)
	q.messages.Close()
	q.Wait()
	r.cpu = q.ProcessState.UserTime() + q.ProcessState.SystemTime()
	r.console = <-q.console
	return r
}

// follow does what the messages say until the program has ended or QEMU has. It
// has QEMU ended when the boot or the program takes too long.
func (r *result) follow(messages io.Reader, limit time.Duration, end context.CancelCauseFunc) {
	begun := time.Now()
	timer := time.AfterFunc(bootLimit, func() { end(fmt.Errorf("it did not start within %s", bootLimit)) })
	defer func() { timer.Stop() }()
	for in := gob.NewDecoder(messages); ; {
		var msg message
		if in.Decode(&msg) != nil {
			return
		}
		switch msg.Kind {
		case started:
			r.boot = time.Since(begun)
			timer.Stop()
			timer = time.AfterFunc(limit, func() { end(fmt.Errorf("the program did not end within %s", limit)) })
		case output:
			os.Stdout.Write(msg.Data) // where nobody reads it the status still counts
		case file:
			if err := os.WriteFile(msg.File, msg.Data, 0o644); err != nil {
				fmt.Fprintln(os.Stderr, "vm:", err)
			}
		case ended:
			r.status, r.failure = msg.Status, nil
			return
		}
	}
}

// awaitOff waits until the guest has switched itself off, and its disk is whole.
func awaitOff(messages *os.File) error {
	messages.SetReadDeadline(time.Now().Add(bootLimit))
	if _, err := io.Copy(io.Discard, messages); err != nil {
		return fmt.Errorf("it did not switch off within %s", bootLimit)
	}
	return nil
}

// A qemu is a running virtual machine.
type qemu struct {
	*exec.Cmd
	messages *os.File
	console  <-chan []byte // all of it, at the end
}

// start starts QEMU. The guest's output comes through descriptors that QEMU is
// given: a file of that kind never holds the guest up for somebody to connect.
func (m machine) start(ctx context.Context, disk *os.File, o options) (*qemu, error) {
	messages, messagesIn, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer messagesIn.Close()
	console, consoleIn, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer consoleIn.Close()

	cmd := exec.CommandContext(ctx, emulator, m.arguments(o)...)
	cmd.ExtraFiles = []*os.File{messagesIn, consoleIn, disk}
	cmd.Stderr = consoleIn
	if o.shell {
		cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// It gives the terminal back before it ends.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	said := make(chan []byte, 1)
	go func() {
		text, _ := io.ReadAll(console)
		said <- text
	}()
	return &qemu{cmd, messages, said}, nil
}

// arguments are those of QEMU. Its software emulation is used even where there
// is KVM, so that it is the same everywhere; with more than one processor some
// kernels crash in it. Without erms and fsrm the kernel, libc and Go do not copy
// and clear by `rep movsb` and `rep stosb`, which it emulates byte by byte. With
// norandmaps a program is at the same address each time, and what QEMU has
// translated of it counts again: it starts four times as fast.
func (m machine) arguments(o options) []string {
	console := []string{"-add-fd", "fd=4,set=4", "-chardev", "file,id=console,path=/dev/fdset/4,append=on"}
	if o.shell {
		console = []string{"-chardev", "stdio,id=console,signal=off"}
	}
	words := "console=ttyS0 loglevel=5 panic=-1 oops=panic no_timer_check tsc=reliable random.trust_cpu=on mitigations=off norandmaps"
	if o.system {
		// Nothing makes /dev/ttyS0 known to systemd, which would wait for it.
		words += " vm.systemd systemd.getty_auto=0 systemd.show_status=error"
	}
	snapshot := "on"
	if m.keep {
		snapshot = "off"
	}
	return append(console,
		"-accel", "tcg,thread=single", "-cpu", "max,-erms,-fsrm", "-smp", strconv.Itoa(o.cpus), "-m", "1024",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", filepath.Join(m.kernel, "vmlinuz"), "-initrd", filepath.Join(m.kernel, "initrd"),
		"-append", words,
		"-serial", "chardev:console",
		"-add-fd", "fd=3,set=3", "-chardev", "file,id=messages,path=/dev/fdset/3,append=on",
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=messages",
		"-add-fd", "fd=5,set=5",
		"-drive", "if=virtio,format=raw,snapshot="+snapshot+",cache=unsafe,file="+filepath.Join(m.image, "image"),
		"-drive", "if=virtio,format=raw,readonly=on,file="+filepath.Join(m.kernel, "modules"),
		"-drive", "if=virtio,format=raw,readonly=on,file=/dev/fdset/5",
	)
}

// complain shows what a person has to know of a failure, and what the kernel
// complained of itself.
func (r result) complain() {
	if r.failure != nil {
		fmt.Fprintf(os.Stderr, "vm: the virtual machine failed: %v; its console ends so:\n%s\n", r.failure, tail(r.console, 60))
		return
	}
	if said := complaint(r.console); said != nil {
		fmt.Fprintf(os.Stderr, "vm: the kernel complained:\n%s\n", said)
	}
}

// tail is the last n lines.
func tail(text []byte, n int) []byte {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n):], []byte("\n"))
}
