package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// dev is the directory of devices, one of those in memory: the host's disks and
// terminals are for those to open whose files they are, and a service may be root.
const dev = "/dev"

// devices are what every virtual server has of the host's, as
// systemd.exec(5) has it of PrivateDevices=.
var devices = []string{"null", "zero", "full", "random", "urandom", "tty"}

// fillDev makes what is in it, and pseudo-terminals of the virtual server's own.
func fillDev(dir string) error {
	for _, name := range devices {
		err := bindFile(filepath.Join(dev, name), filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot show /dev/%s: %w", name, err)
		}
	}
	for name, to := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
		"ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	pts := filepath.Join(dir, "pts")
	if err := os.Mkdir(pts, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("devpts", pts, "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=666,mode=620"); err != nil {
		return fmt.Errorf("cannot mount on %s: %w", pts, err)
	}
	return nil
}

// bindFile shows a file at another place.
func bindFile(source, target string) error {
	if _, err := os.Stat(source); err != nil {
		return err
	}
	if err := os.WriteFile(target, nil, 0o644); err != nil {
		return err
	}
	return unix.Mount(source, target, "", unix.MS_BIND, "")
}
