package service

import (
	"strings"
	"testing"
)

func TestValidateVolumes(t *testing.T) {
	const none = ""
	for _, c := range []struct {
		v    Volume
		want string
	}{
		{Volume{Path: "/srv", Size: "1M"}, none},
		{Volume{Path: "/srv", Size: "4K", Type: "tmpfs"}, none},
		{Volume{Path: "/srv", Size: "1G", Type: "xfs"}, none},
		{Volume{Path: "/srv", Device: "/dev/vg0/a"}, none},
		{Volume{Path: "/srv", Device: "/dev/vg0/a", Type: "f2fs"}, none},
		{Volume{Size: "1M"}, `path: "" is not an absolute path`},
		{Volume{Path: "/srv/", Size: "1M"}, `path: "/srv/" is to be written "/srv"`},
		{Volume{Path: "/", Size: "1M"}, `path: "/" cannot be private`},
		{Volume{Path: "/proc/a", Size: "1M"}, `path: "/proc/a" is the virtual server's own anyway`},
		{Volume{Path: "/srv"}, "size: is missing"},
		{Volume{Path: "/srv", Size: "many"}, `size: "many" is no amount of bytes: a number, or one with K, M, G or T`},
		{Volume{Path: "/srv", Size: "512K"}, `size: "512K" is too small for a filesystem: 1M at least`},
		{Volume{Path: "/srv", Size: "1G", Type: "vfat"}, `type: "vfat" is none of ext4, xfs, btrfs, tmpfs`},
		{Volume{Path: "/srv", Device: "sda1"}, `device: "sda1" is not a clean absolute path`},
		{Volume{Path: "/srv", Device: "/dev/sda1", Size: "1G"}, "size: goes with no device, which has one"},
		{Volume{Path: "/srv", Device: "/dev/sda1", Type: "tmpfs"}, `type: "tmpfs" is on no device`},
		{Volume{Path: "/srv", Device: "/dev/sda1", Type: "../a"}, `type: "../a" is on no device`},
	} {
		var got []string
		for _, p := range ValidateVolumes([]Volume{c.v}) {
			got = append(got, strings.TrimPrefix(p.Error(), "volumes[0]."))
		}
		if strings.Join(got, "; ") != c.want {
			t.Errorf("%+v: %q, want %q", c.v, got, c.want)
		}
	}
	two := ValidateVolumes([]Volume{{Path: "/a", Device: "/dev/b"}, {Path: "/c", Device: "/dev/b"}})
	if len(two) != 1 || two[0].Error() != `volumes[1].device: "/dev/b" is there twice` {
		t.Errorf("%v", two)
	}
}
