package lab

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Where the host has its cgroups (v2): inside, the root of that tree is the
// cgroup that the first stage made on the machine.
const (
	cgroupRoot   = "/sys/fs/cgroup"
	cgroupPrefix = "vsrun-lab-"
)

// A cgroup is what holds a host's processes on the machine. A nil one does
// nothing, and the host has no cgroups: for ordinary users, and on machines
// that have no cgroup v2 or let nobody write there. Require tells.
type cgroup struct{ dir *os.File }

// newCgroup makes a cgroup for a host, in the machine's tree.
func newCgroup() *cgroup {
	top := machineCgroups()
	if top == "" || os.Geteuid() != 0 {
		return nil
	}
	sweepCgroups(top)
	path := filepath.Join(top, cgroupPrefix+strconv.Itoa(os.Getpid()))
	if os.MkdirAll(path, 0o755) != nil {
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil
	}
	return &cgroup{dir}
}

// machineCgroups is where the machine has its cgroup v2 tree, or "".
func machineCgroups() string {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 3 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	return ""
}

// sweepCgroups removes what first stages that were killed could not.
func sweepCgroups(top string) {
	left, _ := filepath.Glob(filepath.Join(top, cgroupPrefix+"*"))
	for _, path := range left {
		pid := strings.TrimPrefix(filepath.Base(path), cgroupPrefix)
		if _, err := os.Stat("/proc/" + pid); err != nil {
			removeCgroup(path)
		}
	}
}

func (g *cgroup) attr(flags uintptr) *syscall.SysProcAttr {
	if g == nil {
		return &syscall.SysProcAttr{Cloneflags: flags}
	}
	return &syscall.SysProcAttr{Cloneflags: flags, UseCgroupFD: true, CgroupFD: int(g.dir.Fd())}
}

func (g *cgroup) remove() {
	if g == nil {
		return
	}
	g.dir.Close()
	removeCgroup(g.dir.Name())
}

// removeCgroup removes a tree of cgroups without processes. It cannot be
// os.RemoveAll: the files in there cannot be removed, only the directories.
func removeCgroup(path string) {
	var dirs []string
	filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0; i-- {
		os.Remove(dirs[i])
	}
}

// ownCgroup tells whether this process is in a cgroup made by newCgroup.
func ownCgroup() bool {
	groups, err := os.ReadFile("/proc/self/cgroup")
	return err == nil && strings.Contains(string(groups), "0::") &&
		strings.Contains(string(groups), "/"+cgroupPrefix)
}

// joinCgroup mounts the host's cgroups, if it has any, and moves its first two
// processes out of the root, where cgroup v2 wants none once controllers are
// handed down (cgroup-v2.rst, "No Internal Process Constraint").
func joinCgroup() error {
	first, err := os.Readlink("/proc/1/ns/cgroup")
	if err != nil {
		return err
	}
	if own, err := os.Readlink("/proc/self/ns/cgroup"); err != nil || own == first {
		return err // PID 1 gave us no cgroup namespace
	}
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err != nil || st.Type == unix.CGROUP2_SUPER_MAGIC {
		return err
	}
	if err := unix.Mount("cgroup2", cgroupRoot, "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("cannot mount %s: %w", cgroupRoot, err)
	}
	own := filepath.Join(cgroupRoot, "lab")
	if err := os.Mkdir(own, 0o755); err != nil {
		return err
	}
	for _, pid := range []int{1, os.Getpid()} {
		if err := os.WriteFile(filepath.Join(own, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return err
		}
	}
	return handDownControllers()
}

func handDownControllers() error {
	controllers, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(controllers)) {
		if err := os.WriteFile(filepath.Join(cgroupRoot, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
			return fmt.Errorf("cannot hand down the %s controller: %w", c, err)
		}
	}
	return nil
}
