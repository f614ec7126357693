package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Exit statuses that are not the program's.
const (
	noKernel = 3   // of -build: no archive has this kernel
	broken   = 125 // the virtual machine failed
)

func main() {
	// The kernel kills QEMU with the thread that started it (PR_SET_PDEATHSIG),
	// which therefore has to last.
	runtime.LockOSThread()
	if os.Args[0] == guestProgram {
		os.Exit(guest())
	}
	// mke2fs and depmod are in sbin, which an ordinary user's PATH may lack.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
	status, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
	}
	os.Exit(status)
}

// options are what the command line says.
type options struct {
	kernel string
	limit  time.Duration
	report string
	cpus   int
	build  bool
	shell  bool
	system bool // boot systemd
	boots  int
}

func run() (int, error) {
	var o options
	flag.StringVar(&o.kernel, "kernel", "6.1", "kernel `version`: the newest that begins so")
	flag.DurationVar(&o.limit, "time", 0, "time `limit` of the program (default: -test.timeout and half a minute, or 10m)")
	flag.IntVar(&o.cpus, "cpus", 1, "`number` of its processors, which one of the host's emulates in turn")
	flag.StringVar(&o.report, "report", "", "append a line of what it took to this `file`")
	flag.BoolVar(&o.build, "build", false, "make what is not in the cache, and run nothing; exit status 3 if no archive has the kernel")
	flag.BoolVar(&o.shell, "shell", false, "a root shell on this terminal instead of a program")
	flag.BoolVar(&o.system, "systemd", false, "boot systemd, and run the program as a unit of it")
	flag.IntVar(&o.boots, "boots", 1, "with -systemd: boot so many `times` and run the program each time, on the same disk; VSRUN_VM_BOOT counts")
	flag.Parse()
	if !o.build && !o.shell && flag.NArg() == 0 || o.cpus < 1 || o.boots < 1 || o.boots > 1 && !o.system {
		flag.Usage()
		return 2, nil
	}
	self, err := os.Executable()
	if err != nil {
		return broken, err
	}
	root := filepath.Dir(filepath.Dir(self))
	m, err := newMachine(root, o.kernel)
	switch {
	case o.build && errors.Is(err, errNoKernel):
		return noKernel, err
	case err != nil:
		return broken, err
	case o.build:
		return 0, nil
	}
	return m.play(job{Args: flag.Args(), Shell: o.shell}, o)
}

// play runs the job and reports what became of it.
func (m machine) play(j job, o options) (int, error) {
	if o.limit == 0 {
		o.limit = timeLimit(j.Args)
	}
	if o.boots > 1 {
		done, err := m.keepImage()
		if err != nil {
			return broken, err
		}
		defer done()
	}
	status := 0
	for boot := 1; boot <= o.boots && status == 0; boot++ {
		if o.system {
			j.Boot = boot
		}
		disk, err := pack(j)
		if err != nil {
			return broken, err
		}
		begun := time.Now()
		r := m.runTwice(disk, o)
		if err := r.report(o, time.Since(begun)); err != nil {
			return broken, err
		}
		status = r.status
	}
	return status, nil
}

// timeLimit leaves a test binary the time to end itself with a report.
func timeLimit(args []string) time.Duration {
	const boot = 30 * time.Second
	for _, arg := range args {
		if value, ok := strings.CutPrefix(arg, "-test.timeout="); ok {
			if d, err := time.ParseDuration(value); err == nil && d > 0 {
				return d + boot
			}
		}
	}
	return 10 * time.Minute
}

// report adds a line to the file: kernel, directory, seconds to the program's
// start, in all, and of processor time, exit status.
func (r result) report(o options, took time.Duration) error {
	if o.report == "" {
		return nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(o.report, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "%s\t%s\t%.1f\t%.1f\t%.1f\t%d\n",
		o.kernel, dir, r.boot.Seconds(), took.Seconds(), r.cpu.Seconds(), r.status)
	return err
}
