package service

import (
	"errors"
	"fmt"
	"log"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// notifySocket is where services say that they are ready (sd_notify(3)): an
// abstract address, which belongs to the virtual server's network namespace and
// needs no directory.
const notifySocket = "@vsrun/notify"

// listenForNotes receives what is said there. The kernel says whose word it is.
func listenForNotes(notes chan<- note) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}
	if err == nil {
		err = bindPatiently(fd)
	}
	if err != nil {
		return fmt.Errorf("cannot listen for what services say: %w", err)
	}
	conn, err := os.NewFile(uintptr(fd), "notify").SyscallConn()
	if err != nil {
		return err
	}
	go func() {
		for {
			n, err := receiveNote(conn)
			if err != nil {
				log.Printf("cannot receive what services say: %v", err)
				return
			}
			notes <- n
		}
	}()
	return nil
}

// bindPatiently waits for the end of an init that a crash has left on its way: it
// finds nobody to tell that it is ready, and exits.
func bindPatiently(fd int) error {
	for end := time.Now().Add(2 * time.Second); ; <-time.After(5 * time.Millisecond) {
		err := unix.Bind(fd, &unix.SockaddrUnix{Name: notifySocket})
		if !errors.Is(err, unix.EADDRINUSE) || time.Now().After(end) {
			return err
		}
	}
}

func receiveNote(conn syscall.RawConn) (note, error) {
	text := make([]byte, 4096)
	control := make([]byte, 512)
	var n, controls int
	var err error
	ready := conn.Read(func(fd uintptr) bool {
		n, controls, _, _, err = unix.Recvmsg(int(fd), text, control, unix.MSG_CMSG_CLOEXEC)
		return !errors.Is(err, unix.EAGAIN)
	})
	if err = errors.Join(ready, err); err != nil {
		return note{}, err
	}
	return note{sender(control[:controls]), string(text[:n])}, nil
}

// sender is the process of the message, 0 when the kernel does not say; files that
// came along are closed.
func sender(control []byte) int {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	pid := 0
	for _, m := range messages {
		if cred, err := unix.ParseUnixCredentials(&m); err == nil {
			pid = int(cred.Pid)
		}
		if fds, err := unix.ParseUnixRights(&m); err == nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
	}
	return pid
}
