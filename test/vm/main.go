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

// broken is the exit status of a virtual machine that failed.
const broken = 125

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
		status = broken
	}
	if errors.Is(err, errNoKernel) {
		status = 3
	}
	os.Exit(status)
}

// options are what the command line says.
type options struct {
	kernel string
	limit  time.Duration
	report string
	build  bool
	shell  bool
}

func run() (int, error) {
	var o options
	flag.StringVar(&o.kernel, "kernel", "6.1", "kernel `version`: the newest that begins so")
	flag.DurationVar(&o.limit, "time", 0, "time `limit` of the program (default: -test.timeout and half a minute, or 10m)")
	flag.StringVar(&o.report, "report", "", "append a line of what it took to this `file`")
	flag.BoolVar(&o.build, "build", false, "make what is not in the cache, and run nothing")
	flag.BoolVar(&o.shell, "shell", false, "a root shell on this terminal instead of a program")
	flag.Parse()
	if !o.build && !o.shell && flag.NArg() == 0 {
		flag.Usage()
		return 2, nil
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	root := filepath.Dir(filepath.Dir(self))
	m, err := newMachine(root, o.kernel)
	if err != nil || o.build {
		return 0, err
	}
	j := job{Args: flag.Args(), Shell: o.shell}
	if o.limit == 0 {
		o.limit = timeLimit(j.Args)
	}
	disk, err := pack(j)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	r := m.runTwice(disk, o)
	return r.status, r.report(o, j, time.Since(begun))
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

// report adds a line to the file: kernel, program, seconds to its start, in all
// and of processor time, exit status.
func (r result) report(o options, j job, took time.Duration) error {
	if o.report == "" {
		return nil
	}
	f, err := os.OpenFile(o.report, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "%s\t%s\t%.1f\t%.1f\t%.1f\t%d\n",
		o.kernel, j.name(), r.boot.Seconds(), took.Seconds(), r.cpu.Seconds(), r.status)
	return err
}
