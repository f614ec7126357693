package e2e_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Where something else lies than should, commands neither wait for it nor go through it:
// they do what they can without, or say what is in the way, and once that is gone all is
// as it was.
func TestPlanted(t *testing.T) {
	s := newSite(t)
	elsewhere := filepath.Join(s.Dir(t), "elsewhere")
	precious := filepath.Join(elsewhere, "file")
	if err := errors.Join(os.Mkdir(elsewhere, 0o755), os.WriteFile(precious, []byte("precious"), 0o600)); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]func(path string) error{
		"a pipe":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"a symlink":   func(path string) error { return os.Symlink(precious, path) },
		"a huge file": func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40)) },
	}
	for _, c := range []struct {
		place string
		kinds []string
	}{
		{s.StateDir + "/vs8.json", []string{"a pipe", "a directory", "a symlink", "a huge file"}},
		{s.StateDir + "/.vs8.json.new", []string{"a pipe", "a symlink", "a huge file"}},
		{s.StateDir + "/vs8/ledger.json", []string{"a pipe", "a directory", "a symlink", "a huge file"}},
		{s.StateDir + "/ledger.json", []string{"a pipe", "a directory", "a symlink", "a huge file"}},
		{s.StateDir + "/vs8/log", []string{"a pipe", "a symlink"}},
		{s.StateDir + "/vs8/log/one.log", []string{"a pipe", "a directory", "a symlink"}},
		{s.StateDir + "/vs8/log/init.log", []string{"a pipe", "a directory", "a symlink"}},
		{s.RunDir + "/vs8", []string{"a pipe", "a symlink"}},
		{s.RunDir + "/vs8/init.sock", []string{"a pipe", "a directory", "a symlink"}},
		{s.NetnsDir + "/vs8", []string{"a pipe", "a directory", "a symlink", "a huge file"}},
	} {
		for _, kind := range c.kinds {
			where := strings.NewReplacer(s.StateDir, "STATE", s.RunDir, "RUN", s.NetnsDir, "NETNS").Replace(c.place)
			t.Run(kind+" at "+where, func(t *testing.T) { s.planted(t, c.place, kinds[kind]) })
		}
	}
	if text, err := os.ReadFile(precious); err != nil || string(text) != "precious" {
		t.Errorf("what symlinks lead to has %q, %v", text, err)
	}
	if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) != 1 {
		t.Errorf("beside it there are %v, %v", entries, err)
	}
}

func (s *site) planted(t *testing.T, place string, plant func(string) error) {
	s.MustVsrun(t, "create", "8", "--disabled", "--port", "eth1", "--address", "192.0.2.8/24")
	add(t, s, "8", "one", []string{"sleep", "100000"})
	t.Cleanup(func() { os.RemoveAll(place); s.Vsrun("destroy", "8") }) // whatever has failed
	aside := place + ".aside"                                          // what was there
	was := os.Rename(place, aside) == nil
	if err := errors.Join(os.MkdirAll(filepath.Dir(place), 0o755), plant(place)); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"ls", "show 8", "diff", "ledger ls", "logs 8 one", "gc --dry-run", "enable 8 --no-probe", "stats 8", "exec 8 -- true", "create 9", "destroy 9", "disable 8"} {
		began := s.Vsrun(strings.Fields(line)...)
		if began.Code < 0 || began.Code > 3 || strings.Contains(began.Stderr, "panic") {
			t.Errorf("%v", began)
		}
	}
	if err := os.RemoveAll(place); err != nil {
		t.Fatal(err)
	}
	if was {
		if err := errors.Join(os.MkdirAll(filepath.Dir(place), 0o755), os.Rename(aside, place)); err != nil {
			t.Fatal(err)
		}
	}
	s.MustVsrun(t, "enable", "8", "--no-probe")
	if err := reach(s.client, "192.0.2.8"); err != nil {
		t.Error(err)
	}
	if got := s.show(t, "8"); got.State != "enabled" || len(got.Services) != 1 || got.Services[0].State != "running" {
		t.Errorf("it is %+v", got)
	}
	s.MustVsrun(t, "destroy", "8")
}
