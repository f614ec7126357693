// Package bench measures what vsrun costs beside what does the same with
// iproute2, in turn in one run: the ratios mean something, the times do not.
//
// It holds benchmarks alone, no tests: a time is not right or wrong.
package bench
