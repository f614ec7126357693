// Package plumbing makes the kernel's network match a [Network]: it observes
// what a namespace holds, computes the difference, and applies it.
//
// It does not store anything, start processes inside the namespace or know what
// a virtual server is for. It never shells out.
//
// Contract: [Diff] is pure, and its [Plan] is the only way anything is changed,
// whether created, repaired, printed as a dry run or reported as drift.
package plumbing
