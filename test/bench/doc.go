// Package bench measures what vsrun costs beside the bare kernel (package floor) and
// beside what people use today, in turn in one run: the ratios mean something, the times
// do not.
//
// [TestBench] measures. VSRUN_BENCH is how many virtual servers it has; with the two of
// `make test` it only shows that each row gives a number. The rest makes docs/bench.md,
// its plots and the table in README.md of what was measured, docs/bench.json.
//
// No time is right or wrong here: a goal that is missed is told, and fails nothing.
package bench
