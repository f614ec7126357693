package service

import (
	"fmt"

	"github.com/vsrun/vsrun/cgroup"
)

// The processes of a virtual server are in cgroups below its own, vs8: init,
// web.service and, from exec, exec. Where the host has none that can be written,
// services run without: they are then known by their process groups alone.
const (
	initGroup    = "init"
	execGroup    = "exec"
	serviceGroup = ".service" // no file of the kernel's has that ending
)

func groupName(id int) string { return fmt.Sprintf("vs%d", id) }

// leaf is the cgroup of a service. One that was killed is not used again:
// Linux 6.18 at least kills a process that is started into it, taking the
// number of times that its parent's cgroup was killed for its own (kill_seq,
// kernel/cgroup/cgroup.c, cgroup_css_set_fork). No service's name holds an '@'.
func (u *unit) leaf() string {
	if u.groups == 0 {
		return u.service.Name + serviceGroup
	}
	return fmt.Sprintf("%s@%d%s", u.service.Name, u.groups, serviceGroup)
}

// RemoveCgroup removes the cgroups of a virtual server whose init has ended. What
// is left in them, such as an init that a crash has left on its way, is ended.
// Absent already is success.
func RemoveCgroup(id int) error { return cgroup.Find().Remove(groupName(id)) }
