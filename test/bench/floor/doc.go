// Package floor does what vsrun does for a virtual server with the system calls and
// netlink requests alone that the kernel wants for it: no look before, no record, no
// error explained, nothing undone. What vsrun costs is told as a ratio to that.
//
// It shares no code with vsrun, and is of no use but to be measured.
//
// Contract: a [Host] works on the thread of the goroutine that has opened it.
package floor
