package service

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An init is found and ended without its socket, and when nobody can talk to it.
func TestFind(t *testing.T) {
	for name, lose := range map[string]func(*virtual) error{
		"its socket removed": func(v *virtual) error { return os.Remove(v.socket) },
		"nothing lost":       func(v *virtual) error { return nil },
		"its queue full": func(v *virtual) error {
			if err := unix.Kill(v.Pid(), unix.SIGSTOP); err != nil {
				return err
			}
			for {
				if c, err := Dial(v.socket); err == nil {
					c.Close()
				} else if errors.Is(err, ErrSilent) {
					return nil
				} else {
					return err
				}
			}
		},
	} {
		v := up(t, sh("a", "exec sleep 1000"))
		main := v.unit("a").Pid
		if err := lose(v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c, err := Find(v.cfg.LogDir, v.socket)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c.Pid() != v.Pid() {
			t.Errorf("%s: found process %d, not %d", name, c.Pid(), v.Pid())
		}
		if in, err := c.InNamespace(v.ns); !in || err != nil {
			t.Errorf("%s: in its namespace: %v, %v", name, in, err)
		}
		began := time.Now()
		killed, err := c.Shutdown(t.Context(), time.Second)
		if hung := name == "its queue full"; err != nil || (killed != nil) != hung {
			t.Errorf("%s: killed %q, %v", name, killed, err)
		}
		if took := time.Since(began); took > 8*time.Second || exists(main) {
			t.Errorf("%s: it took %v, and a service lives: %v", name, took, exists(main))
		}
		if _, err := Find(v.cfg.LogDir, v.socket); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s, ended: %v", name, err)
		}
		c.Close()
	}
	// One that ends while it is looked at.
	v := up(t)
	conn, err := connect(v.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := v.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p, err := peerProcess(conn); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a dead peer: %v, %v", p, err)
	}
	if !hungUp(conn) {
		t.Error("a dead peer's connection is not hung up")
	}
	if _, err := Find("/run/absent", "/run/absent/init.sock"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("nobody's: %v", err)
	}
}
