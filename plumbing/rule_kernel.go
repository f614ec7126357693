package plumbing

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// kernelRules are those that a namespace begins with and that its addresses and routes need
// (fib_default_rules_init() of IPv4, fib6_rules_net_init()). IPv4's third, of the table
// default, leads nowhere.
var kernelRules = []Rule{
	{Table: unix.RT_TABLE_LOCAL}, {Table: unix.RT_TABLE_MAIN, Priority: 32766},
	{IPv6: true, Table: unix.RT_TABLE_LOCAL}, {IPv6: true, Table: unix.RT_TABLE_MAIN, Priority: 32766},
}

// isKernelRule reports whether a rule does as the kernel's own, whoever has made it: the
// local one may have been put behind others.
func (r Rule) isKernelRule(own Rule, b []byte) bool {
	own.Priority = r.Priority
	return r == own && b[7] == unix.FR_ACT_TO_TBL && !isConditional(b)
}

// isConditional reports whether the rule has anything that is not in every rule: it may
// match less than all.
func isConditional(b []byte) (more bool) {
	eachAttr(b[unix.SizeofRtMsg:], func(typ uint16, value []byte) {
		switch typ {
		case unix.FRA_TABLE, unix.FRA_PRIORITY, unix.FRA_PROTOCOL, unix.FRA_PAD:
		case unix.FRA_SUPPRESS_PREFIXLEN: // -1: none
			more = more || number(value) != 1<<32-1
		default:
			more = true
		}
	})
	return more
}

// lostRules are the kernel's own that are not among those seen. A kernel with one table
// (CONFIG_IP_MULTIPLE_TABLES) has none.
func lostRules(seen []Rule, families map[bool]bool) (lost []Rule) {
	for _, own := range kernelRules {
		if families[own.IPv6] && !slices.Contains(seen, own) {
			lost = append(lost, own)
		}
	}
	return lost
}

// restoreRule brings back one of the kernel's own.
type restoreRule struct{ Rule }

func (s restoreRule) String() string {
	family := "IPv4"
	if s.IPv6 {
		family = "IPv6"
	}
	return fmt.Sprintf("restore %s rule %s", family, s.Rule)
}

func (s restoreRule) Command(p Place) string { return s.Rule.command(p, "add", "kernel") }
func (s restoreRule) undo() Step             { return nil }

func (s restoreRule) message(*Handle) (message, error) {
	return rule(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, s.Rule, unix.RTPROT_KERNEL), nil
}

func (s restoreRule) apply(_ context.Context, h *Handle) error { return send(s, h) }
