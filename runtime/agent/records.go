package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/runtime"
)

// watchRecords tells which records in the state directory have been written or removed
// (inotify(7)); nil stands for all of them.
func watchRecords(ctx context.Context, dir string) (<-chan []subject, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("cannot watch the records: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO|unix.IN_MOVED_FROM|unix.IN_DELETE|unix.IN_CLOSE_WRITE|unix.IN_ONLYDIR); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot watch %s: %w", dir, err)
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	changes := make(chan []subject)
	go func() {
		defer stop()
		for b := make([]byte, 64<<10); ; {
			n, err := f.Read(b)
			if err != nil { // closed
				return
			}
			list, err := parseChanges(b[:n])
			if err == nil && len(list) == 0 {
				continue
			}
			select {
			case changes <- list:
			case <-ctx.Done():
				return
			}
		}
	}()
	return changes, nil
}

var errOverflow = errors.New("changes were lost")

// parseChanges reads struct inotify_event.
func parseChanges(b []byte) (list []subject, err error) {
	for len(b) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(b[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		if mask&unix.IN_Q_OVERFLOW != 0 || end > len(b) {
			return nil, errOverflow
		}
		name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:end]), "\x00")
		if id, port := runtime.RecordOf(name); id != 0 || port != "" {
			list = append(list, subject{id, port})
		}
		b = b[end:]
	}
	return list, nil
}
