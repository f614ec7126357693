package service

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Volume is a directory that a virtual server has for itself, and that is a
// filesystem of its own: with a size, and nothing in it can be reached but through
// it. It is seen by nobody else, not even on the host.
type Volume struct {
	// Path is where the virtual server has it: a directory of the host's, or one
	// below those that are in memory (see Config.Share).
	Path string `json:"path" yaml:"path"`
	// Size is in bytes, or with K, M, G or T. An image is a sparse file that is kept
	// with the virtual server, and may grow (ext4 alone) but not shrink. A Device
	// has a size already.
	Size string `json:"size,omitempty" yaml:"size,omitempty"`
	// Type is ext4 (when empty), xfs or btrfs in an image, or tmpfs, in memory; on a
	// Device, any that the kernel has.
	Type string `json:"type,omitempty" yaml:"type,omitempty"`
	// Device is a block device that holds a filesystem; nothing of ours makes one there.
	Device string `json:"device,omitempty" yaml:"device,omitempty"`
}

// Tmpfs is the type of a volume in memory.
const Tmpfs = "tmpfs"

// imageTypes are what an image can hold.
var imageTypes = []string{"ext4", "xfs", "btrfs"}

// Filesystem is the type, ext4 when nothing is said.
func (v Volume) Filesystem() string { return or(v.Type, imageTypes[0]) }

// Bytes is the size, 0 when there is none.
func (v Volume) Bytes() int64 {
	n, _ := parseBytes(v.Size)
	return n
}

// same reports whether both are one volume, however it is written.
func (v Volume) same(o Volume) bool {
	return v.Path == o.Path && v.Bytes() == o.Bytes() && v.Filesystem() == o.Filesystem() && v.Device == o.Device
}

// ValidateVolumes reports everything that is wrong with a list of volumes and can
// be told without the kernel.
func ValidateVolumes(volumes []Volume) []Problem {
	var problems []Problem
	for i, v := range volumes {
		for _, p := range v.validate() {
			problems = append(problems, Problem{fmt.Sprintf("volumes[%d].%s", i, p.Path), p.Err})
		}
		if slices.ContainsFunc(volumes[:i], func(o Volume) bool { return o.Path == v.Path }) {
			problems = append(problems, Problem{fmt.Sprintf("volumes[%d].path", i), fmt.Errorf("%q is there twice", v.Path)})
		}
		if v.Device != "" && slices.ContainsFunc(volumes[:i], func(o Volume) bool { return o.Device == v.Device }) {
			problems = append(problems, Problem{fmt.Sprintf("volumes[%d].device", i), fmt.Errorf("%q is there twice", v.Device)})
		}
	}
	return problems
}

// leastImage is what every filesystem of an image has room in, more or less.
const leastImage = 1 << 20

func (v Volume) validate() []Problem {
	var problems []Problem
	add := func(path string, err error) {
		if err != nil {
			problems = append(problems, Problem{path, err})
		}
	}
	add("path", checkPrivate(v.Path))
	size, err := parseBytes(v.Size)
	add("size", err)
	switch {
	case v.Device != "":
		add("device", checkDevice(v.Device))
		if v.Size != "" {
			add("size", errors.New("goes with no device, which has one"))
		}
		if v.Type == Tmpfs || strings.IndexFunc(v.Type, func(r rune) bool { return !isAlnum(r) }) >= 0 {
			add("type", fmt.Errorf("%q is on no device", v.Type))
		}
		return problems
	case v.Size == "":
		add("size", errors.New("is missing"))
	case v.Type != Tmpfs && err == nil && size < leastImage:
		add("size", fmt.Errorf("%q is too small for a filesystem: 1M at least", v.Size))
	}
	if v.Type != "" && v.Type != Tmpfs && !slices.Contains(imageTypes, v.Type) {
		add("type", fmt.Errorf("%q is none of %s, %s", v.Type, strings.Join(imageTypes, ", "), Tmpfs))
	}
	return problems
}

func checkDevice(p string) error {
	if !path.IsAbs(p) || path.Clean(p) != p || checkText(p) != nil {
		return fmt.Errorf("%q is not a clean absolute path", p)
	}
	return nil
}

// openVolumes gives the volumes that were handed over a place in the room: from there
// they are bound to where they are to be seen.
func (m *mounts) openVolumes(r room, volumes []Volume) error {
	for i, v := range volumes {
		dir, err := r.mkdir("volume" + strconv.Itoa(i))
		if err != nil {
			return err
		}
		mnt := volumeFd + i
		err = unix.MoveMount(mnt, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
		unix.Close(mnt)
		if err != nil {
			return fmt.Errorf("cannot mount the volume %s: %w", v.Path, err)
		}
		source, err := os.Open(dir)
		if err != nil {
			return err
		}
		m.volumes = append(m.volumes, bind{target: v.Path, source: source})
	}
	slices.SortFunc(m.volumes, func(a, b bind) int { return strings.Compare(a.target, b.target) }) // parents first
	return nil
}

// showVolumes mounts them where they are to be seen.
func (m *mounts) showVolumes() error {
	for _, b := range m.volumes {
		target, err := m.follow(b.target)
		if err == nil {
			err = m.point(target, true)
		}
		if err == nil {
			_, err = os.Lstat(target)
		}
		if err != nil {
			return fmt.Errorf("cannot mount a volume: %w", missing(b.target, "create it", err))
		}
		if err := m.add(bind{target: target, source: b.source}); err != nil {
			return err
		}
	}
	m.volumes = nil
	return nil
}
