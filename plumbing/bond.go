package plumbing

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A Bond is a port that is made of other ports, its members
// (Documentation/networking/bonding.rst). Where an option is zero, the kernel's
// default holds; but links are always watched, so that a failed member is left.
type Bond struct {
	Name    string   `json:"name" yaml:"name"` // 1–15 bytes
	Mode    BondMode `json:"mode" yaml:"mode"`
	Members []string `json:"members" yaml:"members"` // the first gives the bond its MAC

	Miimon    int `json:"miimon,omitempty" yaml:"miimon,omitempty"`       // ms between looks at the carrier; 0: 100, or none with ARP
	UpDelay   int `json:"upDelay,omitempty" yaml:"upDelay,omitempty"`     // ms, a multiple of miimon
	DownDelay int `json:"downDelay,omitempty" yaml:"downDelay,omitempty"` // ms, a multiple of miimon

	ARPInterval int          `json:"arpInterval,omitempty" yaml:"arpInterval,omitempty"` // ms between questions
	ARPTargets  []netip.Addr `json:"arpTargets,omitempty" yaml:"arpTargets,omitempty"`   // IPv4, at most 16
	ARPValidate string       `json:"arpValidate,omitempty" yaml:"arpValidate,omitempty"` // none, active, backup, all, filter…

	Primary         string `json:"primary,omitempty" yaml:"primary,omitempty"`                 // the member that is preferred
	PrimaryReselect string `json:"primaryReselect,omitempty" yaml:"primaryReselect,omitempty"` // always, better, failure
	FailOverMAC     string `json:"failOverMac,omitempty" yaml:"failOverMac,omitempty"`         // none, active, follow
	HashPolicy      string `json:"hashPolicy,omitempty" yaml:"hashPolicy,omitempty"`           // layer2, layer3+4, …
	LACPRate        string `json:"lacpRate,omitempty" yaml:"lacpRate,omitempty"`               // slow, fast
	MinLinks        int    `json:"minLinks,omitempty" yaml:"minLinks,omitempty"`               // members that the carrier needs

	MTU int `json:"mtu,omitempty" yaml:"mtu,omitempty"` // bytes, 68–65535; 0: the members' smallest when it is made
	MAC MAC `json:"mac,omitzero" yaml:"mac,omitempty"`
}

// A BondMode is how a bond uses its members.
type BondMode string

// The modes that others depend on; bondModes has all.
const (
	BalanceRR    BondMode = "balance-rr"
	ActiveBackup BondMode = "active-backup"
	BalanceXOR   BondMode = "balance-xor"
	LACP         BondMode = "802.3ad"
	BalanceTLB   BondMode = "balance-tlb"
	BalanceALB   BondMode = "balance-alb"
)

// bondModes are in the order of the kernel's numbers (BOND_MODE_ROUNDROBIN is 0).
var bondModes = []string{"balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"}

// A bondOption is an option of a bond under iproute2's name, and its place in
// netlink (IFLA_BOND_…, include/uapi/linux/if_link.h).
type bondOption struct {
	name  string
	attr  uint16
	bytes int        // 1 or 4
	words []string   // where it is one of these, in the order of their numbers
	modes []BondMode // that know it; nil: all
	idle  bool       // it can be changed only while the bond is down and has no members
}

var bondOptions = []bondOption{
	{name: "mode", attr: 1, bytes: 1, words: bondModes, idle: true},
	{name: "miimon", attr: 3, bytes: 4},
	{name: "updelay", attr: 4, bytes: 4},
	{name: "downdelay", attr: 5, bytes: 4},
	{name: "arp_interval", attr: 7, bytes: 4, modes: arpModes},
	{name: "arp_ip_target", attr: 8, modes: arpModes},
	{name: "arp_validate", attr: 9, bytes: 4, modes: arpModes,
		words: []string{"none", "active", "backup", "all", "filter", "filter_active", "filter_backup"}},
	{name: "primary", attr: 11, bytes: 4, modes: primaryModes},
	{name: "primary_reselect", attr: 12, bytes: 1, modes: primaryModes, words: []string{"always", "better", "failure"}},
	{name: "fail_over_mac", attr: 13, bytes: 1, modes: []BondMode{ActiveBackup}, idle: true,
		words: []string{"none", "active", "follow"}},
	{name: "xmit_hash_policy", attr: 14, bytes: 1, modes: []BondMode{BalanceXOR, LACP, BalanceTLB},
		words: []string{"layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"}},
	{name: "num_grat_arp", attr: 16, bytes: 1},
	{name: "min_links", attr: 18, bytes: 4, modes: []BondMode{LACP}},
	{name: "lacp_rate", attr: 21, bytes: 1, modes: []BondMode{LACP}, words: []string{"slow", "fast"}, idle: true},
}

var (
	arpModes     = []BondMode{BalanceRR, ActiveBackup, BalanceXOR, "broadcast"}
	primaryModes = []BondMode{ActiveBackup, BalanceTLB, BalanceALB}
)

func optionNamed(name string) bondOption {
	k := slices.IndexFunc(bondOptions, func(o bondOption) bool { return o.name == name })
	return bondOptions[k]
}

func (o bondOption) known(m BondMode) bool { return o.modes == nil || slices.Contains(o.modes, m) }

// number is the kernel's for a value.
func (o bondOption) number(value string) int {
	if o.words != nil {
		return slices.Index(o.words, value)
	}
	n, _ := strconv.Atoi(value)
	return n
}

// word is the value for the kernel's number.
func (o bondOption) word(number int) string {
	if o.words == nil {
		return strconv.Itoa(number)
	}
	if number < 0 || number >= len(o.words) {
		return ""
	}
	return o.words[number]
}

// A setting is an option with its value, both as iproute2 writes them.
type setting struct{ name, value string }

// defaultMiimon is how often the carrier of the members is looked at, in ms.
const defaultMiimon = 100

// announcements is how often a bond tells the segment after a failover; what sits on
// it, in whatever namespace, does the same (NETDEV_NOTIFY_PEERS).
const announcements = 3

// settings are what the bond's options should be, as far as the mode knows them, in
// an order that the kernel takes. The primary comes last, when it is a member.
func (b Bond) settings() []setting {
	number := strconv.Itoa
	list := []setting{{"mode", string(b.Mode)}, {"miimon", number(b.miimon())}}
	add := func(name, value string) {
		if optionNamed(name).known(b.Mode) && value != "" {
			list = append(list, setting{name, value})
		}
	}
	if b.miimon() > 0 {
		add("updelay", number(b.UpDelay))
		add("downdelay", number(b.DownDelay))
	}
	add("arp_interval", number(b.ARPInterval))
	if b.ARPInterval > 0 {
		add("arp_ip_target", join(b.ARPTargets))
		add("arp_validate", or(b.ARPValidate, "none"))
	}
	add("primary_reselect", or(b.PrimaryReselect, "always"))
	add("fail_over_mac", or(b.FailOverMAC, "none"))
	add("xmit_hash_policy", or(b.HashPolicy, "layer2"))
	add("num_grat_arp", number(announcements))
	add("min_links", number(b.MinLinks))
	add("lacp_rate", or(b.LACPRate, "slow"))
	add("primary", b.Primary)
	return list
}

func (b Bond) miimon() int {
	if b.Miimon == 0 && b.ARPInterval == 0 {
		return defaultMiimon
	}
	return b.Miimon
}

func or(value, standard string) string {
	if value == "" {
		return standard
	}
	return value
}

func join(addrs []netip.Addr) string {
	var words []string
	for _, a := range addrs {
		words = append(words, a.String())
	}
	slices.Sort(words)
	return strings.Join(words, ",")
}

// Validate reports everything that is wrong with the bond and can be known
// without the kernel.
func (b Bond) Validate() []Problem {
	var list []Problem
	p := problems{list: &list}
	if b.Name == "" {
		p.in("name").add("a port has no name")
	} else {
		p.in("name").check(CheckIfname(b.Name))
	}
	b.validateMembers(p)
	if !slices.Contains(bondModes, string(b.Mode)) { // what else is wrong depends on it
		p.in("mode").add("mode %q is unknown: it is %s", b.Mode, strings.Join(bondModes, ", "))
		return list
	}
	b.validatePrimary(p)
	b.validateMonitor(p)
	for _, o := range []struct{ field, name, value string }{
		{"arpValidate", "arp_validate", b.ARPValidate},
		{"primaryReselect", "primary_reselect", b.PrimaryReselect},
		{"failOverMac", "fail_over_mac", b.FailOverMAC},
		{"hashPolicy", "xmit_hash_policy", b.HashPolicy},
		{"lacpRate", "lacp_rate", b.LACPRate},
	} {
		option := optionNamed(o.name)
		switch {
		case o.value == "":
		case !option.known(b.Mode):
			p.in(o.field).add("mode %s knows no %s", b.Mode, o.name)
		case !slices.Contains(option.words, o.value):
			p.in(o.field).add("%s %q is unknown: it is %s", o.name, o.value, strings.Join(option.words, ", "))
		}
	}
	if b.MinLinks != 0 && b.Mode != LACP {
		p.in("minLinks").add("mode %s knows no min_links", b.Mode)
	}
	p.in("minLinks").check(inRange("minLinks", b.MinLinks, 0, int64(max(len(b.Members), 1))))
	if b.MTU != 0 {
		p.in("mtu").check(inRange("mtu", b.MTU, 68, 65535))
	}
	if b.FailOverMAC != "" && b.FailOverMAC != "none" && !b.MAC.IsZero() { // the kernel says yes, and leaves it
		p.in("mac").add("with fail_over_mac %s the bond has its active member's MAC: leave one of them out", b.FailOverMAC)
	}
	return list
}

func (b Bond) validateMembers(p problems) {
	if len(b.Members) == 0 {
		p.in("members").add("bond %s has no members", b.Name)
	}
	for k, m := range b.Members {
		at := p.item("members", k)
		at.check(checkDevice(m))
		switch {
		case m == "":
			at.add("a member is missing")
		case m == b.Name:
			at.add("bond %s cannot be a member of itself", m)
		case slices.Contains(b.Members[:k], m):
			at.add("member %s is there twice", m)
		}
	}
}

func (b Bond) validatePrimary(p problems) {
	switch {
	case b.Primary == "":
	case !slices.Contains(primaryModes, b.Mode):
		p.in("primary").add("mode %s knows no primary", b.Mode)
	case !slices.Contains(b.Members, b.Primary):
		p.in("primary").add("primary %s is no member", b.Primary)
	}
}

// maxTargets is BOND_MAX_ARP_TARGETS.
const maxTargets = 16

// maxInterval keeps a bond watched, in ms: the kernel takes up to INT_MAX.
const maxInterval = 600_000

func (b Bond) validateMonitor(p problems) {
	p.in("miimon").check(inRange("miimon", b.Miimon, 0, maxInterval))
	p.in("arpInterval").check(inRange("arpInterval", b.ARPInterval, 0, maxInterval))
	for _, d := range []struct {
		field string
		ms    int
	}{{"upDelay", b.UpDelay}, {"downDelay", b.DownDelay}} {
		at := p.in(d.field)
		at.check(inRange(d.field, d.ms, 0, maxInterval))
		if m := b.miimon(); d.ms != 0 && (m <= 0 || d.ms%m != 0) {
			at.add("%s %d is no multiple of miimon, %d", d.field, d.ms, m)
		}
	}
	if b.ARPInterval == 0 {
		if len(b.ARPTargets) > 0 || b.ARPValidate != "" {
			p.in("arpInterval").add("ARP monitoring needs arpInterval, in milliseconds")
		}
		return
	}
	switch {
	case !slices.Contains(arpModes, b.Mode):
		p.in("arpInterval").add("mode %s cannot be monitored with ARP", b.Mode)
	case b.Miimon != 0:
		p.in("arpInterval").add("a bond is monitored with miimon or with ARP, not both")
	case len(b.ARPTargets) == 0 || len(b.ARPTargets) > maxTargets:
		p.in("arpTargets").add("ARP monitoring needs 1 to %d targets", maxTargets)
	}
	for k, a := range b.ARPTargets {
		if !a.Is4() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			p.item("arpTargets", k).add("%s cannot be a target: it is a neighbour's IPv4 address", a)
		}
		if slices.Contains(b.ARPTargets[:k], a) {
			p.item("arpTargets", k).add("target %s is there twice", a)
		}
	}
}

func (s setting) String() string { return fmt.Sprintf("%s %s", s.name, or(s.value, "none")) }
