package stats

import (
	"time"

	"github.com/vsrun/vsrun/nsutil"
)

// A Bulk reads many namespaces at once, which makes what one of them costs little. What it
// says is what /proc would have.
type Bulk interface {
	// Want has a namespace read from now on, for as long as it exists.
	Want(nsutil.ID)

	// Read tells, in s, what the namespace had when all were read, which was not before
	// since; and sets the time of that. What it did not read it leaves as it was, as all
	// of a namespace that had the ID before. The cookie (SO_NETNS_COOKIE) tells them
	// apart; 0: it is not known.
	Read(id nsutil.ID, cookie uint64, since time.Time, s *Sample) Parts
}

// Parts are parts of a Sample.
type Parts uint8

// The parts that a Bulk may know.
const (
	InterfacesPart Parts = 1 << iota // Interfaces and Total
	MIBPart                          // MIB, but neither Sockets nor Conntrack
)

// Use has ReadAmong ask a Bulk; nil: none.
func (r *Reader) Use(b Bulk) {
	if b == nil {
		r.bulk.Store(nil)
		return
	}
	r.bulk.Store(&b)
}

// ReadAmong is Read of one of many that are wanted: the counters are of any time from since
// on. It is for the price of a Read where the Reader uses no Bulk.
func (r *Reader) ReadAmong(src Source, s *Sample, since time.Time) error {
	bulk := r.bulk.Load()
	if bulk == nil {
		return r.Read(src, s)
	}
	return r.readBy(src, s, func(ns *namespace, s *Sample) Parts {
		has := (*bulk).Read(ns.id, ns.cookie, since, s)
		if has == 0 {
			(*bulk).Want(ns.id)
		}
		return has
	})
}
