package lab

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// labDir is the lab's own room in the host's /run.
	labDir   = "/run/lab"
	netnsDir = "/run/netns"
	// seenDir is the host's, and virtual servers see it.
	seenDir = "/srv"
)

// furnish makes the new namespaces a host: mounts of its own, a name, loopback.
func furnish() error {
	// Daemons live in sbin, which an ordinary user's PATH may lack.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
	if err := unix.Sethostname([]byte("lab")); err != nil {
		return fmt.Errorf("cannot set the host name: %w", err)
	}
	if err := furnishMounts(); err != nil {
		return err
	}
	if r := run("", "ip", "link", "set", "lo", "up"); r.Code != 0 {
		return fmt.Errorf("cannot bring loopback up: %s", r.Stderr)
	}
	return nil
}

// A mountStep is one mount(2).
type mountStep struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func furnishMounts() error {
	const plain = unix.MS_NOSUID | unix.MS_NODEV
	if err := (mountStep{target: "/", flags: unix.MS_REC | unix.MS_PRIVATE}).do(); err != nil {
		return err
	}
	// What the machine has in there, cgroups above all, would still be listed in
	// mountinfo. An ordinary user may not unmount it, and lives with that.
	unix.Unmount("/sys", unix.MNT_DETACH)
	unix.Unmount("/proc", unix.MNT_DETACH)
	for _, m := range []mountStep{
		{"proc", "/proc", "proc", plain | unix.MS_NOEXEC, ""},
		{"sysfs", "/sys", "sysfs", plain | unix.MS_NOEXEC, ""},
		{"tmpfs", "/run", "tmpfs", plain, "mode=755"},
		{"tmpfs", seenDir, "tmpfs", plain, "mode=755"},
		// As iproute2 makes it on first use; done here, it is there before
		// and after a test alike (see ip/ipnetns.c, netns_add).
		{source: netnsDir, target: netnsDir, flags: unix.MS_BIND},
		{target: netnsDir, flags: unix.MS_SHARED},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	// The second is where mount(8) and umount(8) keep their notes.
	return errors.Join(os.MkdirAll(nsDir, 0o755), os.MkdirAll("/run/mount", 0o755))
}

func (m mountStep) do() error {
	if strings.HasPrefix(m.target, "/run/") {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
		return fmt.Errorf("cannot mount %s: %w", m.target, err)
	}
	return nil
}
