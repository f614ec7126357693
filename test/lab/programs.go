package lab

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// programs are the commands under test.
var programs = []string{"vsrun", "vsd", "ipmd", "vs-init"}

var built = sync.OnceValues(build)

// Programs is the directory that holds vsrun, vsd, ipmd and vs-init: VSRUN_BIN, or
// built from the source, once in a test process.
func Programs(t testing.TB) string {
	t.Helper()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func build() (string, error) {
	if dir := os.Getenv("VSRUN_BIN"); dir != "" {
		for _, name := range programs {
			// Stat also tells go test that its cached results depend on it.
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				return "", err
			}
		}
		return filepath.Abs(dir)
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	if err := dependOnSource(root); err != nil {
		return "", err
	}
	dir := filepath.Join(labDir, "bin") // gone with the host
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", dir+"/")
	for _, name := range programs {
		cmd.Args = append(cmd.Args, "./cmd/"+name)
	}
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", &buildError{string(out), err}
	}
	return dir, nil
}

// A buildError shows the compiler's words.
type buildError struct {
	output string
	cause  error
}

func (e *buildError) Error() string {
	s := "cannot build the programs: " + e.cause.Error() + "\n" + e.output
	if strings.Contains(e.output, "dial tcp") { // a throw-away host has no network
		s += "hint: run `go mod download` first, or `make build` and set VSRUN_BIN to bin"
	}
	return s
}

// moduleRoot is the nearest directory above that has a go.mod: go test runs
// tests in their package's directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", fs.ErrNotExist
}

// dependOnSource looks at every source file, so that go test does not reuse
// results that it cached for other programs: it notes what a test looks at.
func dependOnSource(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, ".go") {
			_, err = os.Stat(path)
		}
		return err
	})
}
