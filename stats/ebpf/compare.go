package ebpf

import (
	"errors"
	"fmt"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/stats"
)

const own = "/proc/thread-self/ns/net"

// compare learns from /proc what the MIB looks like, and refuses a program that says
// anything else of this process's own namespace.
func (r *Reader) compare(places map[string]uint32) error {
	name, err := nsutil.NameOf(own)
	if err != nil {
		return err
	}
	id, err := name.ID()
	if err != nil {
		return err
	}
	r.Want(id)
	for range 5 { // a gauge may have gone up and down between
		before, err := stats.Read(stats.Source{Path: own})
		if err != nil {
			return err
		}
		if r.form, err = newForm(before.MIB, places, r.loaded.begin); err != nil {
			return err
		}
		var now stats.Sample
		if err = r.runAll(); err != nil {
			return err
		}
		record := r.record(id)
		if record == nil || record.lacks&noMIB != 0 {
			return errors.New("the program has not found this process's own namespace")
		}
		r.form.fill(&now.MIB, record)
		after, err := stats.Read(stats.Source{Path: own})
		if err != nil {
			return err
		}
		if err = between(before.MIB, now.MIB, after.MIB); err == nil {
			return nil
		}
	}
	return err
}

// between tells whether each counter is between what it was before and after.
func between(before, now, after stats.MIB) error {
	for _, g := range now {
		for _, c := range g.Counters {
			a, okA := before.Lookup(g.Name, c.Name)
			b, okB := after.Lookup(g.Name, c.Name)
			if okA && okB && (c.Value < min(a, b) || c.Value > max(a, b)) {
				return fmt.Errorf("%s of %s is %d, and by /proc %d to %d", c.Name, g.Name, c.Value, a, b)
			}
		}
	}
	return nil
}
