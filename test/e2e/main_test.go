// Package e2e_test runs the programs as people do, each test on a throw-away host of its own.
package e2e_test

import (
	"os"
	"testing"

	"github.com/vsrun/vsrun/test/fault"
	"github.com/vsrun/vsrun/test/lab"
)

func TestMain(m *testing.M) {
	fault.Main()
	if os.Getenv(escapeVar) != "" {
		tryEscapes()
		return
	}
	lab.Main(m)
}
