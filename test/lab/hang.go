package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Whereabouts is where the threads of a process are in the kernel: for one that should
// have ended, and perhaps cannot even be killed.
func Whereabouts(pid int) string {
	var b strings.Builder
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, task := range tasks {
		status, _ := os.ReadFile(filepath.Join(task, "status"))
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "State:") || strings.HasPrefix(line, "Name:") {
				b.WriteString(line)
			}
		}
		for _, file := range []string{"syscall", "stack"} {
			text, err := os.ReadFile(filepath.Join(task, file))
			if err != nil {
				text = []byte(err.Error() + "\n")
			}
			b.Write(text)
		}
	}
	return b.String()
}
