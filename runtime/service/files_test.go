package service

import (
	"io"
	"os"
	"strings"
	"testing"
)

func TestFiles(t *testing.T) {
	const host, linked, fresh = "/etc/daemon.conf", "/etc/linked.conf", "/run/deep/daemon.conf"
	write(t, host, hostsText)
	defer os.Remove(host)
	write(t, "/etc/real.conf", hostsText)
	defer os.Remove("/etc/real.conf")
	if err := os.Symlink("real.conf", linked); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(linked)
	v, other := up(t), up(t)
	lay := func(files ...File) {
		t.Helper()
		if err := v.Lay(t.Context(), files); err != nil {
			t.Fatal(err)
		}
	}
	secret := File{Path: fresh, Content: "secret\n", Mode: "600"}
	lay(File{Path: host, Content: "one\n"}, File{Path: linked, Content: "two\n"}, secret)
	all := func() string { return v.output("cd /etc; cat daemon.conf linked.conf real.conf " + fresh) }
	const want = "one\ntwo\ntwo\nsecret"
	if got := all(); got != want {
		t.Errorf("inside: %q", got)
	}
	if got := v.output("stat -c '%a %u' " + host + " " + fresh); got != "644 0\n600 0" {
		t.Errorf("modes and owners: %q", got)
	}
	for _, path := range []string{host, linked, fresh} {
		if _, code := v.run("sh", "-c", "echo x >>"+path); code == 0 {
			t.Errorf("%s can be written", path)
		}
	}
	if got := other.output("cat " + host + " " + linked); got != strings.TrimSpace(hostsText+hostsText) {
		t.Errorf("another sees %q", got)
	}
	if _, code := other.run("grep", "-r", "secret", "/run", "/tmp"); code == 0 {
		t.Error("another sees the secret")
	}
	if got := read(t, host); got != hostsText {
		t.Errorf("the host's: %q", got)
	}

	// The host may replace its own, and what they are linked to.
	write(t, host+".new", hostsText)
	if err := os.Rename(host+".new", host); err != nil {
		t.Fatal(err)
	}
	eventually(t, "they are its own again", func() bool { return all() == want })

	// Changed, it is another file: who has the old one open reads nothing of the new
	// one, which may be for fewer to read. With its digest the init tells.
	old, err := os.Open(v.init.proc("root" + host))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	changed := File{Path: host, Content: "three\n", Mode: "640"}
	lay(changed, secret)
	if got := v.output("cat " + host + "; stat -c %a " + host); got != "three\n640" {
		t.Errorf("changed: %q", got)
	}
	if got, err := io.ReadAll(old); err != nil || string(got) != "one\n" {
		t.Errorf("the old one, open: %q, %v", got, err)
	}
	if got := v.output("grep -c ' " + host + " ' /proc/self/mountinfo"); got != "1" {
		t.Errorf("mounted there: %s", got)
	}
	if got := v.output("cat " + linked); got != strings.TrimSpace(hostsText) {
		t.Errorf("dropped, it is still %q", got)
	}
	r, err := v.Report(t.Context())
	if err != nil || len(r.Files) != 2 || r.Files[0] != changed.Digest() || strings.Contains(r.Files[1].Content, "secret") {
		t.Errorf("reported: %+v, %v", r.Files, err)
	}
	lay()
	if got := v.output("cat " + host); got != strings.TrimSpace(hostsText) {
		t.Errorf("without files: %q", got)
	}
	if _, code := v.run("test", "-s", fresh); code == 0 {
		t.Error("the secret is still there")
	}
}

// A service that runs sees a file that is laid later, and what it was again when that
// is taken away, for all that it has a mount namespace of its own.
func TestFilesReachServices(t *testing.T) {
	const path = "/etc/late.conf"
	write(t, path, hostsText)
	defer os.Remove(path)
	for _, readOnly := range []bool{false, true} {
		v := up(t)
		s := sh("reader", "trap 'head -1 "+path+"' HUP; echo up; while :; do sleep 1000 & wait $!; done")
		s.Reload, s.ReadOnly = Reload{Signal: "HUP"}, readOnly
		if err := v.Set(t.Context(), []Service{s}); err != nil {
			t.Fatal(err)
		}
		said := "up\n"
		waitForLog(v, "reader", said)
		for _, step := range []struct {
			files []File
			want  string
		}{
			{[]File{{Path: path, Content: "one\n"}}, "one\n"},
			{[]File{{Path: path, Content: "two\n"}}, "two\n"},
			{nil, hostsText[:strings.Index(hostsText, "\n")+1]},
		} {
			if err := v.Lay(t.Context(), step.files); err != nil {
				t.Fatal(err)
			}
			if err := v.ReloadService(t.Context(), "reader"); err != nil {
				t.Fatal(err)
			}
			said += step.want
			waitForLog(v, "reader", said)
		}
	}
}

func TestFilesThatCannotBeLaid(t *testing.T) {
	v := up(t)
	if err := os.Symlink("/etc/hostname", "/etc/alias"); err != nil {
		t.Fatal(err)
	}
	defer os.Remove("/etc/alias")
	for path, want := range map[string]string{
		"/etc/absent": "cannot lay /etc/absent: /etc/absent does not exist on this host: create an empty one, or choose a path below /run",
		"/etc/alias":  "it leads to /etc/hostname, as /etc/hostname does",
		"/etc":        "not a directory",
	} {
		err := v.Lay(t.Context(), []File{{Path: path, Content: "x"}, {Path: "/run/good", Content: "good"}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
		if got := v.output("cat /run/good"); got != "good" {
			t.Errorf("beside %s: %q", path, got)
		}
	}
	if r, err := v.Report(t.Context()); err != nil || len(r.Files) != 1 {
		t.Errorf("reported: %+v, %v", r.Files, err)
	}
}

func TestValidateFiles(t *testing.T) {
	services := []Service{{Name: "a", Command: []string{"a"}, Private: []string{"/var/lib/a"}}}
	half := strings.Repeat("x", maxFiles/2)
	for _, c := range []struct {
		files []File
		want  string
	}{
		{[]File{{Path: "/etc/a", Content: half, Mode: "0600"}, {Path: "/run/b", Content: half}}, ""},
		{[]File{{}}, "files[0].path: is missing"},
		{[]File{{Path: "etc/a"}}, `files[0].path: "etc/a" is not an absolute path`},
		{[]File{{Path: "/etc/a/../b"}}, `files[0].path: "/etc/a/../b" is to be written "/etc/b"`},
		{[]File{{Path: "/sys/a"}}, "own anyway"},
		{[]File{{Path: "/etc/hosts"}}, "says what name and dns say"},
		{[]File{{Path: "/var/lib/a/b"}}, "in the private directory /var/lib/a"},
		{[]File{{Path: "/a"}, {Path: "/a"}}, "files[1].path: \"/a\" is there twice"},
		{[]File{{Path: "/a", Mode: "8"}}, `files[0].mode: "8" is not an octal number up to 777`},
		{[]File{{Path: "/a", Mode: "4755"}}, "files[0].mode"},
		{[]File{{Path: "/a", Content: "\xff"}}, "files[0].content: is no text in UTF-8"},
		{[]File{{Path: "/a", Content: half}, {Path: "/b", Content: half + "x"}}, "files[1].content: makes it more than 128 KiB in all files"},
	} {
		problems := ValidateFiles(c.files, services)
		switch {
		case c.want == "" && len(problems) > 0, c.want != "" && len(problems) != 1:
			t.Errorf("%+v", problems)
		case c.want != "" && !strings.Contains(problems[0].Error(), c.want):
			t.Errorf("%v, want %s", problems[0], c.want)
		}
	}
}
