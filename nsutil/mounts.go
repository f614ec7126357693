package nsutil

import (
	"strconv"
	"strings"
)

// Unescape undoes what the kernel does to space, tab, newline and backslash in
// a path of mounts and mountinfo (proc_pid_mountinfo(5)): \040.
func Unescape(path string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(path, '\\')
		if i < 0 || len(path) < i+4 {
			return b.String() + path
		}
		c, err := strconv.ParseUint(path[i+1:i+4], 8, 8)
		if err != nil {
			return b.String() + path
		}
		b.WriteString(path[:i])
		b.WriteByte(byte(c))
		path = path[i+4:]
	}
}
