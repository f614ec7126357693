package service

import "github.com/vsrun/vsrun/nsutil/cgroup"

// The processes of a virtual server are in cgroups below its own, vs8: init,
// web.service and, from exec, exec. Where the host has none that can be written,
// services run without: they are then known by their process groups alone.
const (
	initGroup = "init"
	execGroup = "exec"
)

// leaf is the cgroup of a service. One that was killed is not used again:
// Linux 6.18 at least kills a process that is started into it, taking the
// number of times that its parent's cgroup was killed for its own (kill_seq,
// kernel/cgroup/cgroup.c, cgroup_css_set_fork).
func (u *unit) leaf() string { return cgroup.ServiceName(u.service.Name, u.groups) }

// RemoveCgroup removes the cgroups of a virtual server whose init has ended. What
// is left in them, such as an init that a crash has left on its way, is ended.
// Absent already is success.
func RemoveCgroup(id int) error { return cgroup.Find().Remove(cgroup.Name(id)) }
