// Package cgroup keeps processes of a virtual server together: it makes the
// host's cgroups for them, limits what they may use, reads what they use, ends
// them and removes the cgroups again.
//
// A Group is one directory, vsrun/vs8 or one below, in every hierarchy that the
// host shows and that can be of use: that of v2, whatever controllers it has, and
// those of v1 that have a controller that limits and figures need. Which of them
// answers is a matter of which has the file; a host may have both (hybrid). Where
// systemd manages a hierarchy it is below a scope of systemd's instead,
// vsrun.slice/vsrun-vs8.scope/vs8.
//
// It does not mount hierarchies, move processes that others have started, or keep
// anything in memory, but for a [Meter] what it reads again: where the host has no
// cgroups that can be written, a Group is nil, and can nothing.
package cgroup
