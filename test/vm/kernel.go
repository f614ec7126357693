package main

import (
	"debug/elf"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed init.sh
var initScript string

//go:embed kernel.go
var kernelSource string

// bootModules are what the init needs to find the disks. The others are loaded
// from a disk when the kernel asks for them.
var bootModules = []string{"virtio_pci", "virtio_blk", "virtio_console", "ext4"}

// kernel is a directory with vmlinuz, initrd and modules, a disk.
func (c cache) kernel(version string) (string, error) {
	return c.get("kernel-"+version, []string{kernelSource, initScript}, func(dir string) error {
		tree := filepath.Join(dir, "tree")
		defer os.RemoveAll(tree)
		if err := fetchKernel(version, tree); err != nil {
			return err
		}
		return buildKernel(dir, tree)
	})
}

// errNoKernel: the archives answered, and do not have it.
var errNoKernel = errors.New("this kernel cannot be had")

// fetchKernel gets Debian's kernel for virtual machines in clouds: it boots
// twice as fast as the one for any hardware.
func fetchKernel(version, tree string) error {
	room := filepath.Join(tree, "apt")
	a, err := newApt(room)
	if err != nil {
		return err
	}
	defer os.RemoveAll(room)
	name, err := a.newest("linux-image-"+version+".", "-cloud-amd64")
	if err != nil {
		return err
	}
	if name == "" {
		return fmt.Errorf("%w: no archive of this machine's apt has a package linux-image-%s.*-cloud-amd64", errNoKernel, version)
	}
	return a.fetch(name, tree)
}

func buildKernel(dir, tree string) error {
	images, _ := filepath.Glob(filepath.Join(tree, "boot/vmlinuz-*"))
	if len(images) != 1 {
		return fmt.Errorf("the package has %d kernels", len(images))
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	if _, err := commandOutput("", "depmod", "-b", tree, release); err != nil {
		return err
	}
	if err := os.Rename(images[0], filepath.Join(dir, "vmlinuz")); err != nil {
		return err
	}
	if err := buildInitrd(dir, tree, release); err != nil {
		return err
	}
	_, err := commandOutput("", "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal",
		"-d", filepath.Join(tree, "lib/modules"), filepath.Join(dir, "modules"), "1G")
	return err
}

func buildInitrd(dir, tree, release string) error {
	room := filepath.Join(tree, "initrd")
	for _, sub := range []string{"bin", "proc", "sys", "dev", "root", "modules"} {
		if err := os.MkdirAll(filepath.Join(room, sub), 0o755); err != nil {
			return err
		}
	}
	if err := copyModules(room, tree, release); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(room, "init"), []byte(initScript), 0o755); err != nil {
		return err
	}
	busybox, err := staticBusybox()
	if err != nil {
		return err
	}
	if _, err := commandOutput("", "cp", busybox, filepath.Join(room, "bin/busybox")); err != nil {
		return err
	}
	_, err = commandOutput(room, "sh", "-c", `find . | cpio --quiet -o -H newc -R 0:0 >"$1"`, "sh", filepath.Join(dir, "initrd"))
	return err
}

// staticBusybox finds a busybox that needs no library: the initrd has none.
func staticBusybox() (string, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return "", fmt.Errorf("%w\nhint: test/install vm", err)
	}
	f, err := elf.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if f.Section(".interp") != nil {
		return "", fmt.Errorf("%s needs libraries\nhint: apt-get install busybox-static", path)
	}
	return path, nil
}

// copyModules unpacks the modules for booting, and lists them in the order in
// which they have to be loaded.
func copyModules(room, tree, release string) error {
	loads, err := commandOutput("", append([]string{"modprobe", "-C", "/dev/null", "-d", tree, "-S", release,
		"--show-depends", "--all"}, bootModules...)...)
	if err != nil {
		return err
	}
	var order strings.Builder
	seen := map[string]bool{}
	for line := range strings.Lines(loads) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "insmod" || seen[f[1]] { // else it is built in
			continue
		}
		seen[f[1]] = true
		name := strings.TrimSuffix(filepath.Base(f[1]), ".xz")
		if err := unpack(f[1], filepath.Join(room, "modules", name)); err != nil {
			return err
		}
		fmt.Fprintln(&order, name)
	}
	return os.WriteFile(filepath.Join(room, "modules/order"), []byte(order.String()), 0o644)
}

func unpack(from, to string) error {
	reader := "cat"
	if strings.HasSuffix(from, ".xz") {
		reader = "xzcat"
	}
	text, err := exec.Command(reader, from).Output()
	if err != nil {
		return fmt.Errorf("cannot unpack %s: %w", from, err)
	}
	return os.WriteFile(to, text, 0o644)
}
