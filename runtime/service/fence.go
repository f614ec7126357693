package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// System are the directories that no service writes to unless it names them: what
// the host's own programs are, and go by. Root needs no capability to write what is
// root's (ProtectSystem=full of systemd.exec(5), and root's home).
var System = []string{"/usr", "/etc", "/boot", "/efi", "/root"}

// A tree is a copy of what is mounted at a path and below, as it was when the copy
// was made, which has no place yet.
type tree struct {
	path string
	fd   int
}

// copyTree follows no symlink: the service may have made one, to be let in elsewhere
// when it is started again.
func copyTree(path string) (tree, error) {
	at, err := openPath(path)
	if err != nil {
		return tree{}, err
	}
	defer unix.Close(at)
	fd, err := cloneTree(at)
	return tree{path, fd}, err
}

func cloneTree(fd int) (int, error) {
	return unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_EMPTY_PATH)
}

func openPath(path string) (int, error) {
	return unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
}

// place mounts the copy on the path.
func (t tree) place() error {
	defer unix.Close(t.fd)
	at, err := openPath(t.path)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	return unix.MoveMount(t.fd, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

var readOnlyMount = unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}

// shutWhereItIs makes a directory of the host's read-only, wherever a symlink has it.
func shutWhereItIs(path string) error {
	target, err := resolve(path)
	if err != nil {
		return err
	}
	return shut(target)
}

// shut makes what is at a path read-only, all that is mounted below included. What is
// not there needs no shutting.
func shut(path string) error {
	t, err := copyTree(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = unix.MountSetattr(t.fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &readOnlyMount)
	}
	if err == nil {
		err = t.place()
	}
	if err != nil {
		return fmt.Errorf("cannot make %s read-only: %w", path, err)
	}
	return nil
}

// fence makes read-only what is not the service's to write, in the mount namespace
// that it has been started in. What comes and goes in the init's still does so here.
func (o order) fence() error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("cannot part the mounts from the init's: %w", err)
	}
	own, err := o.own()
	if err != nil {
		return err
	}
	open, err := copyTrees(own)
	if err != nil {
		return err
	}
	named, err := copyTrees(o.Settings.Writable)
	if err != nil {
		return err
	}
	if o.Settings.ReadOnly {
		err = unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &readOnlyMount)
	} else {
		err = each(System, shutWhereItIs)
	}
	if err != nil {
		return fmt.Errorf("cannot make the files read-only: %w", err)
	}
	knobs, err := kernelKnobs()
	if err != nil {
		return err
	}
	err = errors.Join(each(open, tree.place), each(knobs, shut), each(named, tree.place))
	if err != nil || !o.Settings.ReadOnly {
		return err
	}
	return confine(append(own, o.Settings.Writable...))
}

// own are the paths that are the service's to write without being named.
func (o order) own() ([]string, error) {
	if !o.Settings.ReadOnly {
		return o.Private, nil
	}
	places, err := findPlaces()
	if err != nil {
		return nil, err
	}
	own := append([]string{"/proc"}, o.Private...)
	for _, p := range places {
		own = append(own, p.target)
	}
	return own, nil
}

func copyTrees(paths []string) ([]tree, error) {
	var trees []tree
	for _, path := range slices.Sorted(slices.Values(paths)) { // parents first
		t, err := copyTree(path)
		if errors.Is(err, unix.ELOOP) {
			err = errors.New("a symlink is on the way: name where it leads to")
		}
		if err != nil {
			return nil, fmt.Errorf("cannot let it write to %s: %w", path, missing(path, "create it", err))
		}
		trees = append(trees, t)
	}
	return trees, nil
}

func each[T any](list []T, do func(T) error) error {
	for _, one := range list {
		if err := do(one); err != nil {
			return err
		}
	}
	return nil
}

// kernelKnobs are the parts of /proc and /sys that set what is the kernel's, or the
// virtual server's network's. All of them are root's, and ask for no capability.
func kernelKnobs() ([]string, error) {
	knobs := []string{"/sys"}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if _, process := strconv.Atoi(e.Name()); process == nil || e.Type()&fs.ModeSymlink != 0 {
			continue
		}
		info, err := e.Info()
		if err == nil && (info.IsDir() || info.Mode()&0o222 != 0) {
			knobs = append(knobs, filepath.Join("/proc", e.Name()))
		}
	}
	return knobs, nil
}
