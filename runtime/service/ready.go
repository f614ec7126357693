package service

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Ready says when a service that has been started counts as running, by one of
// four signs, or by Output and after it TCP or Command.
type Ready struct {
	// TCP is the port that somebody in the virtual server listens on.
	TCP int `json:"tcp,omitempty" yaml:"tcp,omitempty"`
	// Notify is that the service says so itself (sd_notify(3), READY=1).
	Notify bool `json:"notify,omitempty" yaml:"notify,omitempty"`
	// Command ends with status 0. It is run as the service is, again and again,
	// each time for 10 s or a third of Timeout at most.
	Command []string `json:"command,omitempty" yaml:"command,omitempty"`
	// Output is a text in a line that it writes, its first 4 KiB.
	Output string `json:"output,omitempty" yaml:"output,omitempty"`
	// Timeout is how long that may take; 0: 30 s.
	Timeout Duration `json:"timeout,omitempty" yaml:"timeout,omitempty"`
}

// Stop says how a service is asked to end.
type Stop struct {
	Signal  string   `json:"signal,omitempty" yaml:"signal,omitempty"`   // as TERM, which is also what empty means
	Timeout Duration `json:"timeout,omitempty" yaml:"timeout,omitempty"` // until it is killed; 0: 10 s
}

const (
	stopWithin = 10 * time.Second // between a stop signal and SIGKILL
	moment     = 5 * time.Second  // the same, when no time is left and others had to end before
)

// Within is how long it gets to end before it is killed.
func (s Stop) Within() time.Duration { return s.Timeout.or(stopWithin) }

// A Duration is one that is written as 10s or 1m30s.
type Duration time.Duration

// MarshalText writes Go's notation.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads Go's notation: a number and its unit, ms, s, m or h.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no duration such as 10s or 1m30s", text)
	}
	*d = Duration(v)
	return nil
}

// Longest is the most that anybody waits for a service.
const Longest = 10 * time.Minute

func (d Duration) check() error {
	if d < 0 || time.Duration(d) > Longest {
		return fmt.Errorf("%s is out of range: 0 to %s", time.Duration(d), Longest)
	}
	return nil
}

// or is the duration, or standard where it is 0.
func (d Duration) or(standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return time.Duration(d)
}

const (
	startWithin = 30 * time.Second       // until a service is ready
	checkEvery  = 200 * time.Millisecond // between two runs of a command
	lookEvery   = 20 * time.Millisecond  // between two looks for a port
)

// Within is how long the service gets until it is ready.
func (r Ready) Within() time.Duration { return r.Timeout.or(startWithin) }

// immediate reports whether nothing is waited for, looked whether it has to be
// looked for.
func (r Ready) immediate() bool { return !r.looked() && !r.Notify && r.Output == "" }
func (r Ready) looked() bool    { return r.TCP != 0 || len(r.Command) > 0 }

func (r Ready) equal(o Ready) bool {
	return r.TCP == o.TCP && r.Notify == o.Notify && r.Output == o.Output && r.Timeout == o.Timeout &&
		slices.Equal(r.Command, o.Command)
}

func (r Ready) validate(add func(path string, err error)) {
	signs := 0
	for _, given := range []bool{r.TCP != 0, r.Notify, len(r.Command) > 0} {
		if given {
			signs++
		}
	}
	if signs > 1 || r.Notify && r.Output != "" {
		add("ready", errors.New("has several signs: one of tcp, notify, command and output, or output with tcp or command"))
	}
	add("ready.tcp", checkPort(r.TCP))
	add("ready.command", checkCommand(r.Command))
	if len(r.Output) > 256 || strings.Contains(r.Output, "\n") || checkText(r.Output) != nil {
		add("ready.output", errors.New("is more than a part of a line: 256 bytes at most"))
	}
	add("ready.timeout", r.Timeout.check())
}

func checkPort(port int) error {
	if port < 0 || port > 65535 {
		return fmt.Errorf("%d is out of range: 1 to 65535", port)
	}
	return nil
}

// checkCommand refuses one that cannot be run; none at all is fine.
func checkCommand(command []string) error {
	if len(command) > 0 && command[0] == "" || slices.ContainsFunc(command, func(s string) bool { return checkText(s) != nil }) {
		return errors.New("cannot be run")
	}
	return nil
}

func (s Stop) validate(add func(path string, err error)) {
	if s.Signal != "" {
		_, err := signalNamed(s.Signal)
		add("stop.signal", err)
	}
	add("stop.timeout", s.Timeout.check())
}

func (s Stop) signal() unix.Signal {
	sig, err := signalNamed(s.Signal)
	if err != nil {
		return unix.SIGTERM
	}
	return sig
}

// signalNamed is a signal by its name, with or without SIG.
func signalNamed(name string) (unix.Signal, error) {
	if n := unix.SignalNum("SIG" + strings.TrimPrefix(name, "SIG")); n != 0 {
		return n, nil
	}
	return 0, fmt.Errorf("%q is no signal such as TERM", name)
}

// listening reports whether somebody in this network namespace listens on a TCP
// port. It asks the kernel: a connection would be one that the service has to
// deal with.
func listening(port int) bool {
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open("/proc/thread-self/net/" + name)
		if err != nil { // no IPv6
			continue
		}
		found := listensOn(f, port)
		f.Close()
		if found {
			return true
		}
	}
	return false
}

// listensOn reads /proc/net/tcp (proc_net_tcp.rst): the second field is
// address:port, the fourth 0A for a socket that listens.
func listensOn(r io.Reader, port int) bool {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] != "0A" {
			continue
		}
		_, number, _ := strings.Cut(fields[1], ":")
		if n, err := strconv.ParseUint(number, 16, 16); err == nil && int(n) == port {
			return true
		}
	}
	return false
}
