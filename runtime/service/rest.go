package service

import (
	"bufio"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// giveBack frees what memory an init can do without that has nothing to do for
// months.
func giveBack() {
	// What is pooled (sync.Pool) outlives one collection, and a stack shrinks by
	// half in each.
	for range 3 {
		runtime.GC()
	}
	debug.FreeOSMemory()
	dropProgram()
}

// dropProgram lets go of the program's pages that are the file's as it is: the next
// use of one finds it in the page cache (madvise(2), MADV_DONTNEED). Where the
// kernel does not tell about mappings, they stay.
func dropProgram() {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	for _, m := range unwritten(f) {
		unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
	}
}

// A mapping is a range of addresses.
type mapping struct{ from, to uintptr }

// unwritten are the mappings of files, from proc_pid_smaps(5), whose pages cannot be
// written and never were: those of a program that relocates itself are read-only,
// but no longer the file's.
func unwritten(smaps io.Reader) []mapping {
	var found []mapping
	var m mapping
	file := false
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) > 4 && len(fields[1]) == 4: // address perms offset dev inode path
			m, file = parseMapping(fields[0]), fields[1][1] == '-' && fields[4] != "0"
		case len(fields) > 1 && fields[0] == "Anonymous:" && fields[1] == "0" && file && m.from < m.to:
			found = append(found, m)
		}
	}
	return found
}

func parseMapping(text string) mapping {
	low, high, _ := strings.Cut(text, "-")
	from, _ := strconv.ParseUint(low, 16, 64)
	to, _ := strconv.ParseUint(high, 16, 64)
	return mapping{uintptr(from), uintptr(to)}
}
