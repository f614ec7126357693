package stats

import (
	"strconv"
	"time"
)

// A Ledger is what a virtual server has counted since an epoch, over all of its
// network namespaces and interfaces, where a Sample's own counters begin at zero
// with each of them. Package stats/ledger keeps it.
type Ledger struct {
	Since time.Time `json:"since"` // the epoch, at which counting began at zero

	// Gaps is how often a namespace, or an interface, vanished before its last
	// figures were written, as by a power failure. Lost is the time, in seconds, from
	// the last figures written until that was noticed, of all of them: what crossed
	// the wire in there, before it vanished, is missing.
	Gaps    int     `json:"gaps"`
	Lost    float64 `json:"lost"`
	LastGap *Gap    `json:"lastGap,omitempty"`

	// What was counted until now. After a gap it can be less than what was told
	// before.
	Figures

	// Kept is the part of it that is written down: it never goes back.
	Kept Kept `json:"kept"`
}

// A Gap is from when to when nothing was written.
type Gap struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Kept are figures that are on the disk since a time.
type Kept struct {
	Time time.Time `json:"time"`
	Figures
}

// Figures are what was counted in a while: by interface, those that the virtual
// server does not have any more as one, in total, and a choice of the MIB.
type Figures struct {
	Interfaces []Account `json:"interfaces"`
	Removed    Counters  `json:"removed"`
	Total      Counters  `json:"total"`
	MIB        MIB       `json:"mib"`
}

// An Account is what interfaces of one name have counted since a time.
type Account struct {
	Name  string    `json:"name"`
	Since time.Time `json:"since"`
	Counters
}

func (l *Ledger) appendJSON(b []byte) []byte {
	b = appendTime(append(b, `{"since":`...), l.Since)
	b = strconv.AppendInt(append(b, `,"gaps":`...), int64(l.Gaps), 10)
	b = appendValue(append(b, `,"lost":`...), l.Lost)
	if l.LastGap != nil {
		b = appendValue(append(b, `,"lastGap":`...), l.LastGap)
	}
	b = l.Figures.appendFields(append(b, ','))
	b = appendTime(append(b, `,"kept":{"time":`...), l.Kept.Time)
	return append(l.Kept.appendFields(append(b, ',')), `}}`...)
}

func (f *Figures) appendFields(b []byte) []byte {
	b = append(b, `"interfaces":[`...)
	for k := range f.Interfaces {
		if k > 0 {
			b = append(b, ',')
		}
		a := &f.Interfaces[k]
		b = appendString(append(b, `{"name":`...), a.Name)
		b = appendTime(append(b, `,"since":`...), a.Since)
		b = append(a.Counters.appendFields(append(b, ',')), '}')
	}
	b = f.Removed.appendFields(append(b, `],"removed":{`...))
	b = f.Total.appendFields(append(b, `},"total":{`...))
	return f.MIB.appendJSON(append(b, `},"mib":`...))
}

func appendTime(b []byte, t time.Time) []byte {
	return append(t.AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
}
