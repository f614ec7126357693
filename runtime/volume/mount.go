package volume

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/runtime/service"
)

// Mount mounts a volume without giving it a place. Its image is in the directory
// keep, and made at the first time: its root has the owner and mode of the directory
// that it is to cover, if that is there.
func Mount(v service.Volume, keep string) (*os.File, error) {
	f, err := open(v, keep)
	if err != nil {
		return nil, fmt.Errorf("cannot mount the volume %s: %w", v.Path, err)
	}
	return f, nil
}

func open(v service.Volume, keep string) (*os.File, error) {
	switch {
	case v.Type == service.Tmpfs:
		f, err := mount(v.Type, map[string]string{"size": strconv.FormatInt(v.Bytes(), 10), "mode": "755"})
		return adopt(v, f, err)
	case v.Device != "":
		return mountDevice(v)
	}
	return openImage(v, keep)
}

// mountDevice mounts a device that nobody uses: the kernel would show its filesystem
// in both places.
func mountDevice(v service.Volume) (*os.File, error) {
	fd, err := unix.Open(v.Device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err == unix.EBUSY {
		return nil, &refusal{fmt.Errorf("%s is in use", v.Device), "see where it is mounted: findmnt " + v.Device + ", and vsrun show of other virtual servers"}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", v.Device, err)
	}
	unix.Close(fd)
	return mount(v.Filesystem(), map[string]string{"source": v.Device})
}

// mount mounts a filesystem by options, those of mount(8) and "source".
func mount(fstype string, options map[string]string) (*os.File, error) {
	ctx, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot use %s: %w", fstype, err)
	}
	defer unix.Close(ctx)
	for name, value := range options {
		if err := unix.FsconfigSetString(ctx, name, value); err != nil {
			return nil, fmt.Errorf("cannot set %s=%s for %s: %w", name, value, fstype, err)
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return nil, fmt.Errorf("cannot mount %s as %s: %w", or(options["source"], "memory"), fstype, err)
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), fstype), nil
}

// adopt gives a new filesystem's root the owner and mode of what it is to cover.
func adopt(v service.Volume, f *os.File, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	like, err := os.Stat(v.Path)
	if err != nil || !like.IsDir() { // made in the virtual server, or refused there
		return f, nil
	}
	root, err := os.Open(self(f)) // fsmount(2) opens for paths only
	if err == nil {
		st := like.Sys().(*syscall.Stat_t)
		err = unix.Fchown(int(root.Fd()), int(st.Uid), int(st.Gid))
		if err == nil || err == unix.EINVAL { // EINVAL: an owner that this user namespace does not know
			err = root.Chmod(like.Mode() & (fs.ModePerm | fs.ModeSetgid | fs.ModeSticky))
		}
		root.Close()
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot make it as %s is: %w", v.Path, err)
	}
	return f, nil
}

// self is the open file by a name that can be opened again.
func self(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

func or(value, standard string) string {
	if value == "" {
		return standard
	}
	return value
}
