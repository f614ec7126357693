package ebpf

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vsrun/vsrun/stats"
)

// A form is what a MIB of this kernel looks like, as /proc prints it, and where each
// counter is in a record.
type form struct {
	groups []group
	typed  [1024]struct{ group, counter int } // a message's counter in groups, by kind
	others [512]string                        // names of those, where they have no word: by kind less version6
}

type group struct {
	name     string
	counters []stats.Counter // all zero
	at       []int           // of each, in record.value; or one of the following
}

const (
	aMessage = -1 - iota
	forwarding
	defaultTTL
)

// Words for types of ICMP messages (linux net/ipv4/proc.c, net/ipv6/proc.c).
var (
	words = map[string]uint32{
		"EchoReps": 0, "DestUnreachs": 3, "SrcQuenchs": 4, "Redirects": 5, "Echos": 8, "TimeExcds": 11, "ParmProbs": 12,
		"Timestamps": 13, "TimestampReps": 14, "AddrMasks": 17, "AddrMaskReps": 18,
	}
	words6 = map[string]uint32{
		"DestUnreachs": 1, "PktTooBigs": 2, "TimeExcds": 3, "ParmProblems": 4, "Echos": 128, "EchoReplies": 129,
		"GroupMembQueries": 130, "GroupMembResponses": 131, "GroupMembReductions": 132, "RouterSolicits": 133,
		"RouterAdvertisements": 134, "NeighborSolicits": 135, "NeighborAdvertisements": 136, "Redirects": 137, "MLDv2Reports": 143,
	}
)

// renamed are counters whose enumerator is not their name in capitals (linux
// net/ipv4/proc.c, net/ipv6/proc.c, net/mptcp/mib.c). OUTPKTS was OutRequests until
// Linux 6.6.
var renamed = map[string][]string{
	"InReceives": {"INPKTS"}, "ForwDatagrams": {"OUTFORWDATAGRAMS"}, "OutForwDatagrams": {"OUTFORWDATAGRAMS"},
	"OutRequests": {"OUTREQUESTS", "OUTPKTS"}, "OutTransmits": {"OUTPKTS"}, "InCsumErrors": {"CSUMERRORS"},
	"InNoECTPkts": {"NOECTPKTS"}, "InECT1Pkts": {"ECT1PKTS"}, "InECT0Pkts": {"ECT0PKTS"}, "InCEPkts": {"CEPKTS"},
	"OutRateLimitGlobal": {"RATELIMITGLOBAL"}, "OutRateLimitHost": {"RATELIMITHOST"},

	"TW": {"TIMEWAITED"}, "TWRecycled": {"TIMEWAITRECYCLED"}, "TWKilled": {"TIMEWAITKILLED"},
	"PAWSActive": {"PAWSACTIVEREJECTED"}, "PAWSEstab": {"PAWSESTABREJECTED"}, "PAWSTimewait": {"PAWSTWREJECTED"},
	"TCPSackShifted": {"SACKSHIFTED"}, "TCPSackMerged": {"SACKMERGED"}, "TCPSackShiftFallback": {"SACKSHIFTFALLBACK"},
	"IPReversePathFilter": {"IPRPFILTER"},

	"MPCapableSYNRX": {"MPCAPABLEPASSIVE"}, "MPCapableSYNTX": {"MPCAPABLEACTIVE"}, "MPCapableSYNACKRX": {"MPCAPABLEACTIVEACK"},
	"MPCapableACKRX": {"MPCAPABLEPASSIVEACK"}, "MPCapableFallbackACK": {"MPCAPABLEPASSIVEFALLBACK"},
	"MPCapableFallbackSYNACK": {"MPCAPABLEACTIVEFALLBACK"}, "MPCapableSYNTXDrop": {"MPCAPABLEACTIVEDROP"},
	"MPCapableSYNTXDisabled": {"MPCAPABLEACTIVEDISABLED"}, "MPFallbackTokenInit": {"TOKENFALLBACKINIT"},
	"MPTCPRetrans": {"RETRANSSEGS"}, "MPJoinNoTokenFound": {"JOINNOTOKEN"}, "MPJoinSynAckHMacFailure": {"JOINSYNACKMAC"},
	"MPJoinAckHMacFailure": {"JOINACKMAC"}, "DSSNotMatching": {"DSSNOMATCH"}, "DSSNoMatchTCP": {"DSSTCPMISMATCH"},
	"NoDSSInWindow": {"NODSSWINDOW"}, "DuplicateData": {"DUPDATA"}, "SimultConnectFallback": {"SIMULTCONNFALLBACK"},
}

// numbered is a counter of messages whose type has no word, and is there once there are any.
var numbered = regexp.MustCompile(`^(In|Out)Type[0-9]+$`)

// newForm finds the place of every counter of a MIB. begin is where in a record the
// values of each of mibs begin, and end.
func newForm(m stats.MIB, places map[string]uint32, begin []uint64) (*form, error) {
	plain := make(map[string]uint32, len(places)) // the kernel puts an underscore here and there
	for name, at := range places {
		prefix, rest, _ := strings.Cut(name, "_MIB_")
		plain[prefix+"_MIB_"+strings.ReplaceAll(rest, "_", "")] = at
	}
	f := new(form)
	for k := range f.others {
		f.others[k] = "InType" + strconv.Itoa(k)
		if k >= sent {
			f.others[k] = "OutType" + strconv.Itoa(k-sent)
		}
	}
	for k := range f.typed {
		f.typed[k].counter = -1
	}
	for _, from := range m {
		if from.Name == "IcmpMsg" {
			continue
		}
		g := group{name: from.Name}
		for _, c := range from.Counters {
			if numbered.MatchString(c.Name) {
				continue
			}
			at, ok := elsewhere(from.Name, c.Name)
			if kind, is := messageKind(from.Name, c.Name); is {
				f.typed[kind].group, f.typed[kind].counter = len(f.groups), len(g.counters)
				at, ok = aMessage, true
			}
			if !ok {
				at, ok = place(from.Name, c.Name, plain, begin)
			}
			if !ok {
				return nil, fmt.Errorf("where this kernel has the counter %s of %s is not known", c.Name, from.Name)
			}
			g.counters, g.at = append(g.counters, stats.Counter{Name: c.Name}), append(g.at, at)
		}
		f.groups = append(f.groups, g)
	}
	return f, nil
}

// elsewhere is where a figure is that is no counter but a setting.
func elsewhere(group, name string) (at int, ok bool) {
	switch group + "." + name {
	case "Ip.Forwarding":
		return forwarding, true
	case "Ip.DefaultTTL":
		return defaultTTL, true
	}
	return 0, false
}

// messageKind is what messages a counter counts by their type.
func messageKind(group, name string) (kind uint32, ok bool) {
	known, base := words, uint32(0)
	switch group {
	case "Icmp":
	case "Icmp6":
		known, base = words6, version6
	default:
		return 0, false
	}
	word, in := strings.CutPrefix(name, "In")
	if !in {
		word = strings.TrimPrefix(name, "Out")
		base += sent
	}
	kind, ok = known[word]
	return base + kind, ok
}

// place is where in a record's values a counter is.
func place(group, name string, places map[string]uint32, begin []uint64) (at int, ok bool) {
	mib, ok := groups[group]
	if !ok {
		return 0, false
	}
	names := []string{strings.ToUpper(name), strings.ToUpper(strings.TrimPrefix(name, "MP"))}
	for _, candidate := range slices.Concat(renamed[name], names) {
		if n, ok := places[mibs[mib]+candidate]; ok {
			at := begin[mib] + uint64(n)
			return int(at), at < begin[mib+1]
		}
	}
	return 0, false
}

// fill makes m what /proc would print of a record.
func (f *form) fill(m *stats.MIB, r *record) {
	*m = (*m)[:0]
	messages := r.message[:min(int(r.messages), len(r.message))]
	var at [16]int // of each of f.groups in m
	for k := range f.groups {
		at[k] = len(*m)
		f.groups[k].fill(add(m), r)
		if f.groups[k].name == "Icmp" && len(messages) > 0 && messages[0].kind < version6 {
			add(m).Name = "IcmpMsg"
		}
	}
	for _, n := range messages {
		kind := n.kind % uint32(len(f.typed))
		t := f.typed[kind]
		if t.counter >= 0 {
			(*m)[at[t.group]].Counters[t.counter].Value = int64(n.count)
		}
		name := "IcmpMsg"
		if kind >= version6 {
			name = "Icmp6"
		}
		for i := range *m {
			if g := &(*m)[i]; g.Name == name {
				g.Counters = append(g.Counters, stats.Counter{Name: f.others[kind%version6], Value: int64(n.count)})
			}
		}
	}
}

// add adds a group without counters. The memory of those that were there is used again.
func add(m *stats.MIB) *stats.Group {
	n := len(*m)
	if n == cap(*m) {
		*m = append(*m, stats.Group{})
	}
	*m = (*m)[:n+1]
	g := &(*m)[n]
	g.Counters = g.Counters[:0]
	return g
}

func (g *group) fill(to *stats.Group, r *record) {
	to.Name = g.name
	to.Counters = append(to.Counters, g.counters...)
	for k, at := range g.at {
		switch {
		case at >= 0:
			to.Counters[k].Value = int64(r.value[at&(len(r.value)-1)])
		case at == defaultTTL:
			to.Counters[k].Value = int64(r.ttl)
		case at == forwarding:
			to.Counters[k].Value = 2
			if r.forwarding != 0 {
				to.Counters[k].Value = 1
			}
		}
	}
}
