package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsrun/vsrun/test/lab"
)

// What the README begins with does what it says.
func TestReadme(t *testing.T) {
	lab.NeedRoot(t, "nginx becomes another user")
	lab.Require(t, "nginx", "curl")
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, script, _ := strings.Cut(string(text), "\n\n    ")
	script, _, _ = strings.Cut("    "+script, "\n\n")
	script = strings.ReplaceAll(script, "\\\n", "")
	s := newSite(t)
	t.Setenv("PATH", lab.Programs(t)+string(filepath.ListSeparator)+os.Getenv("PATH"))
	for line := range strings.Lines(script) {
		out := s.Run(t, "sh", "-ec", line)
		if strings.Contains(line, "service add") {
			if r := s.client.TryRun("curl", "-sS", "--max-time", "5", "http://192.0.2.8/"); r.Code != 0 {
				t.Errorf("%s: %v", out, r)
			}
		}
	}
}
