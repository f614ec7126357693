package ebpf

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/stats"
	"github.com/vsrun/vsrun/test/lab"
)

// The kernel has no counters of MPTCP for a namespace until that has a socket of it: then
// they are zero, and not those of the namespace that was read before.
func TestAbsentCountersAreZero(t *testing.T) {
	bulk := openReader(t)
	lab.New(t)
	cpus := bulk.loaded.cpus
	last := int(cpus[len(cpus)-1])
	lab.Require(t, "kernel:mptcp", fmt.Sprintf("cpu:%d", max(1, last))) // of one alone there is nothing to add
	var spaces []*nsutil.Namespace
	var ids []nsutil.ID
	for range 3 {
		ns, err := nsutil.New()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
		id, err := ns.ID()
		if err != nil {
			t.Fatal(err)
		}
		bulk.Want(id)
		spaces, ids = append(spaces, ns), append(ids, id)
	}
	const busy = 1 // the kernel has them in the order that they were made in
	// What the last processor counts is what the next namespace would get.
	err := spaces[busy].Do(func() error { return talkMPTCP(t, last) })
	if err != nil {
		t.Fatal(err)
	}
	for k, id := range ids {
		var s stats.Sample
		if has := bulk.Read(id, 0, time.Now(), &s); has&stats.MIBPart == 0 {
			t.Fatalf("namespace %d is not read: %v", k, bulk.Err())
		}
		if n, ok := s.MIB.Lookup("MPTcpExt", "MPCapableSYNTX"); k == busy && (!ok || n == 0) {
			t.Error("the namespace with MPTCP has counted none")
		}
		for _, g := range s.MIB {
			for _, c := range g.Counters {
				if k != busy && g.Name == "MPTcpExt" && c.Value != 0 {
					t.Errorf("namespace %d has no MPTCP, and %s is %d", k, c.Name, c.Value)
				}
			}
		}
	}
}

// talkMPTCP has the calling thread's namespace talk MPTCP to itself, on one processor.
func talkMPTCP(t *testing.T, cpu int) error {
	batch(t, "link set lo up\n")
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return err
	}
	defer unix.SchedSetaffinity(0, &before)
	l, err := net.Listen("tcp", "127.0.0.1:0") // MPTCP where there is
	if err != nil {
		return err
	}
	defer l.Close()
	var d net.Dialer
	d.SetMultipathTCP(true)
	for range 10 {
		c, err := d.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		if is, err := c.(*net.TCPConn).MultipathTCP(); err != nil {
			return err
		} else if !is {
			return errors.New("it is TCP")
		}
		if _, err := fmt.Fprint(c, "hello"); err != nil {
			return err
		}
	}
	return nil
}
