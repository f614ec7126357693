package nsutil

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// mountsApart is the least time between two events of WatchMounts.
const mountsApart = 50 * time.Millisecond

// WatchMounts sends at each mount and unmount in the caller's mount namespace, and
// so whenever a published namespace comes or goes (proc_pid_mountinfo(5)). The first
// event is sent at once, and what follows is put together: one in 50 ms. An event
// that nobody has taken yet stands for all later ones. The channel is closed when ctx
// ends.
func WatchMounts(ctx context.Context) (<-chan struct{}, error) {
	// Past package os: the runtime would poll it, too, and a change is told to one
	// poll only.
	mounts, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot watch the mounts: %w", err)
	}
	end, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(mounts)
		return nil, fmt.Errorf("cannot watch the mounts: %w", err)
	}
	changes := make(chan struct{}, 1)
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		unix.Write(end, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		close(ended)
	})
	go func() {
		for changed(mounts, end) {
			select {
			case changes <- struct{}{}:
			default:
			}
			select {
			case <-time.After(mountsApart):
			case <-ctx.Done():
			}
		}
		if !stop() {
			<-ended
		}
		unix.Close(end)
		unix.Close(mounts)
		close(changes)
	}()
	return changes, nil
}

// changed waits for the mounts to change; false when it is to end.
func changed(mounts, end int) bool {
	for {
		fds := []unix.PollFd{{Fd: int32(mounts), Events: unix.POLLPRI}, {Fd: int32(end), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, -1)
		switch {
		case err == nil:
			return fds[1].Revents == 0
		case !errors.Is(err, unix.EINTR): // ENOMEM, which passes
			time.Sleep(mountsApart)
		}
	}
}
