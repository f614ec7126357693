package ledger

import (
	"cmp"
	"slices"
	"time"

	"github.com/vsrun/vsrun/stats"
)

// figures are sums over lives. All counters are added and subtracted modulo 2⁶⁴: where
// counting begins amid a life, what that had counted by then is subtracted.
type figures struct {
	Interfaces []stats.Account `json:"interfaces,omitempty"`
	Removed    stats.Counters  `json:"removed"`
	MIB        mib             `json:"mib"`
}

func (f *figures) has(name string) bool { return f.index(name) >= 0 }

func (f *figures) index(name string) int {
	return slices.IndexFunc(f.Interfaces, func(a stats.Account) bool { return a.Name == name })
}

// account is that of a name, made when there is none yet.
func (f *figures) account(name string, since time.Time) *stats.Counters {
	i := f.index(name)
	if i < 0 {
		i = len(f.Interfaces)
		f.Interfaces = append(f.Interfaces, stats.Account{Name: name, Since: since})
	}
	return &f.Interfaces[i].Counters
}

// add adds what interfaces and protocols have counted.
func (f *figures) add(list []link, m mib, since time.Time) {
	for _, l := range list {
		c := f.account(cmp.Or(l.Of, l.Name), since)
		*c = c.Plus(l.Counters)
	}
	f.MIB = f.MIB.plus(m)
}

// tidy adds up the accounts that are wanted no more.
func (f *figures) tidy(wanted func(name string) bool) (changed bool) {
	f.Interfaces = slices.DeleteFunc(f.Interfaces, func(a stats.Account) bool {
		if wanted(a.Name) {
			return false
		}
		f.Removed = f.Removed.Plus(a.Counters)
		changed = true
		return true
	})
	return changed
}

// plus is the sum of both, in memory of its own.
func (f figures) plus(o figures) figures {
	sum := figures{slices.Clone(f.Interfaces), f.Removed.Plus(o.Removed), f.MIB.plus(o.MIB)}
	for _, a := range o.Interfaces {
		c := sum.account(a.Name, a.Since)
		*c = c.Plus(a.Counters)
	}
	return sum
}

// list is the figures as they are told.
func (f figures) list() stats.Figures {
	told := stats.Figures{Interfaces: []stats.Account{}, Removed: f.Removed, Total: f.Removed, MIB: f.MIB.list()}
	told.Interfaces = append(told.Interfaces, f.Interfaces...)
	for _, a := range f.Interfaces {
		told.Total = told.Total.Plus(a.Counters)
	}
	return told
}

// combine makes a value of each pair of counters.
func combine(a, b stats.Counters, f func(a, b uint64) uint64) stats.Counters {
	return stats.Counters{
		RxBytes: f(a.RxBytes, b.RxBytes), RxPackets: f(a.RxPackets, b.RxPackets),
		RxErrors: f(a.RxErrors, b.RxErrors), RxDropped: f(a.RxDropped, b.RxDropped),
		TxBytes: f(a.TxBytes, b.TxBytes), TxPackets: f(a.TxPackets, b.TxPackets),
		TxErrors: f(a.TxErrors, b.TxErrors), TxDropped: f(a.TxDropped, b.TxDropped),
	}
}

// fallen is what has to be added to counters that are less than they were: the
// kernel keeps some of errors and drops in 32 bits, and they begin again.
func fallen(was, now stats.Counters) stats.Counters { return combine(was, now, fell) }

func fell(was, now uint64) uint64 {
	if now < was {
		return was
	}
	return 0
}

// remade tells whether an interface is not the one that counted was.
func remade(was, now stats.Counters) bool {
	return now.RxBytes < was.RxBytes || now.RxPackets < was.RxPackets || now.TxBytes < was.TxBytes || now.TxPackets < was.TxPackets
}
