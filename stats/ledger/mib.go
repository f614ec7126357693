package ledger

import "github.com/vsrun/vsrun/stats"

// counted is what is kept of a MIB: what one bills by, or watches over a long time.
// Positions are those of a mib; they are in no file.
var counted = [...]struct{ group, name string }{
	// Of IP, those by ECN (In…Pkts) count packets as they came over the wire, and all
	// others what they were put together to.
	{"Ip", "InReceives"}, {"Ip", "InDelivers"}, {"Ip", "InDiscards"}, {"Ip", "OutRequests"}, {"Ip", "OutDiscards"}, {"Ip", "OutTransmits"},
	{"IpExt", "InOctets"}, {"IpExt", "OutOctets"},
	{"IpExt", "InNoECTPkts"}, {"IpExt", "InECT1Pkts"}, {"IpExt", "InECT0Pkts"}, {"IpExt", "InCEPkts"},
	{"Ip6", "InReceives"}, {"Ip6", "InDelivers"}, {"Ip6", "InDiscards"}, {"Ip6", "OutRequests"}, {"Ip6", "OutDiscards"}, {"Ip6", "OutTransmits"},
	{"Ip6", "InOctets"}, {"Ip6", "OutOctets"},
	{"Ip6", "InNoECTPkts"}, {"Ip6", "InECT1Pkts"}, {"Ip6", "InECT0Pkts"}, {"Ip6", "InCEPkts"},

	{"Icmp", "InMsgs"}, {"Icmp", "InErrors"}, {"Icmp", "OutMsgs"},
	{"Icmp6", "InMsgs"}, {"Icmp6", "InErrors"}, {"Icmp6", "OutMsgs"},

	{"Tcp", "ActiveOpens"}, {"Tcp", "PassiveOpens"}, {"Tcp", "AttemptFails"}, {"Tcp", "EstabResets"},
	{"Tcp", "InSegs"}, {"Tcp", "OutSegs"}, {"Tcp", "RetransSegs"}, {"Tcp", "InErrs"}, {"Tcp", "OutRsts"},
	{"TcpExt", "ListenOverflows"}, {"TcpExt", "ListenDrops"},

	{"Udp", "InDatagrams"}, {"Udp", "OutDatagrams"}, {"Udp", "NoPorts"}, {"Udp", "InErrors"}, {"Udp", "RcvbufErrors"}, {"Udp", "SndbufErrors"},
	{"Udp6", "InDatagrams"}, {"Udp6", "OutDatagrams"}, {"Udp6", "NoPorts"}, {"Udp6", "InErrors"}, {"Udp6", "RcvbufErrors"}, {"Udp6", "SndbufErrors"},
}

// A mib is that choice of a MIB. What the kernel lacks is not in it.
type mib struct {
	has    [len(counted)]bool
	counts [len(counted)]uint64 // wrap as the kernel's do
}

// pick takes the choice out of a MIB.
func pick(m stats.MIB) (c mib) {
	group, at := "", 0
	for k, want := range counted {
		if want.group != group {
			group, at = want.group, 0
		}
		g := find(m, group)
		if g == nil {
			continue
		}
		// The next one is most often behind the last one.
		for n := range g.Counters {
			i := (at + n) % len(g.Counters)
			if g.Counters[i].Name == want.name {
				c.has[k], c.counts[k], at = true, uint64(g.Counters[i].Value), i
				break
			}
		}
	}
	return c
}

func find(m stats.MIB, group string) *stats.Group {
	for k := range m {
		if m[k].Name == group {
			return &m[k]
		}
	}
	return nil
}

func (m mib) plus(o mib) mib  { return m.with(o, func(a, b uint64) uint64 { return a + b }) }
func (m mib) minus(o mib) mib { return m.with(o, func(a, b uint64) uint64 { return a - b }) }

// atLeast is the larger of both in each counter.
func (m mib) atLeast(o mib) mib { return m.with(o, func(a, b uint64) uint64 { return max(a, b) }) }

// fallen is the mib's part of figures.go's.
func (m mib) fallen(now mib) mib { return m.with(now, fell) }

func (m mib) with(o mib, f func(a, b uint64) uint64) mib {
	for k := range counted {
		if m.has[k] || o.has[k] {
			m.has[k], m.counts[k] = true, f(m.counts[k], o.counts[k])
		}
	}
	return m
}

// list is the choice as a MIB.
func (m mib) list() stats.MIB {
	list := make(stats.MIB, 0, 12)
	all := make([]stats.Counter, 0, len(counted)) // of all groups
	for k, c := range counted {
		if !m.has[k] {
			continue
		}
		if n := len(list); n == 0 || list[n-1].Name != c.group {
			list = append(list, stats.Group{Name: c.group, Counters: all[len(all):]})
		}
		all = append(all, stats.Counter{Name: c.name, Value: int64(m.counts[k])})
		g := &list[len(list)-1]
		g.Counters = g.Counters[:len(g.Counters)+1]
	}
	return list
}

func (m mib) MarshalJSON() ([]byte, error) { return m.list().MarshalJSON() }

func (m *mib) UnmarshalJSON(b []byte) error {
	var list stats.MIB
	err := list.UnmarshalJSON(b)
	*m = pick(list)
	return err
}
