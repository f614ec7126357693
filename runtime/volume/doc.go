// Package volume makes and mounts the filesystems that virtual servers have of their
// own: in image files, on block devices, in memory.
//
// It does not say where a virtual server sees them: its init does that.
//
// What is mounted has no place on the host, and nothing has to be taken away: the
// kernel lets go of mount and loop device with the last process that uses them.
package volume
