package service

import (
	"fmt"
	"log"

	"golang.org/x/sys/unix"
)

// What services write goes to the host's journal as well, where systemd keeps one: a
// datagram for each line, of fields to ask for it by
// (systemd.io/JOURNAL_NATIVE_PROTOCOL).
const journaldDir = "/run/systemd/journal"

// A journald is the way to the host's journal; a nil one leads nowhere.
type journald struct {
	socket int
	to     unix.SockaddrUnix
	id     int // of the virtual server
	name   string
}

// openJournald is nil where the host has no journal. It is to be called before the
// host's /run goes out of sight: the directory is held, and the socket looked up in it
// each time, so that one that was made anew is found.
func openJournald(c Config) *journald {
	dir, err := unix.Open(journaldDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		log.Printf("cannot write to the host's journal: %v", err)
		return nil
	}
	to := unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/socket", dir)}
	return &journald{socket, to, c.ID, c.hostname()}
}

// fields are those that tell whose a line is.
func (j *journald) fields(service string) string {
	if j == nil {
		return ""
	}
	return fmt.Sprintf("SYSLOG_IDENTIFIER=vs%d/%s\nVSRUN_ID=%d\nVSRUN_NAME=%s\nVSRUN_SERVICE=%s\nPRIORITY=6\nMESSAGE=",
		j.id, service, j.id, j.name, service)
}

// send sends a line, which ends with a newline. One that the journal does not take at
// once is lost to it: no service waits for the host's.
func (j *journald) send(fields, line string) {
	if j != nil {
		_ = unix.Sendto(j.socket, []byte(fields+line), 0, &j.to)
	}
}
