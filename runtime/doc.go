// Package runtime is a virtual server's life: it is created, enabled, disabled
// and destroyed here, and what it should be is stored here.
//
// It does not talk to the kernel's network itself (package plumbing does), nor
// run inside a virtual server (package service does).
//
// Contract: what should be is stored before anything is done, so after a crash
// at any moment the same operation, run again, completes.
package runtime
