package stats

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
)

// neighbourStates are the kernel's, in its order and by iproute2's names (linux
// uapi/linux/neighbour.h). An entry that needs no resolution (noarp, none) is no
// neighbour: broadcast and multicast addresses have one.
var neighbourStates = []struct {
	state uint16
	name  string
}{
	{unix.NUD_INCOMPLETE, "incomplete"}, {unix.NUD_REACHABLE, "reachable"}, {unix.NUD_STALE, "stale"}, {unix.NUD_DELAY, "delay"},
	{unix.NUD_PROBE, "probe"}, {unix.NUD_FAILED, "failed"}, {unix.NUD_PERMANENT, "permanent"},
}

// Neighbours counts the neighbours in the namespace published at path, by family
// (inet, inet6) and state. It is no part of a Sample that is read, for the kernel has
// one table for all namespaces and goes through all of it for each: with many virtual
// servers that would cost more than all other counters.
func Neighbours(path string) (MIB, error) {
	m, err := neighbours(path)
	if err != nil {
		return nil, fmt.Errorf("cannot count the neighbours: %w", err)
	}
	return m, nil
}

func neighbours(path string) (MIB, error) {
	ns, err := nsutil.Open(path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	m := MIB{}
	for _, family := range []struct {
		family int
		name   string
	}{{unix.AF_INET, "inet"}, {unix.AF_INET6, "inet6"}} {
		var dump []byte
		err := ns.Do(func() (err error) {
			dump, err = syscall.NetlinkRIB(unix.RTM_GETNEIGH, family.family)
			return err
		})
		if err != nil {
			return nil, err
		}
		if err := m.group(family.name).countNeighbours(dump, family.family); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// countNeighbours counts a dump's entries. The kernel ignores a family that it lacks, and
// dumps all.
func (g *Group) countNeighbours(dump []byte, family int) error {
	messages, err := syscall.ParseNetlinkMessage(dump)
	if err != nil {
		return err
	}
	for _, s := range neighbourStates {
		g.Counters = append(g.Counters, Counter{Name: s.name})
	}
	for _, m := range messages {
		if m.Header.Type != unix.RTM_NEWNEIGH || len(m.Data) < unix.SizeofNdMsg || int(m.Data[0]) != family {
			continue
		}
		state := binary.NativeEndian.Uint16(m.Data[8:]) // struct ndmsg
		for i, s := range neighbourStates {
			if state == s.state {
				g.Counters[i].Value++
			}
		}
	}
	return nil
}
