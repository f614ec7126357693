package plumbing

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// abBond is the bond that most cases are about.
func abBond(change func(*Bond)) Bond {
	b := Bond{Name: "bond0", Mode: ActiveBackup, Members: []string{"eth1", "eth2"}}
	if change != nil {
		change(&b)
	}
	return b
}

func TestValidateBond(t *testing.T) {
	var targets []netip.Addr
	for k := range 17 {
		targets = append(targets, netip.AddrFrom4([4]byte{192, 0, 2, byte(k + 1)}))
	}
	for _, tt := range []struct {
		name     string
		bond     Bond
		problems string
	}{
		{name: "the least", bond: abBond(nil)},
		{name: "one member", bond: abBond(func(b *Bond) { b.Members = []string{"eth1"} })},
		{name: "all there is", bond: abBond(func(b *Bond) {
			b.Miimon, b.UpDelay, b.DownDelay = 50, 100, 600_000
			b.Primary, b.PrimaryReselect, b.FailOverMAC, b.MTU = "eth2", "better", "follow", 65535
		})},
		{name: "delays go with the default miimon", bond: abBond(func(b *Bond) { b.UpDelay, b.DownDelay, b.MTU = 200, 100, 68 })},
		{name: "802.3ad", bond: abBond(func(b *Bond) {
			b.Mode, b.HashPolicy, b.LACPRate, b.MinLinks, b.MAC = LACP, "encap3+4", "fast", 2, mac8
		})},
		{name: "ARP", bond: abBond(func(b *Bond) { b.ARPInterval, b.ARPTargets, b.ARPValidate = 200, targets[:16], "filter_backup" })},
		{name: "a MAC and fail_over_mac none", bond: abBond(func(b *Bond) { b.FailOverMAC, b.MAC = "none", mac8 })},
		{name: "nothing", problems: `
name: a port has no name
members: bond  has no members
mode: mode "" is unknown: it is balance-rr, active-backup, balance-xor, broadcast, 802.3ad, balance-tlb, balance-alb`},
		{name: "names", bond: Bond{Name: "a-port-of-16-byt", Mode: BalanceRR, Members: []string{"", "a b", "eth1", "eth1", "eth/1"}}, problems: `
name: name "a-port-of-16-byt" is 16 bytes long: the kernel's limit is 15
members[0]: a member is missing
members[1]: "a b" cannot be a device's name
members[3]: member eth1 is there twice
members[4]: "eth/1" cannot be a device's name`},
		{name: "itself", bond: abBond(func(b *Bond) { b.Members = []string{"eth1", "bond0"} }), problems: `
members[1]: bond bond0 cannot be a member of itself`},
		{name: "the kernel's names", bond: Bond{Name: "lo", Mode: BalanceRR, Members: []string{"eth1"}}, problems: `
name: interface name "lo" is taken by the kernel`},
		{name: "an unknown mode does not hide the rest", bond: Bond{Name: "..", Mode: "bonded", Members: []string{".."}, Primary: "eth7"}, problems: `
name: ".." cannot be a device's name
members[0]: ".." cannot be a device's name
members[0]: bond .. cannot be a member of itself
mode: mode "bonded" is unknown: it is balance-rr, active-backup, balance-xor, broadcast, 802.3ad, balance-tlb, balance-alb`},
		{name: "options of other modes", bond: abBond(func(b *Bond) {
			b.Mode, b.Primary, b.PrimaryReselect, b.FailOverMAC, b.HashPolicy, b.LACPRate, b.MinLinks = BalanceRR, "eth1", "always", "none", "layer2", "slow", 1
		}), problems: `
primary: mode balance-rr knows no primary
primaryReselect: mode balance-rr knows no primary_reselect
failOverMac: mode balance-rr knows no fail_over_mac
hashPolicy: mode balance-rr knows no xmit_hash_policy
lacpRate: mode balance-rr knows no lacp_rate
minLinks: mode balance-rr knows no min_links`},
		{name: "unknown words", bond: abBond(func(b *Bond) {
			b.Primary, b.PrimaryReselect, b.FailOverMAC = "eth3", "never", "all"
		}), problems: `
primary: primary eth3 is no member
primaryReselect: primary_reselect "never" is unknown: it is always, better, failure
failOverMac: fail_over_mac "all" is unknown: it is none, active, follow`},
		{name: "numbers", bond: abBond(func(b *Bond) {
			b.Mode, b.Miimon, b.ARPInterval, b.UpDelay, b.DownDelay, b.MinLinks, b.MTU = LACP, -1, -1, 600_001, -100, 3, 67
		}), problems: `
miimon: miimon -1 is out of range: 0 to 600000
arpInterval: arpInterval -1 is out of range: 0 to 600000
upDelay: upDelay 600001 is out of range: 0 to 600000
upDelay: upDelay 600001 is no multiple of miimon, -1
downDelay: downDelay -100 is out of range: 0 to 600000
downDelay: downDelay -100 is no multiple of miimon, -1
arpInterval: mode 802.3ad cannot be monitored with ARP
minLinks: minLinks 3 is out of range: 0 to 2
mtu: mtu 67 is out of range: 68 to 65535`},
		{name: "delays", bond: abBond(func(b *Bond) { b.Miimon, b.UpDelay, b.DownDelay, b.MTU = 100, 150, 100, 65536 }), problems: `
upDelay: upDelay 150 is no multiple of miimon, 100
mtu: mtu 65536 is out of range: 68 to 65535`},
		{name: "two kinds of watching", bond: abBond(func(b *Bond) { b.Miimon, b.ARPInterval, b.ARPTargets = 100, 200, targets[:1] }), problems: `
arpInterval: a bond is monitored with miimon or with ARP, not both`},
		{name: "ARP without its interval", bond: abBond(func(b *Bond) { b.ARPTargets = targets[:1] }), problems: `
arpInterval: ARP monitoring needs arpInterval, in milliseconds`},
		{name: "ARP without targets", bond: abBond(func(b *Bond) { b.ARPInterval, b.UpDelay = 200, 200 }), problems: `
upDelay: upDelay 200 is no multiple of miimon, 0
arpTargets: ARP monitoring needs 1 to 16 targets`},
		{name: "too many targets", bond: abBond(func(b *Bond) { b.ARPInterval, b.ARPTargets = 200, targets }), problems: `
arpTargets: ARP monitoring needs 1 to 16 targets`},
		{name: "targets", bond: abBond(func(b *Bond) {
			b.ARPInterval, b.ARPValidate = 200, "some"
			b.ARPTargets = append(addrs("2001:db8::1", "0.0.0.0", "224.0.0.1", "127.0.0.1", "255.255.255.255", "192.0.2.1", "192.0.2.1"), netip.Addr{})
		}), problems: `
arpTargets[0]: 2001:db8::1 cannot be a target: it is a neighbour's IPv4 address
arpTargets[1]: 0.0.0.0 cannot be a target: it is a neighbour's IPv4 address
arpTargets[2]: 224.0.0.1 cannot be a target: it is a neighbour's IPv4 address
arpTargets[3]: 127.0.0.1 cannot be a target: it is a neighbour's IPv4 address
arpTargets[4]: 255.255.255.255 cannot be a target: it is a neighbour's IPv4 address
arpTargets[6]: target 192.0.2.1 is there twice
arpTargets[7]: invalid IP cannot be a target: it is a neighbour's IPv4 address
arpValidate: arp_validate "some" is unknown: it is none, active, backup, all, filter, filter_active, filter_backup`},
		{name: "a MAC that the kernel would ignore", bond: abBond(func(b *Bond) { b.FailOverMAC, b.MAC = "active", mac8 }), problems: `
mac: with fail_over_mac active the bond has its active member's MAC: leave one of them out`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var lines []string
			for _, p := range tt.bond.Validate() {
				lines = append(lines, fmt.Sprintf("%s: %s", p.Path, p.Err))
			}
			if d := cmp.Diff(strings.TrimPrefix(tt.problems, "\n"), strings.Join(lines, "\n")); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}

// What a mode does not know is neither set nor compared.
func TestSettings(t *testing.T) {
	for mode, want := range map[string]string{
		"balance-rr":    "mode balance-rr miimon 100 updelay 0 downdelay 0 arp_interval 0 num_grat_arp 3",
		"active-backup": "mode active-backup miimon 100 updelay 0 downdelay 0 arp_interval 0 primary_reselect always fail_over_mac none num_grat_arp 3",
		"balance-xor":   "mode balance-xor miimon 100 updelay 0 downdelay 0 arp_interval 0 xmit_hash_policy layer2 num_grat_arp 3",
		"broadcast":     "mode broadcast miimon 100 updelay 0 downdelay 0 arp_interval 0 num_grat_arp 3",
		"802.3ad":       "mode 802.3ad miimon 100 updelay 0 downdelay 0 xmit_hash_policy layer2 num_grat_arp 3 min_links 0 lacp_rate slow",
		"balance-tlb":   "mode balance-tlb miimon 100 updelay 0 downdelay 0 primary_reselect always xmit_hash_policy layer2 num_grat_arp 3",
		"balance-alb":   "mode balance-alb miimon 100 updelay 0 downdelay 0 primary_reselect always num_grat_arp 3",
	} {
		if got := optionWords(abBond(func(b *Bond) { b.Mode = BondMode(mode) }).settings()); got != want {
			t.Errorf("%s:\n%s\nnot\n%s", mode, got, want)
		}
		if !slices.Contains(bondModes, mode) {
			t.Errorf("%s is unknown", mode)
		}
	}
	got := optionWords(abBond(func(b *Bond) {
		b.ARPInterval, b.ARPTargets, b.ARPValidate, b.Primary, b.PrimaryReselect = 200, addrs("192.0.2.9", "192.0.2.10"), "all", "eth2", "failure"
	}).settings())
	// Delays count in miimon's steps: there are none.
	if want := "mode active-backup miimon 0 arp_interval 200 arp_ip_target 192.0.2.10,192.0.2.9 arp_validate all primary_reselect failure fail_over_mac none num_grat_arp 3 primary eth2"; got != want {
		t.Errorf("ARP:\n%s\nnot\n%s", got, want)
	}
}
