package examples_test

import (
	"os"
	"strings"
	"testing"

	"github.com/vsrun/vsrun/examples"
	"github.com/vsrun/vsrun/runtime"
	"github.com/vsrun/vsrun/stats/ipmd"
)

// Each but the daemons' is a virtual server, and the README knows it.
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
		if e.Name() == "ipmd.yaml" || strings.HasPrefix(e.Name(), "prometheus") || strings.HasPrefix(e.Name(), "grafana") {
			continue
		}
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

func TestConfiguration(t *testing.T) {
	f, err := examples.Documents.Open("ipmd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := ipmd.ReadConfig(f, "ipmd.yaml"); err != nil {
		t.Error(err)
	}
}
