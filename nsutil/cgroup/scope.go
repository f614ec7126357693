package cgroup

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Where systemd manages a hierarchy, nobody else may make cgroups in it but below what
// it has given away (systemd.io/CGROUP_DELEGATION). There a virtual server has a scope,
// a unit of processes that systemd has not started itself:
// vsrun.slice/vsrun-vs8.scope/vs8. systemd removes the scope when it is empty.
const (
	slice = "vsrun.slice"
	hold  = "hold" // beside vs8: what keeps a scope that is not used yet
)

// scopeWithin is how long systemd gets to make one.
const scopeWithin = 30 * time.Second

func scopeOf(name string) string { return "vsrun-" + name + ".scope" }

// systemd tells whether it manages the hierarchy: it has booted this system
// (sd_booted(3)), and its own process has a cgroup there. In those of v1 it minds its own
// units alone, and may have nothing but a controller.
func systemd(hierarchy string) bool {
	return exists("/run/systemd/system") && exists(filepath.Join(hierarchy, "init.scope")) &&
		isOn(hierarchy, unix.CGROUP2_SUPER_MAGIC)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// place is the directory of a virtual server in a hierarchy.
func place(hierarchy, name string) string {
	if systemd(hierarchy) {
		return filepath.Join(hierarchy, slice, scopeOf(name), name)
	}
	return filepath.Join(hierarchy, top, name)
}

// A holder is a process that is in a scope for as long as nobody else is.
type holder struct {
	process *os.Process
	end     *os.File // it ends when this is closed
	dir     string   // its cgroup
}

// holdScope makes the scope of a virtual server in the hierarchy. It is ordered before
// vsrun-shutdown.service, so that systemd does not stop it before that has.
func holdScope(hierarchy, name string) (*holder, error) {
	in, end, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	said, out, err := os.Pipe()
	if err != nil {
		end.Close()
		return nil, err
	}
	defer said.Close()
	// cat answers once systemd-run has made the scope and has become it.
	argv := []string{"systemd-run", "--scope", "--quiet", "--collect", "--unit=" + scopeOf(name), "--slice=" + slice,
		"--description=Virtual server " + name, "--property=Delegate=yes", "--property=Before=vsrun-shutdown.service", "/bin/cat"}
	p, err := os.StartProcess("/usr/bin/systemd-run", argv, &os.ProcAttr{Files: []*os.File{in, out, out}})
	out.Close()
	if err != nil {
		end.Close()
		return nil, fmt.Errorf("cannot ask systemd for a scope: %w", err)
	}
	scope := filepath.Join(hierarchy, slice, scopeOf(name))
	h := &holder{p, end, filepath.Join(scope, hold)}
	io.WriteString(end, "\n")
	said.SetReadDeadline(time.Now().Add(scopeWithin))
	answer := make([]byte, 4096)
	n, _ := said.Read(answer)
	if answer[0] != '\n' {
		p.Kill() // it may still be waiting for systemd
		h.Close()
		why := strings.TrimSpace(string(answer[:n]))
		return nil, fmt.Errorf("cannot make the scope %s: %s", scopeOf(name), cmp.Or(why, "systemd does not answer"))
	}
	// A cgroup that hands down controllers may not have processes itself.
	err = os.Mkdir(h.dir, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(h.dir, "cgroup.procs"), []byte(strconv.Itoa(p.Pid)), 0)
	}
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("cannot use the scope %s: %w", scopeOf(name), err)
	}
	handDown(scope)
	return h, nil
}

// Close ends the process.
func (h *holder) Close() {
	if h == nil {
		return
	}
	h.end.Close()
	h.process.Wait()
	unix.Rmdir(h.dir)
}

// endScope has systemd remove the scope, which it would do by itself a little later.
func endScope(hierarchy, name string) error {
	if !exists(filepath.Join(hierarchy, slice, scopeOf(name))) {
		return nil
	}
	p, err := os.StartProcess("/usr/bin/systemctl", []string{"systemctl", "stop", "--quiet", scopeOf(name)}, &os.ProcAttr{})
	if err != nil {
		return fmt.Errorf("cannot ask systemd to remove a scope: %w", err)
	}
	end, err := p.Wait()
	const notLoaded = 5 // any more
	if err == nil && !end.Success() && end.ExitCode() != notLoaded {
		err = fmt.Errorf("cannot remove the scope %s: systemctl ends with %s", scopeOf(name), end)
	}
	return err
}
