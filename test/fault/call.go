package fault

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A kind is a system call that is watched.
type kind struct {
	name    string
	path    int  // which argument is one, from 1 on; 0: none
	file    bool // the first argument is a descriptor that it is about
	changes bool // it changes something that outlives the process
}

// watched are the calls that change something, and those that what changes something
// needs first.
var watched = map[int32]kind{
	unix.SYS_OPENAT:            {"openat", 2, false, false}, // changes, if it makes the file
	unix.SYS_OPENAT2:           {"openat2", 2, false, false},
	unix.SYS_READ:              {"read", 0, true, false},
	unix.SYS_PREAD64:           {"pread64", 0, true, false},
	unix.SYS_MKDIRAT:           {"mkdirat", 2, false, true},
	unix.SYS_UNLINKAT:          {"unlinkat", 2, false, true},
	unix.SYS_RENAMEAT:          {"renameat", 4, false, true},
	unix.SYS_RENAMEAT2:         {"renameat2", 4, false, true},
	unix.SYS_SYMLINKAT:         {"symlinkat", 3, false, true},
	unix.SYS_LINKAT:            {"linkat", 4, false, true},
	unix.SYS_MKNODAT:           {"mknodat", 2, false, true},
	unix.SYS_FCHMODAT:          {"fchmodat", 2, false, true},
	unix.SYS_FCHMODAT2:         {"fchmodat2", 2, false, true},
	unix.SYS_FCHOWNAT:          {"fchownat", 2, false, true},
	unix.SYS_WRITE:             {"write", 0, true, true},
	unix.SYS_PWRITE64:          {"pwrite64", 0, true, true},
	unix.SYS_FSYNC:             {"fsync", 0, true, true},
	unix.SYS_FTRUNCATE:         {"ftruncate", 0, true, true},
	unix.SYS_FCHMOD:            {"fchmod", 0, true, true},
	unix.SYS_FCHOWN:            {"fchown", 0, true, true},
	unix.SYS_GETDENTS64:        {"getdents64", 0, true, false},
	unix.SYS_FLOCK:             {"flock", 0, true, false},
	unix.SYS_FCNTL:             {"fcntl", 0, true, false},
	unix.SYS_IOCTL:             {"ioctl", 0, true, true},
	unix.SYS_MOUNT:             {"mount", 2, false, true},
	unix.SYS_UMOUNT2:           {"umount2", 1, false, true},
	unix.SYS_FSOPEN:            {"fsopen", 1, false, false},
	unix.SYS_FSCONFIG:          {"fsconfig", 3, false, false},
	unix.SYS_FSMOUNT:           {"fsmount", 0, false, false},
	unix.SYS_MOVE_MOUNT:        {"move_mount", 4, false, true},
	unix.SYS_OPEN_TREE:         {"open_tree", 2, false, false},
	unix.SYS_MOUNT_SETATTR:     {"mount_setattr", 2, false, false},
	unix.SYS_UNSHARE:           {"unshare", 0, false, false},
	unix.SYS_SETNS:             {"setns", 0, false, false},
	unix.SYS_SETHOSTNAME:       {"sethostname", 1, false, false},
	unix.SYS_SOCKET:            {"socket", 0, false, false},
	unix.SYS_BIND:              {"bind", 0, false, true},
	unix.SYS_LISTEN:            {"listen", 0, false, true},
	unix.SYS_CONNECT:           {"connect", 0, false, true},
	unix.SYS_ACCEPT4:           {"accept4", 0, false, false},
	unix.SYS_SENDTO:            {"sendto", 0, false, true},
	unix.SYS_CLONE:             {"clone", 0, false, true},
	unix.SYS_CLONE3:            {"clone3", 0, false, true},
	unix.SYS_EXECVE:            {"execve", 1, false, true},
	unix.SYS_PIPE2:             {"pipe2", 0, false, false},
	unix.SYS_MEMFD_CREATE:      {"memfd_create", 1, false, false},
	unix.SYS_PIDFD_OPEN:        {"pidfd_open", 0, false, false},
	unix.SYS_PIDFD_SEND_SIGNAL: {"pidfd_send_signal", 0, false, true},
	unix.SYS_KILL:              {"kill", 0, false, true},
	unix.SYS_INOTIFY_INIT1:     {"inotify_init1", 0, false, false},
	unix.SYS_INOTIFY_ADD_WATCH: {"inotify_add_watch", 2, false, false},
	unix.SYS_CAPSET:            {"capset", 0, false, false},
	unix.SYS_SETRESUID:         {"setresuid", 0, false, false},
	unix.SYS_SETRESGID:         {"setresgid", 0, false, false},
	unix.SYS_SETGROUPS:         {"setgroups", 0, false, false},
	unix.SYS_SECCOMP:           {"seccomp", 0, false, false},
	unix.SYS_KEYCTL:            {"keyctl", 0, false, false},
}

// notification is struct seccomp_notif of include/uapi/linux/seccomp.h.
type notification struct {
	id    uint64
	pid   uint32 // of the thread
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// verdict is struct seccomp_notif_resp.
type verdict struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

// A Call is one that can fail. Several with the same words are told apart by their
// order, since what several threads and processes do comes in another one each time.
type Call struct {
	Kind    string // which it is, and of which program
	Words   string // what it is about, too
	Nth     int    // of those with these words, from 1 on
	Changes bool   // something that is there when the process has ended
	Message bool   // it is one message of several that the call before sends
}

// quiet are files of Go's runtime and the C library, and of no interest.
var quiet = regexp.MustCompile(`^(/sys/kernel/mm/|/etc/ld\.so|/etc/localtime|/usr/share/zoneinfo|/lib/|/dev/null|anon_inode:\[event)`)

// varying are parts of words that differ from run to run.
var varying = regexp.MustCompile(`\d{3,}|/fd/\d+|/proc/\d+|:\[\d+\]`)

// programs are those whose calls may fail.
var programs = []string{"vsrun", "vs-init", "vsd", "ipmd"}

// netlink begins the object of what is sent there, which is a kind of each type.
const netlink = "netlink "

// call is nil for one that is nobody's to fail: of another program, of Go's runtime, or
// of what a program says to people.
func (n notification) call() *Call {
	k := watched[n.nr]
	program, object := n.program(), ""
	switch {
	case !slices.Contains(programs, program):
		return nil
	case k.file:
		object = n.file()
	case k.path > 0:
		object = n.text(n.args[k.path-1])
	}
	if quiet.MatchString(object) {
		return nil
	}
	switch n.nr {
	case unix.SYS_WRITE:
		if int32(n.args[0]) <= 2 {
			return nil
		}
	case unix.SYS_READ:
		if !strings.HasPrefix(object, "/") { // of what others may never write
			return nil
		}
	case unix.SYS_IOCTL:
		object += fmt.Sprintf(" %#x", n.args[1])
	case unix.SYS_FCNTL:
		if n.args[1] != unix.F_OFD_SETLKW && n.args[1] != unix.F_SETLK {
			return nil
		}
	case unix.SYS_CLONE:
		if n.args[0]&unix.CLONE_THREAD != 0 {
			return nil
		}
	case unix.SYS_CLONE3: // struct clone_args begins with the flags
		if flags := n.bytes(n.args[0], 8); len(flags) == 8 && binary.NativeEndian.Uint64(flags)&unix.CLONE_THREAD != 0 {
			return nil
		}
	case unix.SYS_SENDTO:
		if types := n.messages(); len(types) > 0 {
			object = netlink + fmt.Sprint(types)
			k.changes = slices.ContainsFunc(types, func(typ int) bool { return typ%4 != 2 }) // RTM_GET…
		}
	case unix.SYS_OPENAT:
		k.changes = n.args[2]&(unix.O_CREAT|unix.O_TRUNC) != 0
	}
	kind := program + ": " + k.name
	words := varying.ReplaceAllString(kind+" "+object, "N")
	if strings.HasPrefix(object, netlink) {
		kind = words
	}
	return &Call{Kind: kind, Words: words, Changes: k.changes}
}

// program is the name of what makes the call, "" for what is no program of ours.
func (n notification) program() string {
	exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", n.pid))
	return filepath.Base(exe)
}

// file is what the call's first argument has open.
func (n notification) file() string {
	to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.pid, int32(n.args[0])))
	return to
}

// bytes are some of the caller's memory.
func (n notification) bytes(at, size uint64) []byte {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", n.pid))
	if err != nil {
		return nil
	}
	defer f.Close()
	b := make([]byte, size)
	got, _ := f.ReadAt(b, int64(at))
	return b[:got]
}

func (n notification) text(at uint64) string {
	if at == 0 {
		return ""
	}
	text, _, _ := bytes.Cut(n.bytes(at, 256), []byte{0})
	return string(text)
}

// messages are the types of the netlink messages that the call sends.
func (n notification) messages() (types []int) {
	n.eachMessage(func(_ uint64, typ uint16) { types = append(types, int(typ)) })
	return types
}

// eachMessage walks struct nlmsghdr.
func (n notification) eachMessage(f func(at uint64, typ uint16)) {
	name := n.bytes(n.args[4], 2)
	if n.nr != unix.SYS_SENDTO || len(name) < 2 || binary.NativeEndian.Uint16(name) != unix.AF_NETLINK {
		return
	}
	b := n.bytes(n.args[1], n.args[2])
	for at := 0; at+unix.NLMSG_HDRLEN <= len(b); {
		size := int(binary.NativeEndian.Uint32(b[at:]))
		if size < unix.NLMSG_HDRLEN {
			return
		}
		f(n.args[1]+uint64(at), binary.NativeEndian.Uint16(b[at+4:]))
		at += (size + 3) &^ 3
	}
}

// refuse makes the kernel refuse one of the messages: it gets a type that it does not
// know (EOPNOTSUPP).
func (n notification) refuse(k int) error {
	var places []uint64
	n.eachMessage(func(at uint64, _ uint16) { places = append(places, at) })
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", n.pid), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte{0xff, 0x7f}, int64(places[k]+4))
	return err
}
