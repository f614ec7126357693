package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// A service with the settings that it has by itself stays where it is.
func TestEscapes(t *testing.T) {
	s := newSite(t)
	for _, id := range []string{"8", "9"} {
		s.MustVsrun(t, "create", id, "--no-probe", "--port", "eth1", "--address", "192.0.2."+id+"/24", "--address", "2001:db8::"+id+"/64")
	}
	dir := s.Dir(t)
	program := filepath.Join(dir, "escape")
	copyProgram(t, program)
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("theirs"), 0); err != nil {
		t.Fatal(err)
	}
	add(t, s, "9", "other", strings.Fields(otherCommand), "--private", "/run/other")
	listenAbstract(t, nil, "@vsrun-test-host")
	listenAbstract(t, s.In("vs9"), "@vsrun-test-other")
	s.Start(t, append([]string{filepath.Join(lab.Programs(t), "vsrun"), "exec", "8", "--"}, strings.Fields(visitorCommand)...)...)
	capture := s.client.Capture(t)
	targets := []string{
		s.StateDir + "/vs9.json", s.StateDir + "/vs9/log/other.log", s.StateDir + "/vs9/private", s.StateDir + "/vs8/log",
		s.RunDir + "/vs8/init.sock", s.RunDir + "/vs9/init.sock", "/run/other", "/run/lab",
	}
	for _, tt := range []struct {
		name     string
		flags    []string
		possible string // what these settings are for, besides
	}{
		{"root", nil, ""},
		{"user", []string{"--user", "65533"}, ""},
		{"read-only", []string{"--read-only"}, ""},
		{"nginx", []string{"--capability", "nginx"}, "take a port below 1024, become another user, give a file away"},
		{"vsftpd", []string{"--capability", "vsftpd"}, "take a port below 1024, become another user"},
		{"unfiltered", []string{"--syscalls", "all"}, ""},
	} {
		if lab.SingleUser() { // the init is no other
			tt.possible += ", signal the init"
		}
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "user" || strings.Contains(tt.possible, "another user") {
				lab.NeedRoot(t, "there is another user then")
			}
			add(t, s, "8", tt.name, []string{program}, append([]string{"--restart", "never",
				"--env", escapeVar + "=" + secret, "--env", targetVar + "=" + strings.Join(targets, ":")}, tt.flags...)...)
			soon(t, func() error {
				if now := s.service(t, "8", tt.name); now.State != "finished" {
					return fmt.Errorf("%+v", now)
				}
				return nil
			})
			if frames := capture.Frames(spoofed); tt.name != "unfiltered" && len(frames) > 0 {
				t.Errorf("on the wire there is %v", frames)
			}
			said := s.MustVsrun(t, "logs", "8", tt.name)
			for _, e := range attempts {
				_, why, tried := strings.Cut("\n"+said, "\n"+e.name+"\t")
				why, _, _ = strings.Cut(why, "\n")
				escaped, possible := why == "ESCAPED", strings.Contains(tt.possible, e.name)
				t.Logf("%-50s %-10s %s", e.name, e.by, why)
				switch {
				case !tried:
					t.Errorf("it has not tried to %s", e.name)
				case escaped && !possible && !(e.by == filter && tt.name == "unfiltered"):
					t.Errorf("it could %s", e.name)
				case !escaped && possible:
					t.Errorf("it could not %s: %s", e.name, why)
				}
			}
		})
	}
	if frames := capture.Await(1, 10*time.Second, spoofed); len(frames) == 0 {
		t.Error("without the filter nothing is sent from another address: does this test see it?")
	}
	for _, id := range []string{"8", "9"} {
		if err := reach(s.client, "192.0.2."+id); err != nil {
			t.Error(err)
		}
	}
}

// spoofed holds for frames from an address that no virtual server here has.
func spoofed(f lab.Frame) bool {
	return bytes.Contains(f.Payload, []byte("spoofed"))
}

// copyProgram copies the test binary to where virtual servers see it.
func copyProgram(t *testing.T, to string) {
	t.Helper()
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// listenAbstract listens in a network namespace, on the host where at is nil.
func listenAbstract(t *testing.T, at *lab.Client, name string) {
	t.Helper()
	var l net.Listener
	make := func() (err error) { l, err = net.Listen("unix", name); return err }
	var err error
	if at == nil {
		err = make()
	} else {
		err = at.Do(make)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}
