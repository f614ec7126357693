package nsutil

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"

	"golang.org/x/sys/unix"
)

// self is the calling thread's network namespace. /proc/self/ns/net would be
// the thread-group leader's, which may be another one.
const self = "/proc/thread-self/ns/net"

// The main thread must never be the one that a goroutine leaves behind in
// another namespace: /proc/self and everything that trusts it follow the
// thread-group leader. Holding it here keeps all other goroutines off it.
func init() { goruntime.LockOSThread() }

// A Namespace is a network namespace held open by a descriptor. It lives at
// least until Close, published or not.
type Namespace struct {
	f *os.File
}

// New makes a network namespace that has no name. Unless it is published, the
// kernel destroys it, and all that was made in it, after Close or when the
// process ends. Errors: EPERM without CAP_SYS_ADMIN, ENOSPC beyond
// /proc/sys/user/max_net_namespaces.
func New() (*Namespace, error) { return NewWith(func() error { return nil }) }

// NewWith is New and [Namespace.Do] in one visit.
func NewWith(fn func() error) (*Namespace, error) {
	var ns *Namespace
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return explain("create a network namespace", err)
		}
		if ns, err = Current(); err == nil {
			err = fn()
		}
		return err
	})
	if err != nil && ns != nil {
		ns.Close()
		ns = nil
	}
	return ns, err
}

// Current is the calling thread's network namespace: the host's, anywhere
// outside a function given to Do.
func Current() (*Namespace, error) { return Open(self) }

// Open opens the network namespace published at path. A path that holds
// something else is an error; an absent one, or the plain file that a crash
// between making and mounting leaves, is fs.ErrNotExist.
func Open(path string) (*Namespace, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would wait for its writer
	if err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot look at %s: %w", path, err)
	}
	if st.Type != unix.NSFS_MAGIC {
		empty := isEmptyFile(f)
		f.Close()
		if empty {
			return nil, &fs.PathError{Op: "open namespace", Path: path, Err: fs.ErrNotExist}
		}
		return nil, fmt.Errorf("%s is not a network namespace, but a file of somebody's", path)
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		f.Close()
		return nil, fmt.Errorf("%s is a namespace, but not a network namespace", path)
	}
	return &Namespace{f}, nil
}

func isEmptyFile(f *os.File) bool {
	fi, err := f.Stat()
	return err == nil && fi.Mode().IsRegular() && fi.Size() == 0
}

// Close lets go of the namespace.
func (ns *Namespace) Close() error { return ns.f.Close() }

// Fd is the descriptor that holds the namespace, valid until Close; the kernel
// takes it as IFLA_NET_NS_FD.
func (ns *Namespace) Fd() int { return int(ns.f.Fd()) }

// Same reports whether both are one namespace.
func (ns *Namespace) Same(other *Namespace) bool {
	a, errA := ns.f.Stat()
	b, errB := other.f.Stat()
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// Do runs fn on a thread inside the namespace: what fn opens (sockets,
// /proc/thread-self/net, /proc/sys/net) is the namespace's, and stays so when
// it is used outside. fn must not start goroutines.
func (ns *Namespace) Do(fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(ns.Fd(), unix.CLONE_NEWNET); err != nil {
			return explain("enter the network namespace", err)
		}
		return fn()
	})
}

// onThread runs fn on a thread of its own and brings the thread back to the
// network namespace it came from. A thread that cannot come back stays locked,
// and ends with its goroutine.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread()
		home, err := unix.Open(self, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- &fs.PathError{Op: "open", Path: self, Err: err}
			return
		}
		err = fn()
		if back := unix.Setns(home, unix.CLONE_NEWNET); back == nil {
			goruntime.UnlockOSThread()
		}
		unix.Close(home)
		done <- err
	}()
	return <-done
}

// Publish gives the namespace the name path, by a bind mount as `ip netns add`
// makes it. It is not replaced when path already is a namespace: EEXIST.
func (ns *Namespace) Publish(path string) error {
	dir, err := shareDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close() // and with it the lock: two publishers at once would stack two mounts
	if old, err := Open(path); err == nil {
		old.Close()
		return &fs.PathError{Op: "publish", Path: path, Err: fs.ErrExist}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	f.Close()
	source := fmt.Sprintf("/proc/self/fd/%d", ns.Fd())
	if err := unix.Mount(source, path, "none", unix.MS_BIND, ""); err != nil {
		os.Remove(path)
		return fmt.Errorf("cannot mount the namespace on %s: %w", path, err)
	}
	return nil
}

// shareDir makes the directory of published namespaces, as iproute2 does: a
// mount point with shared propagation. Without it a mount namespace made later
// keeps copies of the mounts, and the namespaces with them, when the host
// removes them (iproute2 ip/ipnetns.c, netns_add). It is locked until it is closed.
func shareDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		err = fmt.Errorf("cannot lock %s: %w", dir, err)
	} else {
		err = shareMount(dir)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func shareMount(dir string) error {
	// Without MS_REC: what is mounted in a shared directory is shared already, and to look at
	// each of a thousand takes long.
	err := unix.Mount("", dir, "none", unix.MS_SHARED, "")
	if errors.Is(err, unix.EINVAL) { // not a mount point yet
		if err := unix.Mount(dir, dir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("cannot make %s a mount point: %w", dir, err)
		}
		// Where the file system below is shared, as systemd has it, the mount is
		// in that one's peer group, and each name published would be mounted on
		// both: a group of its own.
		if err := unix.Mount("", dir, "none", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("cannot part %s from the mount below: %w", dir, err)
		}
		err = unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	}
	if err != nil {
		return fmt.Errorf("cannot share the mounts in %s: %w", dir, err)
	}
	return nil
}

// Unpublish takes the name path away. Absent already is success. The namespace
// itself lives on while a process, a socket or a descriptor is in it.
func Unpublish(path string) error {
	old, err := Open(path)
	if err == nil {
		old.Close()
	} else if !errors.Is(err, fs.ErrNotExist) { // not ours to take away
		return err
	}
	err = unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // EINVAL: not mounted
		return fmt.Errorf("cannot unmount %s: %w", path, err)
	}
	ns, err := Open(path)
	switch {
	case err == nil: // mounted twice: somebody else's mount is below ours
		ns.Close()
		return fmt.Errorf("cannot remove %s: another namespace is mounted there", path)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Join runs fn on a thread that has joined the namespaces of the process behind
// pidfd, of the kinds given (CLONE_NEWNET, CLONE_NEWNS, …; Linux 5.8). With
// CLONE_NEWPID it is the processes that fn starts that are in the PID
// namespace. The thread ends with fn: it could not come back from another mount
// namespace.
func Join(pidfd, kinds int, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread() // never unlocked
		// A mount namespace cannot be joined by a thread that shares its root
		// and working directory with others (setns(2), EINVAL).
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- explain("part the thread from the others", err)
			return
		}
		if err := unix.Setns(pidfd, kinds); err != nil {
			done <- explain("join the namespaces", err)
			return
		}
		done <- fn()
	}()
	return <-done
}

// A refusal is an error with its cure.
type refusal struct {
	error
	cure string
}

func (r *refusal) Unwrap() error { return r.error }
func (r *refusal) Hint() string  { return r.cure }

// explain adds the cure to the errors that namespaces are refused with.
func explain(what string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return &refusal{fmt.Errorf("cannot %s: %w", what, err), "it takes CAP_SYS_ADMIN: run it as root, outside of a restricted container"}
	case errors.Is(err, unix.ENOSPC):
		return &refusal{fmt.Errorf("cannot %s: there are as many as the limit allows", what), "raise the limit: sysctl user.max_net_namespaces"}
	case errors.Is(err, unix.EINVAL):
		return &refusal{fmt.Errorf("cannot %s: this kernel has none", what), "use a kernel with CONFIG_NET_NS"}
	}
	return fmt.Errorf("cannot %s: %w", what, err)
}
