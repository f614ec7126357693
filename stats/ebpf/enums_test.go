package ebpf

import (
	"os"
	"testing"

	"github.com/vsrun/vsrun/test/lab"
)

func TestEnumerators(t *testing.T) {
	lab.Require(t, "kernel:btf")
	raw, err := os.ReadFile(typesFile)
	if err != nil {
		t.Fatal(err)
	}
	wanted := func(name string) bool { return name == "TCP_MIB_MAXCONN" || name == "NUD_REACHABLE" }
	found, err := enumerators(raw, wanted)
	if err != nil || found["TCP_MIB_MAXCONN"] != 4 {
		t.Errorf("%v, %v", found, err)
	}
	for _, n := range []int{0, 10, 24, 25, 1000, len(raw) / 2, len(raw) - 1} {
		if _, err := enumerators(raw[:n:n], wanted); err == nil {
			t.Errorf("the first %d bytes pass for all %d", n, len(raw))
		}
	}
}
