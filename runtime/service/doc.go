// Package service is what runs inside a virtual server: its init, a small
// process that is PID 1 of the virtual server's PID namespace and supervises
// its services, and the client that starts it and talks to it.
//
// The init runs [InitMain] (program vs-init); everybody else uses [Start],
// [Dial] and the [Client] they return. Both ends share the types [Service] and
// [Status] and a unix socket.
//
// A virtual server sees the host's files, but has /run, /tmp, /var/tmp and
// /dev (save for what [Config] shares), its names, the files that it was given
// and its services' private directories for itself.
//
// It does not make or configure the network namespace (packages nsutil and
// plumbing do), keeps no desired state on disk (package runtime does, and hands
// the whole list to [Client.Set]), does not limit the memory that is used in
// these directories and, on a host without cgroups, does not find processes
// that left their service's process group; those live until the virtual server
// ends.
//
// It needs Linux 5.8 (statx(2) of mounts, setns(2) with a pidfd).
//
// Contract: a virtual server's processes live exactly as long as its init, and
// the init lives exactly until it is asked to end or killed, whatever becomes of
// the process that started it. As long as it lives it can be found: by [Dial],
// or by [Find] when its socket is lost.
package service
