package units

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/runtime/service"
)

// searchPath is where systemd-run looks for a service's program.
const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// run runs one of systemd's commands; an error is the first line of what it says.
func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "/usr/bin/"+name, args...)
	cmd.Env = append(os.Environ(), searchPath)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		said, _, _ := strings.Cut(errs.String(), "\n")
		return nil, errors.New(cmp.Or(said, name+": "+err.Error()))
	}
	return out.Bytes(), nil
}

// shown are the properties that are looked at.
const shown = "--property=Id,Description,ActiveState,SubState,Result,MainPID,NRestarts,ExecMainCode,ExecMainStatus," +
	"StateChangeTimestamp,MemoryCurrent,TasksCurrent,CPUUsageNSec"

// A unit is one that systemd has loaded.
type unit map[string]string

// show looks at the units of those names.
func show(ctx context.Context, names []string) ([]unit, error) {
	if len(names) == 0 {
		return nil, nil
	}
	out, err := run(ctx, "systemctl", append([]string{"show", "--timestamp=unix", shown}, names...)...)
	if err != nil {
		return nil, fmt.Errorf("cannot look at units: %w", err)
	}
	return parse(string(out)), nil
}

// parse reads what systemctl show prints: lines of properties, units parted by an empty
// one.
func parse(text string) (list []unit) {
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		u := unit{}
		for line := range strings.SplitSeq(block, "\n") {
			name, value, _ := strings.Cut(line, "=")
			u[name] = value
		}
		list = append(list, u)
	}
	return list
}

// state is the unit's in service's words.
func (u unit) state() service.State {
	switch u["ActiveState"] + "/" + u["SubState"] {
	case "active/exited":
		return service.Finished
	case "activating/auto-restart":
		return service.Backoff
	}
	switch u["ActiveState"] {
	case "active", "reloading":
		return service.Running
	case "activating":
		return service.Starting
	case "deactivating":
		return service.Stopping
	case "failed":
		return service.Failed
	}
	return service.Stopped
}

// killed reports whether the unit, which was stopped, did not end by itself.
func (u unit) killed() bool {
	return u["Result"] == "timeout" || u["Result"] == "signal" && u["ExecMainStatus"] == "9"
}

func (u unit) last() string {
	const exited = "1" // CLD_EXITED
	switch {
	case u["Result"] == "success":
		return ""
	case u["Result"] == "exit-code" && u["ExecMainCode"] == exited:
		return "exit status " + u["ExecMainStatus"]
	case u["Result"] == "signal":
		return "signal " + u["ExecMainStatus"]
	}
	return u["Result"]
}

func (u unit) status(name string) service.Status {
	s := service.Status{Name: name, State: u.state(), Last: u.last()}
	s.Pid, _ = strconv.Atoi(u["MainPID"])
	s.Restarts, _ = strconv.Atoi(u["NRestarts"])
	if since, err := strconv.ParseInt(strings.TrimPrefix(u["StateChangeTimestamp"], "@"), 10, 64); err == nil {
		s.Since = time.Unix(since, 0)
	}
	s.Use = cgroup.Use{Memory: u.figure("MemoryCurrent", 1), Tasks: u.figure("TasksCurrent", 1), CPU: u.figure("CPUUsageNSec", 1000)}
	return s
}

// figure is a number that systemd counts; it has words for one that it does not.
func (u unit) figure(name string, unit int64) *int64 {
	n, err := strconv.ParseInt(u[name], 10, 64)
	if err != nil {
		return nil
	}
	n /= unit
	return &n
}
