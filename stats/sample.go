package stats

import (
	"time"

	"github.com/vsrun/vsrun/nsutil/cgroup"
)

// A Sample is one reading of a virtual server's counters.
type Sample struct {
	ID   int       `json:"id"`
	Name string    `json:"name"`
	Time time.Time `json:"time"` // of the reading

	// Life tells one life of the namespace from all others, on this host and on all: its
	// counters have counted on from one reading to the next when it is the same. It is ""
	// before Linux 5.14.
	Life string `json:"life,omitempty"`

	// Interfaces are all but the loopback device, in the kernel's order. Not nil
	// in a Sample that was read.
	Interfaces []Interface `json:"interfaces"`

	// Total is the sum over Interfaces. A packet on an interface that is stacked
	// on another one of the same virtual server (a VLAN of a NIC that was moved
	// in) passes both, and counts on both.
	Total Counters `json:"total"`

	// MIB has the protocols' counters, the loopback device's traffic included.
	MIB MIB `json:"mib"`

	// Sockets are how many of each protocol's are in use, by /proc/net/sockstat and
	// sockstat6, without those figures that are the whole host's.
	Sockets MIB `json:"sockets,omitempty"`

	// Conntrack is what connection tracking has done and, in entries, holds: one group,
	// nf_conntrack, where the kernel has it. Counters wrap at 2³² for each processor.
	Conntrack MIB `json:"conntrack,omitempty"`

	// Neighbours are those of Neighbours, where they were counted.
	Neighbours MIB `json:"neighbours,omitempty"`

	// Realms are those of Realms that its interfaces have, where they were read.
	Realms MIB `json:"realms,omitempty"`

	// Use is what its processes use together, and Services what each service's do,
	// by name; nil where there are no cgroups, and while nothing runs in it.
	Use      *cgroup.Use         `json:"use,omitempty"`
	Services []cgroup.ServiceUse `json:"services,omitempty"`

	// Ledger is what it has counted over all of its lives; nil where nobody says that.
	Ledger *Ledger `json:"ledger,omitempty"`
}

// WithoutMIB leaves out all counters of protocols, which are most of a sample.
func (s Sample) WithoutMIB() Sample {
	s.MIB, s.Sockets, s.Conntrack, s.Neighbours = nil, nil, nil, nil
	if s.Ledger != nil {
		l := *s.Ledger
		l.MIB, l.Kept.MIB = nil, nil
		s.Ledger = &l
	}
	return s
}

// empty makes room for a reading. What is beyond the slices' ends is used again.
func (s *Sample) empty() {
	if s.Interfaces == nil { // in JSON a list or an object, and not null
		s.Interfaces, s.MIB = []Interface{}, MIB{}
	}
	s.Interfaces, s.Total, s.MIB = s.Interfaces[:0], Counters{}, s.MIB[:0]
	s.Sockets, s.Conntrack, s.Neighbours = s.Sockets[:0], s.Conntrack[:0], nil
	s.Ledger = nil
}

// Add adds an interface, and its counters to the total. The name that an earlier reading had in its place is used again.
func (s *Sample) Add(name []byte, c Counters) {
	n := len(s.Interfaces)
	if n == cap(s.Interfaces) {
		s.Interfaces = append(s.Interfaces, Interface{})
	}
	s.Interfaces = s.Interfaces[:n+1]
	d := &s.Interfaces[n]
	if d.Name != string(name) {
		d.Name = string(name)
	}
	d.Counters = c
	s.Total = s.Total.Plus(c)
}

// An Interface is a network device of a virtual server and what it counted.
type Interface struct {
	Name string `json:"name"`
	Counters
}

// Counters are counts since the device was made, as wide as the kernel keeps
// them: they wrap at 2⁶⁴. A packet is what the device handled as one: with
// segmentation offload far fewer, and larger, than on the wire.
type Counters struct {
	RxBytes   uint64 `json:"rxBytes"`
	RxPackets uint64 `json:"rxPackets"`
	RxErrors  uint64 `json:"rxErrors"`
	RxDropped uint64 `json:"rxDropped"` // with those missed for want of a buffer
	TxBytes   uint64 `json:"txBytes"`
	TxPackets uint64 `json:"txPackets"`
	TxErrors  uint64 `json:"txErrors"`
	TxDropped uint64 `json:"txDropped"`
}

// Plus is the sum of both, wrapping as the kernel's counters do.
func (c Counters) Plus(o Counters) Counters {
	return Counters{
		RxBytes:   c.RxBytes + o.RxBytes,
		RxPackets: c.RxPackets + o.RxPackets,
		RxErrors:  c.RxErrors + o.RxErrors,
		RxDropped: c.RxDropped + o.RxDropped,
		TxBytes:   c.TxBytes + o.TxBytes,
		TxPackets: c.TxPackets + o.TxPackets,
		TxErrors:  c.TxErrors + o.TxErrors,
		TxDropped: c.TxDropped + o.TxDropped,
	}
}
