package ipmd

import (
	"fmt"
	"os"
	"testing"

	"github.com/vsrun/vsrun/test/lab"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(askPath); path != "" {
		if err := ask(os.Args[1], path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	lab.Main(m)
}
