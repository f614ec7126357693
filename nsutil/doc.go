// Package nsutil makes, publishes, opens, enters and lists network namespaces.
//
// It is the only package that touches threads: setns and unshare act on the
// calling thread, so everything that must happen inside a namespace is a
// function handed to [Namespace.Do] or [Namespace.Start].
//
// It does not configure what is inside a namespace (package plumbing does) and
// knows nothing of virtual servers.
//
// Contract: whatever a function here does to a thread, no other goroutine ever
// runs on a thread that is in the wrong namespace.
package nsutil
