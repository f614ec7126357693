package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// attach makes a block device of a file (loop(4)): it is gone when nobody has it
// open or mounted any more. A device that shows the file already is taken instead:
// its filesystem may still be mounted, and two devices would mount it twice.
func attach(image string) (*os.File, error) {
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	loop, err := attached(file)
	if loop != nil || err != nil {
		return loop, err
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("no loop device is free: %w", err)
		}
		loop, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &unix.LoopConfig{
			Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR},
		})
		if err == nil {
			// Not to have everything in memory twice. Where it cannot be, it works without.
			_ = unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_DIRECT_IO, 1)
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody was faster
			return nil, err
		}
	}
}

// attached is the loop device that shows the file; nil when none does. Its size is
// looked at anew: the file may have grown.
func attached(file *os.File) (*os.File, error) {
	var want unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &want); err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		name := filepath.Base(filepath.Dir(dir))
		loop, err := os.OpenFile("/dev/"+strings.ReplaceAll(name, "!", "/"), os.O_RDWR, 0)
		if err != nil { // gone meanwhile
			continue
		}
		info, err := unix.IoctlLoopGetStatus64(int(loop.Fd()))
		if err == nil && info.Device == want.Dev && info.Inode == want.Ino && info.Offset == 0 {
			return loop, unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_CAPACITY, 0)
		}
		loop.Close()
	}
	return nil, nil
}
