package service

import (
	"os"
	"strings"
	"testing"
)

// A service that is root can rename what a mount point is in, and make symlinks: none
// of these leads what the init mounts elsewhere.
func TestPrivateStaysInItsPlace(t *testing.T) {
	v := up(t)
	a, b := sh("a", "exec sleep 1000"), sh("b", "exec sleep 1000")
	a.Private, b.Private = []string{"/run/x/a"}, []string{"/run/b"}
	if err := v.Set(t.Context(), []Service{a}); err != nil {
		t.Fatal(err)
	}
	etc := v.output("ls /etc")
	v.output("mv /run/x /run/y; mkdir /run/x; ln -s /etc /run/x/a")
	if err := v.Set(t.Context(), []Service{a, b}); err == nil || !strings.Contains(err.Error(), "/run/x/a") {
		t.Errorf("with a symlink in the way: %v", err)
	}
	if got := v.output("ls /etc"); got != etc {
		t.Errorf("/etc is %q, was %q", got, etc)
	}
	v.output("rm -r /run/x; mv /run/y /run/x; ln -s /etc /run/s")
	if err := v.Set(t.Context(), []Service{a, b}); err != nil {
		t.Errorf("with nothing in the way: %v", err)
	}

	// Nor where it is made first, in memory or in a private directory.
	if err := os.MkdirAll("/srv/trap", 0o755); err != nil {
		t.Fatal(err)
	}
	a.Private = append(a.Private, "/srv/trap")
	if err := v.Set(t.Context(), []Service{a, b}); err != nil {
		t.Fatal(err)
	}
	v.output("ln -s /etc /srv/trap/s")
	for _, path := range []string{"/run/s", "/run/s/d", "/srv/trap/s"} {
		b.Private = []string{path}
		if err := v.Set(t.Context(), []Service{a, b}); err == nil {
			t.Errorf("a private %s is taken", path)
		}
		if got := v.output("ls /etc"); got != etc {
			t.Errorf("%s: /etc is %q, was %q", path, got, etc)
		}
	}
}

func TestFilesStayInTheirPlace(t *testing.T) {
	const host = "/etc/healed.conf"
	write(t, host, hostsText)
	defer os.Remove(host)
	v := up(t)
	files := []File{{Path: "/run/deep/healed.conf", Content: "a\n"}, {Path: host, Content: "b\n"}}
	v.output("ln -s /etc /run/s")
	if err := v.Lay(t.Context(), []File{{Path: "/run/s/healed.conf"}}); err == nil {
		t.Error("a file is laid through a symlink of the virtual server's own")
	}
	if err := v.Lay(t.Context(), files); err != nil {
		t.Fatal(err)
	}
	v.output("mv /run/deep /run/other; ln -s /etc /run/deep")
	for range 2 {
		write(t, host+".new", hostsText)
		if err := os.Rename(host+".new", host); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is healed", func() bool { return v.output("cat "+host) == "b" })
	}
	if err := v.Lay(t.Context(), files[:1]); err != nil {
		t.Fatal(err)
	}
	if got := v.output("cat " + host); got != strings.TrimSpace(hostsText) {
		t.Errorf("with the other file over it: %q", got)
	}
}
