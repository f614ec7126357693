package service

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestHostsText(t *testing.T) {
	want := "# made by vsrun\n127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 finance\n"
	if got := (Config{ID: 8, Hostname: "finance"}).hosts(); got != want {
		t.Errorf("%q", got)
	}
}

func TestHostsAndHostname(t *testing.T) {
	v := plan(t)
	v.cfg.Hostname = "finance"
	v.begin()
	files := func() string { return v.output("cat /etc/hostname /etc/hosts") }
	want := "finance\n" + strings.TrimSpace(v.cfg.hosts())
	if got := files(); got != want {
		t.Errorf("inside: %q", got)
	}
	for _, path := range []string{"/etc/hosts", "/etc/hostname"} {
		if _, code := v.run("sh", "-c", "echo x >>"+path); code == 0 {
			t.Errorf("%s can be written", path)
		}
		if got := read(t, path); got != hostsText {
			t.Errorf("%s of the host: %q", path, got)
		}
		// An editor of the host's writes a new file.
		write(t, path+".new", hostsText)
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "they are its own again", func() bool { return files() == want })
	if got := up(t).output("cat /etc/hostname; tail -1 /etc/hosts"); got != fmt.Sprintf("vs%d\n127.0.1.1 vs%[1]d", numbers.Load()) {
		t.Errorf("without a name: %q", got)
	}
}

func TestHostWithoutHostname(t *testing.T) {
	const path = "/etc/hostname"
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	defer os.Rename(path+".away", path)
	v := up(t)
	if got := v.output("ls /etc; head -1 /etc/hosts"); strings.Contains(got, "hostname\n") || !strings.HasSuffix(got, "# made by vsrun") {
		t.Errorf("inside: %q", got)
	}
}

// Without DNS of its own it has the host's, as it was when its init started
// where that is in /run.
func TestHostsResolvConf(t *testing.T) {
	const path = "/run/resolver/resolv.conf"
	v := up(t)
	write(t, path, "# changed\n")
	defer write(t, path, hostsText)
	if got := v.output("cat /etc/resolv.conf"); got != strings.TrimSpace(hostsText) {
		t.Errorf("inside: %q", got)
	}
	if got := up(t).output("cat /etc/resolv.conf"); got != "# changed" {
		t.Errorf("inside a later one: %q", got)
	}
	// A resolver that does not run has no file.
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	defer os.Rename(path+".away", path)
	if _, code := up(t).run("cat", "/etc/resolv.conf"); code == 0 {
		t.Error("there is one without the host's")
	}
	own := plan(t)
	own.cfg.DNS.Search = []string{"example.test"}
	own.begin()
	if got := own.output("tail -1 /etc/resolv.conf"); got != "search example.test" {
		t.Errorf("its own: %q", got)
	}
}
