// Package lab makes throw-away hosts for tests.
//
// [Main], used as TestMain, runs the test binary again as the only inhabitant
// of a host of its own: new network, mount, PID, UTS and IPC namespaces (and a
// user namespace when the caller is not root), an init that reaps orphans, an
// empty /run, its own /proc and /sys. In there a test asks [New] for a [Host],
// gives it ports with [Host.Segment], puts clients on the far end of the wire
// with [Segment.Client], and runs the programs under test with [Host.Vsrun].
//
// It does not use the code under test to make or look at networks: it asks
// iproute2 and /proc, so that a mistake there cannot hide itself here.
//
// Two variables steer it: VSRUN_BIN, where the programs are (else they are built
// from the source), and VSRUN_REQUIRE, which skips are failures (see [Require]).
//
// Contract: nothing a test does here reaches the machine's own network, all of
// it is gone when the test process ends in whatever way, and a test that leaves
// anything behind in its host fails and says what.
package lab
