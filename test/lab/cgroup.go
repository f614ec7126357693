package lab

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Where the host has its cgroups: v2 in its standard place, and each hierarchy of
// v1 that the machine has below the other. Inside, the root of each is the cgroup
// that the first stage made on the machine.
const (
	cgroupRoot   = "/sys/fs/cgroup"
	cgroupLegacy = labDir + "/cgroup"
	cgroupPrefix = "vsrun-lab-"
	cgroupsVar   = "VSRUN_LAB_CGROUPS" // the hierarchies of v1, by their mount options
)

// legacyNames are v1's controllers that a virtual server may need, by their names in
// v2.
var legacyNames = map[string]string{"memory": "memory", "cpu": "cpu", "cpuacct": "cpuacct", "pids": "pids", "io": "blkio"}

// A cgroup is what holds a host's processes on the machine. A nil one does
// nothing, and the host has no cgroups: for ordinary users, and on machines
// that have no cgroup v2 or let nobody write there. Require tells.
type cgroup struct {
	dir    *os.File
	legacy []string
}

// newCgroup makes a cgroup for a host, in the machine's trees.
func newCgroup() *cgroup {
	top, legacy := machineCgroups()
	if top == "" || os.Geteuid() != 0 {
		return nil
	}
	name := cgroupPrefix + strconv.Itoa(os.Getpid())
	for _, path := range append(legacy, top) {
		sweepCgroups(path)
	}
	g := &cgroup{}
	for _, path := range legacy {
		if path = filepath.Join(path, name); os.Mkdir(path, 0o755) == nil {
			g.legacy = append(g.legacy, path)
		}
	}
	path := filepath.Join(top, name)
	err := os.MkdirAll(path, 0o755)
	if err == nil {
		g.dir, err = os.Open(path)
	}
	if err != nil {
		g.remove()
		return nil
	}
	return g
}

// machineCgroups is where the machine has its cgroup v2 tree, or "", and those of v1
// that may be needed.
func machineCgroups() (top string, legacy []string) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", nil
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 4:
		case f[2] == "cgroup2" && top == "":
			top = f[1]
		case f[2] == "cgroup" && neededOf(f[3]) != "":
			legacy = append(legacy, f[1])
		}
	}
	return top, legacy
}

// neededOf are the controllers among mount options, or among a hierarchy's in
// /proc/self/cgroup, if one of them may be needed.
func neededOf(options string) string {
	all := slices.Collect(maps.Values(legacyNames))
	words := slices.DeleteFunc(strings.Split(options, ","), func(w string) bool { return !slices.Contains(all, w) })
	return strings.Join(words, ",")
}

// enterLegacy puts this process, PID 1 of a host, into the cgroups of v1 that the
// first stage has made, and returns their hierarchies' mount options.
func enterLegacy() (options []string) {
	name := cgroupPrefix + strings.TrimPrefix(ownGroup("0::"), "/"+cgroupPrefix)
	_, legacy := machineCgroups()
	for _, path := range legacy {
		// Without one of its own, nothing of the machine's is to be shown inside.
		os.WriteFile(filepath.Join(path, name, "cgroup.procs"), []byte("0"), 0)
	}
	for line := range strings.Lines(groupsOf()) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && f[2] == "/"+name && neededOf(f[1]) != "" {
			options = append(options, f[1])
		}
	}
	return options
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
	for _, path := range g.legacy {
		removeCgroup(path)
	}
	if g.dir != nil {
		g.dir.Close()
		removeCgroup(g.dir.Name())
	}
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
func ownCgroup() bool { return strings.HasPrefix(ownGroup("0::"), "/"+cgroupPrefix) }

// ownGroup is where this process is in a hierarchy, by the beginning of its line in
// /proc/self/cgroup.
func ownGroup(hierarchy string) string {
	for line := range strings.Lines(groupsOf()) {
		if path, ok := strings.CutPrefix(line, hierarchy); ok {
			return strings.TrimSpace(path)
		}
	}
	return ""
}

func groupsOf() string {
	text, _ := os.ReadFile("/proc/self/cgroup")
	return string(text)
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
	if err := mountLegacy(); err != nil {
		return err
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

// mountLegacy mounts the host's cgroups of v1.
func mountLegacy() error {
	for options := range strings.FieldsSeq(os.Getenv(cgroupsVar)) {
		dir := filepath.Join(cgroupLegacy, options)
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = unix.Mount("cgroup", dir, "cgroup", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options)
		}
		if err != nil {
			return fmt.Errorf("cannot mount %s: %w", dir, err)
		}
	}
	return nil
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
