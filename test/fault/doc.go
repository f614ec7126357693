// Package fault runs programs and makes one of their system calls fail, or kills its
// process there: any of those that change something, or that what changes something needs,
// whichever of the processes makes it. It does so to the programs as they are released, by
// a seccomp filter that tells the test of each such call and waits for its word
// (seccomp_unotify(2)).
//
// It does not know what a call is good for.
package fault
