// Package fault runs a program and makes one of its system calls fail, or kills it there:
// the k-th of all that change something, whichever of its processes makes it. It does so
// to the program as it is released, by a seccomp filter that tells the test of each such
// call and waits for its word (seccomp_unotify(2)).
//
// It does not know what a call is good for, and fails none that the program only
// looks with.
package fault
