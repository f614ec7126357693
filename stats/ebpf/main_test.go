package ebpf

import (
	"testing"

	"github.com/vsrun/vsrun/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
