package main

import (
	_ "embed"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// beside are packages of the image beyond those that the tests need: to load
// modules, to boot by systemd, and for a person in a shell.
var beside = []string{"kmod", "systemd", "tcpdump"}

// furnish makes a Debian system what the tests want to find.
//
// The options are those that systemd brings: else loading one of these modules
// makes a device of its kind. No daemon starts at boot: the tests start them.
const furnish = `
mkdir -p "$1/vm" "$1/lib/modules"
for option in 'bonding max_bonds=0' 'dummy numdummies=0' 'ifb numifbs=0'; do
	echo "options $option"
done >"$1/etc/modprobe.d/vm.conf"
rm -rf "$1"/etc/systemd/system/*.wants
`

//go:embed image.go
var imageSource string

// image is a directory with image, a disk with the machine's release of Debian.
func (c cache) image(root string) (string, error) {
	listed, err := commandOutput(root, "test/install", "--list", "base", "web", "files", "nfs")
	if err != nil {
		return "", err
	}
	release, err := commandOutput("", "sh", "-c", `. /etc/os-release && echo "$VERSION_CODENAME"`)
	if err != nil {
		return "", err
	}
	release = strings.TrimSpace(release)
	packages := append(strings.Fields(listed), beside...)
	return c.get("image", append([]string{imageSource, release}, packages...), func(dir string) error {
		return buildImage(dir, release, packages)
	})
}

func buildImage(dir, release string, packages []string) error {
	if os.Getuid() != 0 {
		return errors.New("its files belong to root and others\nhint: make it as root, once: sudo bin/vm -build")
	}
	a := apt{dir}
	if err := a.writeSources(); err != nil {
		return err
	}
	tree := filepath.Join(dir, "tree")
	defer os.RemoveAll(tree)
	// It mounts, which is nobody else's to see: tests of the host run meanwhile.
	if _, err := commandOutput(dir, "unshare", "--mount", "mmdebstrap", "--quiet", "--variant=minbase",
		"--include="+strings.Join(packages, ","), "--customize-hook="+furnish,
		release, tree, a.sources()); err != nil {
		return err
	}
	_, err := commandOutput("", "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal",
		"-d", tree, filepath.Join(dir, "image"), "2G")
	return err
}
