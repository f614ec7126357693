package examples_test

import (
	"os"
	"strings"
	"testing"

	"github.com/vsrun/vsrun/examples"
	"github.com/vsrun/vsrun/runtime"
)

// Each is a virtual server, and the README knows it.
func TestDocuments(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := examples.Documents.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		f, err := examples.Documents.Open(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		docs, err := runtime.ReadDocuments(f, e.Name())
		f.Close()
		if err != nil || len(docs.Servers) != 1 {
			t.Errorf("%d virtual servers in %s: %v", len(docs.Servers), e.Name(), err)
		}
		if !strings.Contains(string(readme), e.Name()) {
			t.Errorf("README.md says nothing of %s", e.Name())
		}
	}
}
