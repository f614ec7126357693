package stats

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// bootID tells one boot of this host from all others (random(4)).
var bootID = sync.OnceValue(func() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(id))
})

// life identifies a namespace by its cookie. It is "" where that is not known.
func life(cookie uint64) string {
	if cookie == 0 || bootID() == "" {
		return ""
	}
	return bootID() + "/" + strconv.FormatUint(cookie, 10)
}

// cookie identifies the calling thread's namespace: the kernel gives out none twice while
// it runs (SO_NETNS_COOKIE, Linux 5.14). It is 0 on an older kernel.
func cookie() (uint64, error) {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("cannot open a socket: %w", err)
	}
	defer unix.Close(s)
	cookie, err := unix.GetsockoptUint64(s, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, nil
	}
	return cookie, nil
}
