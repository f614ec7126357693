package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// hintOf is an error's cure, if it knows one, or its filesystem's.
func hintOf(err error) string {
	var cure interface{ Hint() string }
	if errors.As(err, &cure) {
		return cure.Hint()
	}
	dir := filepath.Dir(fileOf(err))
	switch {
	case dir == ".": // another kind of room: of the kernel's tables, of a network
	case errors.Is(err, unix.ENOSPC):
		return fmt.Sprintf("make room there: df -h %s; df -i %[1]s, should there be too many files", dir)
	case errors.Is(err, unix.EDQUOT):
		return fmt.Sprintf("make room there, or raise the quota: quota -v; df -h %s", dir)
	case errors.Is(err, unix.EROFS):
		return fmt.Sprintf("make that filesystem writable again: findmnt -T %s; dmesg may tell why it is not", dir)
	}
	return ""
}

// fileOf is the file that an error is about, "" when it is about none.
func fileOf(err error) string {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Path
	case errors.As(err, &link):
		return link.New
	}
	return ""
}
