package nsutil_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/test/lab"
)

// roleVar makes the test binary play another part: a process that may not make
// namespaces.
const roleVar = "NSUTIL_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case "powerless": // as whoever started it has arranged
		makeOne()
	case "limited":
		// The limit of this process's user namespace alone.
		if err := os.WriteFile("/proc/sys/user/max_net_namespaces", []byte("0"), 0); err != nil {
			fmt.Println(err)
		}
		makeOne()
	}
	lab.Main(m)
}

func makeOne() {
	_, err := nsutil.New()
	fmt.Println(err)
	if cure, ok := err.(interface{ Hint() string }); ok {
		fmt.Println(cure.Hint())
	}
	os.Exit(0)
}
