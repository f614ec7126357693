package floor

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Counters are files below /proc/net of one server, kept open.
type Counters struct{ files []int }

// OpenCounters opens the files of those names.
func (h *Host) OpenCounters(s Server, names ...string) (c Counters, err error) {
	err = h.visit(s, func(*socket) error {
		for _, name := range names {
			fd, err := unix.Open(filepath.Join("/proc/thread-self/net", name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			c.files = append(c.files, fd)
		}
		return nil
	})
	return c, err
}

// Close lets go of the files, and of the namespace.
func (c Counters) Close() {
	for _, fd := range c.files {
		unix.Close(fd)
	}
}

// buffer is for one reading at a time.
var buffer [64 << 10]byte

// Read has the kernel write the files anew, and adds up all numbers in them: what a
// loop in C would do to have them.
func (c Counters) Read() (sum uint64, err error) {
	for _, fd := range c.files {
		n, err := unix.Pread(fd, buffer[:], 0)
		if err != nil {
			return sum, err
		}
		var value uint64
		for _, b := range buffer[:n] {
			if digit := b - '0'; digit <= 9 {
				value = 10*value + uint64(digit)
				continue
			}
			sum, value = sum+value, 0
		}
	}
	return sum, nil
}
