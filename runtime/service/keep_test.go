package service

import (
	"errors"
	"os"
	"testing"
)

// A private directory that is made takes over none that is there, whatever that is
// called, and changes none that a service has made a symlink to.
func TestPrivateIsMadeApart(t *testing.T) {
	v := plan(t)
	left := v.cfg.PrivateDir + ".new" // by a crash
	if err := errors.Join(os.MkdirAll(left, 0o700), os.WriteFile(left+"/file", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	v.begin()
	use := func(dirs ...string) error {
		s := sh("a", "exec sleep 1000")
		s.Private = dirs
		return v.Set(t.Context(), []Service{s})
	}
	had := []string{"/run/d.new", "/run/victim", "/run/outer"}
	if err := use(had...); err != nil {
		t.Fatal(err)
	}
	if got := v.output("ls /run/d.new"); got != "" {
		t.Errorf("what a crash left is shown: %q", got)
	}
	v.output("echo data >/run/d.new/file; chmod 700 /run/victim; echo data >/run/victim/file; ln -s ../victim /run/outer/inner.new")
	if err := use(append(had, "/run/d", "/run/outer/inner")...); err != nil {
		t.Fatal(err)
	}
	if got := v.output("ls /run/d /run/outer/inner; cat /run/d.new/file; stat -c %a /run/victim"); got != "/run/d:\n\n/run/outer/inner:\ndata\n700" {
		t.Errorf("inside: %q", got)
	}
	if _, err := os.Lstat(left); err == nil {
		t.Errorf("%s is still there", left)
	}

	// What a service has as a symlink is not what is kept by that name, once that is
	// mounted where nothing of the service's is.
	v.output("ln -s ../victim /run/outer/stolen")
	if err := use(); err != nil {
		t.Fatal(err)
	}
	if err := use("/run/outer/stolen"); err == nil {
		t.Errorf("it has another's: %q", v.output("cat /run/outer/stolen/file"))
	}
}
