package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil/cgroup"
)

// A service's program is started by a second start of vs-init under this name,
// which gives up what the program must not have and becomes the program. Between
// fork and exec Go can do only what syscall.SysProcAttr knows.
const launchName = "vs-launch"

// The descriptors that it is handed besides the standard ones: the program's sockets
// first, of which its second argument is the number.
const firstSocket = 3 // where sd_listen_fds(3) has them begin

// orderFd is what to start, to be read; wordFd is for the reason why the program could
// not be started; cgroups to enter are from enterFd on.
func orderFd(sockets int) int { return firstSocket + sockets }
func wordFd(sockets int) int  { return firstSocket + sockets + 1 }
func enterFd(sockets int) int { return firstSocket + sockets + 2 }

// An order says what is to be started, and how.
type order struct {
	Command  []string
	Env      []string
	Private  []string // the service's private directories, without symlinks
	Settings Settings
	Enter    int // how many cgroups it has to enter itself
}

// launchMain becomes the program, or says why not and exits.
func launchMain() {
	// Else another service of the same user and rights could open what this process
	// has open, by /proc, and keep the init waiting for the end of its word.
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // until exec(2)
	sockets, _ := strconv.Atoi(os.Args[len(os.Args)-1])
	orders, word := orderFd(sockets), wordFd(sockets)
	unix.CloseOnExec(orders)
	unix.CloseOnExec(word)
	var o order
	err := json.NewDecoder(os.NewFile(uintptr(orders), "order")).Decode(&o)
	if sockets > 0 {
		o.Env = append(o.Env, fmt.Sprintf("LISTEN_PID=%d", os.Getpid())) // it stays the same
	}
	for fd := enterFd(sockets); err == nil && fd < enterFd(sockets)+o.Enter; fd++ {
		unix.CloseOnExec(fd)
		err = cgroup.Enter(fd)
	}
	if err == nil {
		err = o.carryOut()
	}
	io.WriteString(os.NewFile(uintptr(word), "word"), err.Error())
	os.Exit(1)
}

// carryOut does not return unless something failed. All of it is the calling
// thread's alone, which is the one that exec(2) keeps.
func (o order) carryOut() error {
	s := o.Settings
	caps, err := bounded(s.capabilities())
	if err != nil {
		return err
	}
	who, err := s.account()
	if err != nil {
		return err
	}
	if err := s.applyLimits(); err != nil {
		return err
	}
	if err := leaveKeyring(); err != nil {
		return err
	}
	if err := o.fence(); err != nil {
		return err
	}
	if err := unix.Chdir(or(s.Directory, "/")); err != nil {
		return fmt.Errorf("cannot go to %s: %w", s.Directory, err)
	}
	if err := o.checkExports(); err != nil {
		return err
	}
	if err := who.become(caps); err != nil {
		return err
	}
	path, err := lookup(o.Command[0], searchPath)
	if err != nil {
		return fmt.Errorf("%s: %w", o.Command[0], err)
	}
	argv, env := o.Command, o.environment(who)
	// From here on nothing can be gained again, by no setuid program either.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot set no_new_privs: %w", err)
	}
	if s.Syscalls != allSyscalls {
		if err := installFilter(); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: %w", o.Command[0], syscall.Exec(path, argv, env))
}

func or(value, standard string) string {
	if value == "" {
		return standard
	}
	return value
}

// applyLimits sets what needs no right, or rights that are given up later.
func (s Settings) applyLimits() error {
	mask, err := s.umask()
	if err != nil {
		return err
	}
	unix.Umask(mask)
	if err := noCoreDumps(); err != nil {
		return err
	}
	for name := range s.Limits {
		resource, r, err := s.limit(name)
		if err == nil {
			err = unix.Setrlimit(resource, &r)
		}
		if err != nil {
			return fmt.Errorf("cannot set the limit %s: %w", name, err)
		}
	}
	if s.Nice != 0 {
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, s.Nice); err != nil {
			return fmt.Errorf("cannot set nice %d: %w", s.Nice, err)
		}
	}
	if err := setOOMScore(s.OOMScore); err != nil && s.OOMScore != 0 {
		return fmt.Errorf("cannot set oomScore %d: %w", s.OOMScore, err)
	}
	return nil
}

// initOOMScore makes an init the last of a virtual server's processes that the
// kernel kills when memory is short, as all others end with it.
const initOOMScore = -999

// setOOMScore is proc_pid_oom_score_adj(5), which processes hand down to those
// that they start. Without CAP_SYS_RESOURCE it cannot be made lower.
func setOOMScore(score int) error {
	return os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(score)), 0)
}

// noCoreDumps has the soft limit be 0, as at boot, and not what it is for whoever has
// started the init: a dump would be a file of root's in the host's /. A program of the
// host's that core_pattern names is started all the same (core(5)).
func noCoreDumps() error {
	var r unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_CORE, &r)
	if err == nil {
		r.Cur = 0
		err = unix.Setrlimit(unix.RLIMIT_CORE, &r)
	}
	if err != nil {
		return fmt.Errorf("cannot limit core dumps: %w", err)
	}
	return nil
}

// leaveKeyring takes the session's keys of whoever has started the init out of reach:
// the filter refuses the calls for them, but it can be switched off. Where these are
// not there, or refused as in containers, nobody has keys.
func leaveKeyring() error {
	_, _, errno := unix.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	if errno != 0 && errno != unix.ENOSYS && errno != unix.EPERM {
		return fmt.Errorf("cannot leave the session's keys: %w", errno)
	}
	return nil
}

// An account is whom the program runs as.
type account struct {
	uid, gid int
	groups   []int
	name     string
	home     string
}

// account looks the user up as the virtual server's files have it.
func (s Settings) account() (account, error) {
	a := account{name: "root", home: "/"}
	if s.User != "" {
		u, err := findUser(s.User)
		if err != nil {
			return a, err
		}
		a = u
	}
	if s.Group != "" {
		g, err := findGroup(s.Group)
		if err != nil {
			return a, err
		}
		a.gid = g
	}
	return a, nil
}

func findUser(word string) (account, error) {
	u, err := user.Lookup(word)
	if err != nil {
		u, err = user.LookupId(word)
	}
	if err != nil { // one without an entry
		uid, err := parseID(word)
		if err != nil {
			return account{}, fmt.Errorf("there is no user %s", word)
		}
		return account{uid: uid, gid: uid, name: word, home: "/"}, nil
	}
	a := account{name: u.Username, home: u.HomeDir}
	ids, err := u.GroupIds()
	if errors.Is(err, os.ErrNotExist) { // there is no /etc/group, and so nobody is in one
		err = nil
	}
	for _, id := range append(ids, u.Gid, u.Uid) {
		n, wrong := parseID(id)
		if wrong != nil {
			return a, fmt.Errorf("user %s has the number %s: %w", word, id, wrong)
		}
		a.groups = append(a.groups, n)
	}
	last := len(a.groups) - 1
	a.uid, a.gid, a.groups = a.groups[last], a.groups[last-1], a.groups[:last-1]
	return a, err
}

func findGroup(word string) (int, error) {
	id := word
	if g, err := user.LookupGroup(word); err == nil {
		id = g.Gid
	}
	gid, err := parseID(id)
	if err != nil {
		return 0, fmt.Errorf("there is no group %s", word)
	}
	return gid, nil
}

// parseID reads the number of a user or group: not 2^32-1, by which setresuid(2) means
// none, nor the one that inits hide behind.
func parseID(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err == nil && (n == math.MaxUint32 || n == nobodys) {
		err = errors.New("is nobody's")
	}
	return int(n), err
}

// become gives up everything but caps, and then the user. A program that root
// starts has what is in the bounding set; any other's, what is ambient.
func (a account) become(caps []capability.Cap) error {
	own, err := capability.NewPid2(0)
	if err == nil {
		err = own.Load()
	}
	if err != nil {
		return fmt.Errorf("cannot read the capabilities: %w", err)
	}
	own.Clear(capability.BOUNDS)
	own.Set(capability.BOUNDING, caps...)
	if err := own.Apply(capability.BOUNDS); err != nil {
		return fmt.Errorf("cannot limit the capabilities: %w", err)
	}
	if a.uid != 0 {
		if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	if err := a.setIDs(); err != nil {
		return fmt.Errorf("cannot become %s: %w", a.name, err)
	}
	own.Clear(capability.CAPS | capability.AMBS)
	own.Set(capability.CAPS, caps...)
	kinds := capability.CAPS
	if a.uid != 0 {
		own.Set(capability.AMBIENT, caps...)
		kinds |= capability.AMBS
	}
	if err := own.Apply(kinds); err != nil {
		return fmt.Errorf("cannot set the capabilities: %w", err)
	}
	return nil
}

// setIDs changes only what differs: a user namespace may know one user alone.
func (a account) setIDs() error {
	if had, err := unix.Getgroups(); err != nil || !slices.Equal(had, a.groups) {
		var first unsafe.Pointer
		list := make([]uint32, len(a.groups))
		for i, g := range a.groups {
			list[i] = uint32(g)
		}
		if len(list) > 0 {
			first = unsafe.Pointer(&list[0])
		}
		_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(list)), uintptr(first), 0)
		if errno != 0 && !(errno == unix.EPERM && len(list) == 0) {
			return errno
		}
	}
	if unix.Getgid() != a.gid || unix.Getegid() != a.gid {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(a.gid), uintptr(a.gid), uintptr(a.gid)); errno != 0 {
			return errno
		}
	}
	if unix.Getuid() != a.uid || unix.Geteuid() != a.uid {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(a.uid), uintptr(a.uid), uintptr(a.uid)); errno != 0 {
			return errno
		}
	}
	return nil
}

// environment is what the program gets: the virtual server's, the user's, the
// service's own.
func (o order) environment(a account) []string {
	env := o.Env
	if o.Settings.User != "" {
		env = merge(env, []string{"HOME=" + a.home, "USER=" + a.name, "LOGNAME=" + a.name})
	}
	var own []string
	for name, value := range o.Settings.Environment {
		own = append(own, name+"="+value)
	}
	slices.Sort(own)
	return merge(env, own)
}

// capabilityNamed is a capability by its name in capabilities(7), without CAP_.
func capabilityNamed(name string) (capability.Cap, error) {
	for _, c := range capability.ListKnown() {
		if strings.EqualFold(c.String(), name) && name == strings.ToUpper(name) {
			return c, nil
		}
	}
	return 0, fmt.Errorf("%q is no capability such as NET_BIND_SERVICE, and none of the daemons %s",
		name, strings.Join(slices.Sorted(maps.Keys(Presets)), ", "))
}

// bounded are the capabilities of that name, as far as this kernel has them.
func bounded(names []string) ([]capability.Cap, error) {
	there, err := capability.ListSupported()
	if err != nil {
		return nil, fmt.Errorf("cannot ask the kernel for its capabilities: %w", err)
	}
	var caps []capability.Cap
	for _, name := range names {
		c, err := capabilityNamed(name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(there, c) {
			return nil, fmt.Errorf("this kernel has no capability %s", name)
		}
		caps = append(caps, c)
	}
	return caps, nil
}
