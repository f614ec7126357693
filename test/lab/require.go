package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
)

// disk tells whether the host's programs are on a block device.
func disk() error {
	var st unix.Stat_t
	if err := unix.Stat("/usr", &st); err != nil || unix.Major(uint64(st.Dev)) == 0 {
		return fmt.Errorf("the programs of this host are on no block device")
	}
	return nil
}

// features are the things that Require knows beyond single commands: each is
// nil, or says what is missing.
var features = map[string]func() error{
	"samba":     commands("smbd", "smbclient"),
	"nginx":     commands("nginx"),
	"landlock":  landlock,
	"cgroup2":   cgroup2,
	"cgroup:v1": legacyCgroups,
	"ganesha":   commands("ganesha.nfsd"),
	"dav":       exists("/usr/lib/nginx/modules/ngx_http_dav_ext_module.so"),
	"loop":      exists("/dev/loop-control"),
	"systemd":   systemd,
	"disk":      disk,
	"pty":       exists("/dev/ptmx"),

	"kernel:btf":   exists("/sys/kernel/btf/vmlinux"),
	"kernel:mptcp": exists("/proc/sys/net/mptcp"),

	"cpu:little-endian": littleEndian,
}

// Require skips the test unless the host has everything named: a feature
// ("samba", "nginx", "cgroup2", "loop", "systemd", "disk", "pty"), a kind of network device that the
// kernel can make ("kind:ipvlan"), or cannot ("without:bond"), a kernel that is new enough ("linux:6.11"), cgroups
// of v1 ("cgroup:v1"), a controller of its cgroups ("controller:memory"), a
// capability that root has ("capability:sys_resource"), what a kernel may have been built
// without ("kernel:btf"), a processor that programs may run on ("cpu:1" is the second),
// or else a command. The skip names what is missing.
//
// VSRUN_REQUIRE, a comma-separated list, makes a skip a failure: a name for
// itself, "all" for everything that can be installed or granted, "kind:all" for
// the kernel's devices, "cgroup:all", "controller:all", "capability:all", "kernel:all", "cpu:all";
// "-name" takes the name out of these.
func Require(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := missing(name); err != nil {
			skip(t, name, fmt.Sprintf("MISSING %s: %v", name, err))
		}
	}
}

// NeedRoot skips the test where only one user exists, as in the user namespace
// of an ordinary user. why completes "needs root, because …".
func NeedRoot(t testing.TB, why string) {
	t.Helper()
	if SingleUser() {
		skip(t, "root", "NEEDS ROOT, because "+why)
	}
}

// SingleUser tells whether root is the only user that exists here: nothing can
// be given to another user, and no program can become one.
func SingleUser() bool {
	ids, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(ids))
	return err == nil && len(f) == 3 && f[2] == "1"
}

func skip(t testing.TB, name, why string) {
	t.Helper()
	if mayNotSkip(name) {
		t.Fatal(why + " (and VSRUN_REQUIRE forbids to skip it)")
	}
	t.Skip(why)
}

func mayNotSkip(name string) bool {
	listed := strings.Split(os.Getenv("VSRUN_REQUIRE"), ",")
	all := "all"
	if group, _, ok := strings.Cut(name, ":"); ok {
		all = group + ":all"
	}
	if slices.Contains(listed, "-"+name) {
		return false
	}
	return slices.Contains(listed, name) || slices.Contains(listed, all)
}

func missing(name string) error {
	if check, ok := features[name]; ok {
		return check()
	}
	if kind, ok := strings.CutPrefix(name, "kind:"); ok {
		return linkKind(kind)
	}
	if kind, ok := strings.CutPrefix(name, "without:"); ok {
		if linkKind(kind) == nil {
			return fmt.Errorf("a kernel that cannot make a %s", kind)
		}
		return nil
	}
	if version, ok := strings.CutPrefix(name, "linux:"); ok {
		return linux(version)
	}
	if name, ok := strings.CutPrefix(name, "controller:"); ok {
		return controller(name)
	}
	if number, ok := strings.CutPrefix(name, "cpu:"); ok {
		return processor(number)
	}
	if c, ok := strings.CutPrefix(name, "capability:"); ok {
		return hasCapability(c)
	}
	return commands(name)()
}

func exists(path string) func() error {
	return func() error {
		_, err := os.Stat(path)
		return err
	}
}

func commands(names ...string) func() error {
	return func() error {
		for _, name := range names {
			if _, err := exec.LookPath(name); err != nil {
				return fmt.Errorf("there is no command %s", name)
			}
		}
		return nil
	}
}

func hasCapability(name string) error {
	own, err := capability.NewPid2(0)
	if err == nil {
		err = own.Load()
	}
	if err != nil {
		return err
	}
	for _, c := range capability.ListKnown() {
		if c.String() == name && own.Get(capability.EFFECTIVE, c) {
			return nil
		}
	}
	return errors.New("root lacks it here")
}

func littleEndian() error {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return errors.New("this machine is big-endian")
	}
	return nil
}

// processor tells whether a processor, by its number, may be run on.
func processor(number string) error {
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	var own unix.CPUSet
	if err := unix.SchedGetaffinity(0, &own); err != nil {
		return err
	}
	if !own.IsSet(n) {
		return fmt.Errorf("there is no processor %d here", n)
	}
	return nil
}

// linkKind asks the kernel for a device it cannot make (it lacks a parent or a
// peer, mostly): only an unknown kind is refused as such.
func linkKind(kind string) error {
	const probe = "labprobe"
	r := run("", "ip", "link", "add", probe, "type", kind)
	if r.Code == 0 {
		return deleteLink(probe)
	}
	if strings.Contains(r.Stderr, "Unknown device type") || strings.Contains(r.Stderr, "not supported") {
		return fmt.Errorf("this kernel has no %s devices", kind)
	}
	return nil
}

func deleteLink(name string) error {
	if r := run("", "ip", "link", "del", "dev", name); r.Code != 0 {
		return fmt.Errorf("cannot delete %s: %s", name, r.Stderr)
	}
	return nil
}

func landlock() error {
	_, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return fmt.Errorf("this kernel has no Landlock, or has not started it: %w", errno)
	}
	return nil
}

func cgroup2() error {
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		return fmt.Errorf("this host has no cgroup v2 tree at %s", cgroupRoot)
	}
	return nil
}

// linux tells whether the kernel is older than a version, MAJOR.MINOR.
func linux(version string) error {
	var wanted, running [2]int
	if _, err := fmt.Sscanf(version, "%d.%d", &wanted[0], &wanted[1]); err != nil {
		return err
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	release := unix.ByteSliceToString(name.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &running[0], &running[1]); err != nil {
		return err
	}
	if slices.Compare(running[:], wanted[:]) < 0 {
		return fmt.Errorf("this kernel is %s", release)
	}
	return nil
}

func legacyCgroups() error {
	if dirs, err := filepath.Glob(cgroupLegacy + "/*"); err != nil || len(dirs) == 0 {
		return fmt.Errorf("this host has no cgroups of v1")
	}
	return nil
}

// controller tells what keeps the host's cgroups, v2 or v1, from having a
// controller, by its name in v2.
func controller(name string) error {
	if err := cgroup2(); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	legacy, _ := filepath.Glob(cgroupLegacy + "/*")
	for _, dir := range legacy {
		if slices.Contains(strings.Split(filepath.Base(dir), ","), legacyNames[name]) {
			return nil
		}
	}
	if err == nil && !slices.Contains(strings.Fields(string(text)), name) {
		err = fmt.Errorf("this host's cgroups have no controller %s", name)
	}
	return err
}

// systemd wants a machine that systemd has booted, and that nobody else uses.
func systemd() error {
	if os.Getenv("VSRUN_VM_BOOT") == "" {
		return errors.New("this is no virtual machine of bin/vm -systemd")
	}
	return nil
}
