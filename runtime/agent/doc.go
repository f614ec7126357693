// Package agent keeps the virtual servers of this host as they should be: it hears
// what is changed, looks at what that concerns, and mends it.
//
// It has no way of its own to do so: a look is what `vsrun diff` shows, to mend is what
// `vsrun enable` does, under the same locks.
//
// Contract: nothing depends on it. Whatever it knows it has from the kernel and the
// records, and finds out anew when it starts.
package agent
