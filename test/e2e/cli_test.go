package e2e_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vsrun/vsrun/test/lab"
)

// newHost is a host with what may rightly stay: an empty run directory, as a
// package would make it, and the store's lock, which each vsrun makes anew.
func newHost(t *testing.T) *lab.Host {
	t.Helper()
	if err := os.MkdirAll("/run/vsrun", 0o755); err != nil {
		t.Fatal(err)
	}
	h := lab.New(t)
	h.Keep(filepath.Join(h.StateDir, "lock"))
	return h
}
