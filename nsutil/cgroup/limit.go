package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits are what the processes of a cgroup may use together. Zero is no limit.
type Limits struct {
	Memory int64 // bytes
	CPU    int   // percent of one processor
	Tasks  int   // processes and threads
	IO     []IO
}

// IO is what may be read and written, a second, of a block device.
type IO struct {
	Device                                   string // major:minor, of a whole disk
	ReadBytes, WriteBytes, ReadOps, WriteOps int64
}

// cpuPeriod is how often processor time is dealt out, in microseconds.
const cpuPeriod = 100_000

// A setting is one line for one of the kernel's files.
type setting struct{ file, value string }

// A knob is what a limit is set by: the first hierarchy that has a file of one
// version gets that version's settings.
type knob struct {
	controller string
	unlimited  bool
	v2, v1     []setting
}

func (l Limits) knobs() []knob {
	// Without a limit v2 wants the word, v1 a number.
	number := func(n int64, none string) string {
		if n == 0 {
			return none
		}
		return strconv.FormatInt(n, 10)
	}
	quota := int64(l.CPU) * cpuPeriod / 100
	return []knob{
		{"memory", l.Memory == 0,
			[]setting{{"memory.max", number(l.Memory, "max")}},
			[]setting{{"memory.limit_in_bytes", number(l.Memory, "-1")}}},
		{"cpu", l.CPU == 0,
			[]setting{{"cpu.max", number(quota, "max") + " " + strconv.Itoa(cpuPeriod)}},
			[]setting{{"cpu.cfs_period_us", strconv.Itoa(cpuPeriod)}, {"cpu.cfs_quota_us", number(quota, "-1")}}},
		{"pids", l.Tasks == 0,
			[]setting{{"pids.max", number(int64(l.Tasks), "max")}}, nil},
	}
}

// Limit sets what may be used. No limit is one, too: it may have been another. The
// error names the controller that the host lacks, or has refused.
func (g *Group) Limit(l Limits) error {
	knobs := l.knobs()
	for _, io := range append(g.limited(l.IO), l.IO...) {
		knobs = append(knobs, io.knob())
	}
	for _, k := range knobs {
		if err := g.turn(k); err != nil {
			return fmt.Errorf("cannot limit %s: %w", k.controller, err)
		}
	}
	return nil
}

func (g *Group) turn(k knob) error {
	if g == nil {
		if k.unlimited {
			return nil
		}
		return errors.New("this host has no cgroups that can be written")
	}
	for _, settings := range [][]setting{k.v2, k.v1} {
		missing := true
		for _, s := range settings {
			err := g.write(s.file, s.value)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return explain(err)
			}
			missing = missing && err != nil
		}
		if !missing {
			return nil
		}
	}
	if k.unlimited {
		return nil
	}
	return fmt.Errorf("this host's cgroups have no controller for it: %w", fs.ErrNotExist)
}

// explain says why v1 refuses what v2 would take.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: in cgroups v1 no part may have more than the whole", err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: more is in use", err)
	}
	return err
}

// The files of v1 that limit a block device, in the order of IO's fields.
var throttles = []string{
	"blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device",
	"blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device",
}

// The words of v2 for the same.
var rates = []string{"rbps=", "wbps=", "riops=", "wiops="}

// Both is what keeps both limits of a device.
func (io IO) Both(o IO) IO {
	for k := range rates {
		if mine, other := io.rate(k), *o.rate(k); *mine == 0 || other != 0 && other < *mine {
			*mine = other
		}
	}
	return io
}

func (io IO) knob() knob {
	k := knob{controller: "io", unlimited: io == IO{Device: io.Device}}
	var words []string
	for i := range rates {
		n := *io.rate(i)
		text := strconv.FormatInt(n, 10) // in v1 0 is no limit
		k.v1 = append(k.v1, setting{throttles[i], io.Device + " " + text})
		if n == 0 {
			text = "max"
		}
		words = append(words, rates[i]+text)
	}
	k.v2 = []setting{{"io.max", io.Device + " " + strings.Join(words, " ")}}
	return k
}

// limited are the devices that have a limit now and are not to have one.
func (g *Group) limited(wanted []IO) (free []IO) {
	had := map[string]bool{}
	for _, io := range wanted {
		had[io.Device] = true
	}
	for _, file := range append([]string{"io.max"}, throttles...) {
		for _, d := range g.in() {
			text, _ := read(d, file)
			for line := range strings.Lines(string(text)) {
				device, _, _ := strings.Cut(line, " ")
				if !had[device] {
					had[device] = true
					free = append(free, IO{Device: device})
				}
			}
		}
	}
	return free
}

// Device is the block device that a path is on, or is, as IO has it: the whole disk
// where that is a partition of one.
func Device(path string) (string, error) {
	major, minor, err := deviceOf(path)
	if err != nil {
		return "", err
	}
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", major, minor)
	if _, err := os.Stat(dir); major == 0 || err != nil {
		return "", fmt.Errorf("%s is on no block device", path)
	}
	if _, err := os.Stat(dir + "/partition"); err == nil {
		text, err := os.ReadFile(dir + "/../dev") // the kernel's, of a symlink's target
		return strings.TrimSpace(string(text)), err
	}
	return fmt.Sprintf("%d:%d", major, minor), nil
}
