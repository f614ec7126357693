package lab_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vsrun/vsrun/test/lab"
)

func TestProgramsRun(t *testing.T) {
	h := lab.New(t)
	for _, name := range []string{"vsrun", "vsd", "ipmd", "vs-init"} {
		if _, err := os.Stat(filepath.Join(lab.Programs(t), name)); err != nil {
			t.Error(err)
		}
	}
	if r := h.Vsrun("version"); r.Code != 0 || r.Stdout == "" {
		t.Error(r)
	}
	if r := h.VsrunIn("nonsense", "create", "-f", "-"); r.Code == 0 {
		t.Error(r)
	}
}
