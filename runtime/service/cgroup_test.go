package service

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0, "1": 1, "4096": 4096, "1K": 1 << 10, "512M": 512 << 20, "2G": 2 << 30, "1T": 1 << 40,
		"0": -1, "-1": -1, "M": -1, "1MM": -1, "1m": -1, "1.5G": -1, "1 G": -1, "99999999999T": -1, "9999999999999999999": -1,
	} {
		got, err := parseBytes(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestParsePercent(t *testing.T) {
	for text, want := range map[string]int{
		"": 0, "1%": 1, "50%": 50, "200%": 200, "102400%": 102400,
		"50": -1, "0%": -1, "-5%": -1, "%": -1, "50%%": -1, "1.5%": -1, "102401%": -1,
	} {
		got, err := parsePercent(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestCgroupOfNone(t *testing.T) {
	var g *cgroup
	g.kill()
	g.close()
	if c, err := g.child("a"); c != nil || err != nil {
		t.Errorf("%v, %v", c, err)
	}
	if g.use() != (Use{}) {
		t.Error("it uses something")
	}
	if err := g.limit(Resources{}); err != nil {
		t.Error(err)
	}
	if err := g.limit(Resources{Tasks: 1}); err == nil || !strings.Contains(err.Error(), "no cgroups") {
		t.Errorf("%v", err)
	}
}

// A directory stands for a kernel without cgroup.kill and controllers.
func TestLimitWithoutControllers(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	g := &cgroup{root}
	defer g.close()
	if err := os.Chmod(root.Name(), 0o500); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root.Name(), "memory.max")); err == nil {
		t.Fatal("it is no plain directory")
	}
	if u := g.use(); u != (Use{}) {
		t.Errorf("%+v", u)
	}
}
