package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"github.com/coreos/go-systemd/v22/unit"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/runtime/service"
)

// Image is the file that a volume's filesystem is in, below keep.
func Image(v service.Volume, keep string) string {
	return filepath.Join(keep, unit.UnitNamePathEscape(v.Path)+".img")
}

// Check refuses what a volume cannot become, as far as that can be told. Mount comes
// later, when the virtual server's first process is started; and it takes an image
// that is larger than the volume, since what has grown cannot go back.
func Check(v service.Volume, keep string) error {
	if v.Type == service.Tmpfs || v.Device != "" {
		return nil
	}
	image := Image(v, keep)
	has, err := checkImage(v, image)
	if err == nil && has > v.Bytes() {
		err = &refusal{fmt.Errorf("its image has %d bytes and cannot shrink to %s", has, v.Size), otherVolume("size")}
	}
	if errors.Is(err, fs.ErrNotExist) {
		_, err = program(v)
	}
	if err != nil {
		return fmt.Errorf("cannot make the volume %s: %w", v.Path, err)
	}
	return nil
}

func otherVolume(what string) string {
	return "give it its " + what + " back, or make a second volume and move the data there"
}

// checkImage refuses an image of another type, or one that cannot grow, and returns
// how many bytes its filesystem has.
func checkImage(v service.Volume, image string) (int64, error) {
	fstype, err := typeOf(image)
	if err != nil {
		return 0, err
	}
	if fstype != v.Filesystem() {
		return 0, &refusal{fmt.Errorf("its image holds %s, not %s", or(fstype, "another filesystem"), v.Filesystem()), otherVolume("type")}
	}
	has, err := size(image, fstype)
	if err == nil && has < v.Bytes() && fstype != "ext4" {
		err = &refusal{fmt.Errorf("%s cannot grow to %s: only ext4 can", fstype, v.Size), otherVolume("size")}
	}
	return has, err
}

// typeOf is the filesystem that an image holds, "" for one that is not known, by what
// is at a place of it (magic(5) of file(1)).
func typeOf(image string) (string, error) {
	f, err := os.Open(image)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, sign := range []struct {
		fstype, text string
		at           int64
	}{{"ext4", "\x53\xef", 1024 + 56}, {"xfs", "XFSB", 0}, {"btrfs", "_BHRfS_M", 64<<10 + 64}} {
		there := make([]byte, len(sign.text))
		if _, err := f.ReadAt(there, sign.at); err == nil && string(there) == sign.text {
			return sign.fstype, nil
		}
	}
	return "", nil
}

// openImage mounts a volume's image. It has its name only when the filesystem in it
// is whole.
func openImage(v service.Volume, keep string) (*os.File, error) {
	image := Image(v, keep)
	if err := os.MkdirAll(keep, 0o700); err != nil {
		return nil, err
	}
	has, err := checkImage(v, image)
	if errors.Is(err, fs.ErrNotExist) {
		has, err = v.Bytes(), makeImage(v, image)
	}
	if err != nil {
		return nil, err
	}
	if has < v.Bytes() {
		return grow(v, image)
	}
	return mountImage(v, image)
}

// A refusal is an error with a cure.
type refusal struct {
	error
	cure string
}

func (r *refusal) Hint() string { return r.cure }

func mountImage(v service.Volume, image string) (*os.File, error) {
	loop, err := attach(image)
	if err != nil {
		return nil, fmt.Errorf("cannot make a block device of %s: %w", image, err)
	}
	defer loop.Close() // the mount holds it from here on
	return mount(v.Filesystem(), map[string]string{"source": loop.Name()})
}

// makers are the programs that make a filesystem, told to be quiet and not to ask,
// and where they are to be had.
var makers = map[string]struct {
	argv []string
	from string
}{
	"ext4":  {[]string{"mkfs.ext4", "-q", "-F", "-m", "0"}, "e2fsprogs"},
	"xfs":   {[]string{"mkfs.xfs", "-q", "-f"}, "xfsprogs"},
	"btrfs": {[]string{"mkfs.btrfs", "-q", "-f"}, "btrfs-progs"},
}

// Unfinished ends the name of an image until its filesystem is whole.
const Unfinished = ".new"

func makeImage(v service.Volume, image string) (err error) {
	tmp := image + Unfinished
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp)
		}
	}()
	if err := blank(tmp, v.Bytes()); err != nil {
		return err
	}
	if err := format(v, tmp); err != nil {
		return err
	}
	f, err := mountImage(v, tmp)
	if f, err = adopt(v, f, err); err != nil {
		return err
	}
	f.Close() // and so it is unmounted, and written
	if err := os.Rename(tmp, image); err != nil {
		return err
	}
	return syncDir(filepath.Dir(image))
}

// blank makes a file of that many bytes, none of which takes room yet.
func blank(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// program is what makes the filesystem.
func program(v service.Volume) (path string, err error) {
	maker := makers[v.Filesystem()]
	path, err = exec.LookPath(maker.argv[0])
	if err != nil {
		err = &refusal{fmt.Errorf("%s is not installed", maker.argv[0]), "install " + maker.from + ", or use another type"}
	}
	return path, err
}

func format(v service.Volume, image string) error {
	path, err := program(v)
	if err != nil {
		return err
	}
	argv := append(slices.Clone(makers[v.Filesystem()].argv), image)
	out, err := exec.Command(path, argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %s", argv[0], strings.Join(strings.Fields(string(out)), " "))
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// resizeFS grows a mounted ext4 to a number of its blocks (fs/ext4/ext4.h,
// EXT4_IOC_RESIZE_FS): _IOW('f', 16, __u64).
const resizeFS = 1<<30 | 8<<16 | 'f'<<8 | 16

// growing is a file that is there as long as an image may be larger than the
// filesystem in it.
func growing(image string) string { return image + ".growing" }

// size is how many bytes an image's filesystem has.
func size(image, fstype string) (int64, error) {
	fi, err := os.Stat(image)
	if err != nil {
		return 0, err
	}
	if _, err := os.Stat(growing(image)); err != nil || fstype != "ext4" {
		return fi.Size(), nil
	}
	return ext4Size(image)
}

// ext4Size reads it in the superblock (fs/ext4/ext4.h, struct ext4_super_block).
func ext4Size(image string) (int64, error) {
	f, err := os.Open(image)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var super [1024]byte
	if _, err := f.ReadAt(super[:], 1024); err != nil {
		return 0, err
	}
	field := func(at int) int64 { return int64(binary.LittleEndian.Uint32(super[at:])) }
	const blocksLo, logBlockSize, incompat, blocksHi, has64bit = 4, 24, 96, 0x150, 0x80
	blocks := field(blocksLo)
	if field(incompat)&has64bit != 0 {
		blocks |= field(blocksHi) << 32
	}
	return blocks << (10 + field(logBlockSize)), nil
}

// grow mounts an image that is to be larger than it is.
func grow(v service.Volume, image string) (*os.File, error) {
	err := os.WriteFile(growing(image), nil, 0o600)
	if err != nil {
		return nil, err
	}
	if fi, err := os.Stat(image); err != nil || fi.Size() < v.Bytes() {
		if err := errors.Join(err, os.Truncate(image, v.Bytes())); err != nil {
			return nil, err
		}
	}
	f, err := mountImage(v, image)
	if err != nil {
		return nil, err
	}
	if err := growMounted(f, v.Bytes()); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot grow it to %s: %w", v.Size, err)
	}
	return f, os.Remove(growing(image))
}

func growMounted(f *os.File, size int64) error {
	root, err := os.Open(self(f))
	if err != nil {
		return err
	}
	defer root.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &st); err != nil {
		return err
	}
	blocks := uint64(size / st.Bsize)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, root.Fd(), resizeFS, uintptr(unsafe.Pointer(&blocks)))
	if errno == unix.EPERM {
		return &refusal{errno, "run vsrun where it has CAP_SYS_RESOURCE; a filesystem with errors needs e2fsck first"}
	}
	if errno != 0 {
		return errno
	}
	return unix.Syncfs(int(root.Fd()))
}
