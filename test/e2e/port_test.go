package e2e_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/test/lab"
)

// bondModes are all there are.
var bondModes = []string{"balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"}

// newPortSite is a host whose three NICs are on one segment. Whatever ports a test
// leaves are destroyed at its end, with all virtual servers.
func newPortSite(t *testing.T) *site {
	t.Helper()
	lab.Require(t, "kind:bond")
	s := newSite(t, "eth1", "eth2", "eth3")
	t.Cleanup(func() { cleanPorts(t, s.Host) })
	return s
}

func cleanPorts(t *testing.T, h *lab.Host) {
	t.Helper()
	h.MustVsrun(t, "destroy", "--all", "--timeout", "1s")
	for _, p := range decoded[[]shownPort](t, h.MustVsrun(t, "port", "ls", "-o", "json")) {
		h.MustVsrun(t, "port", "destroy", p.Name)
	}
}

// A shownPort is what port show -o json says.
type shownPort struct {
	Name, State, Mode, MAC, Active string
	MTU                            int
	Members                        []struct {
		Name, State string
		Failures    int
	}
	Users, Drift []string
}

func (s *site) port(t *testing.T, name string) shownPort {
	t.Helper()
	return decoded[shownPort](t, s.MustVsrun(t, "port", "show", name, "-o", "json"))
}

// members is eth1:up,eth2:backup.
func (p shownPort) members() string {
	var list []string
	for _, m := range p.Members {
		list = append(list, m.Name+":"+m.State)
	}
	return strings.Join(list, ",")
}

// awaitMembers waits until the port's members stand so.
func (s *site) awaitMembers(t *testing.T, name, want string) {
	t.Helper()
	awaitLong(t, func() error {
		if got := s.port(t, name).members(); got != want {
			return fmt.Errorf("%s has %s, not %s", name, got, want)
		}
		return nil
	})
}

// awaitLong is soon without haste: each look is a process, dear in a virtual machine.
func awaitLong(t *testing.T, holds func() error) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("still, after 10 seconds: %v", err)
		}
	}
}

// addVS makes a virtual server on a port, 192.0.2.ID and 2001:db8::ID.
func (s *site) addVS(t *testing.T, id int, flags ...string) {
	t.Helper()
	args := []string{"create", fmt.Sprint(id), "--address", fmt.Sprintf("192.0.2.%d/24", id), "--address", fmt.Sprintf("2001:db8::%d/64", id)}
	s.MustVsrun(t, append(args, flags...)...)
}

// dump is all that a host's devices have that a bond could take from them: more than
// a snapshot tells, above all the order of addresses. What the kernel adds when it has
// noticed the carrier (linkwatch), up to a second later, is left to [lab.Host.Leaks].
func dump(t *testing.T, h *lab.Host) string {
	t.Helper()
	var b strings.Builder
	const all = "ip -o addr; { ip -4 route show table all; ip -6 route show table all; } | sort; ip -o link"
	for line := range strings.Lines(h.Run(t, "sh", "-c", all)) {
		if strings.Contains(line, " eth") && !late.MatchString(line) {
			b.WriteString(changing.ReplaceAllString(line, ""))
		}
	}
	return b.String()
}

var (
	late     = regexp.MustCompile(`fe80::\S*ff:fe|fe80::/64|ff00::/8`)
	changing = regexp.MustCompile(`^\d+: |@if\d+|state \S+ |,?(LOWER_UP|NO-CARRIER|M-DOWN),?`)
)

func mustBe(t *testing.T, h *lab.Host, before, format string, args ...any) {
	t.Helper()
	if d := cmp.Diff(before, dump(t, h)); d != "" {
		t.Fatalf("%s: what members have (-before +after):\n%s", fmt.Sprintf(format, args...), d)
	}
}

// ownAddresses are what members may have of their own.
var ownAddresses = []string{
	"addr add 198.51.100.1/24 broadcast 198.51.100.255 dev eth1 label eth1:x",
	"addr add 198.51.100.2/24 dev eth1", // a secondary one, without broadcast
	"addr add 203.0.113.1 peer 203.0.113.2/32 dev eth1",
	"addr add 203.0.113.9/29 dev eth1 noprefixroute",
	"addr add 198.18.0.1/24 dev eth1 scope link",
	"addr add 2001:db8:1::1/64 dev eth1 nodad",
	"addr add 2001:db8:3::1/128 dev eth1 nodad noprefixroute",
	"addr add 2001:db8:4::1 peer 2001:db8:4::2/128 dev eth1 nodad",
	"addr add fe80::1/64 dev eth1 nodad",
	"link set dev eth1 mtu 1400",
	"link set dev eth1 alias uplink-one",
	"link set dev eth2 down",
}

// giveOwn gives the members what they may have of their own until the test is over.
func giveOwn(t *testing.T, h *lab.Host) {
	t.Helper()
	script(t, h, ownAddresses...)
	t.Cleanup(func() {
		// Down takes IPv6 addresses along; what the kernel made comes again with up.
		script(t, h, "addr flush dev eth1", "link set dev eth1 down", "link set dev eth1 mtu 1500", "link set dev eth1 alias \"\"",
			"link set dev eth1 up", "link set dev eth2 up")
	})
}

// script runs lines of ip.
func script(t *testing.T, h *lab.Host, lines ...string) {
	t.Helper()
	h.Run(t, "sh", "-ec", "ip -batch - <<'END'\n"+strings.Join(lines, "\n")+"\nEND\n")
}

// These share a host, since making one takes longer than most of them. Each must
// leave it as it was.
func TestPort(t *testing.T) {
	s := newPortSite(t)
	for _, tt := range []struct {
		name string
		test func(*testing.T, *site)
	}{
		{"modes", portModes},
		{"failover", portFailover},
		{"failover by ARP", portFailoverByARP},
		{"share of the load", portShare},
		{"primary", portPrimary},
		{"live change", portLiveChange},
		{"replaced members", portReplacedMembers},
		{"vanished member", portVanishedMember},
		{"drift", portDrift},
		{"mtu", portMTU},
		{"mac", portMAC},
		{"refusals", portRefusals},
		{"in use", portInUse},
		{"crash", portCrash},
		{"again", portAgain},
		{"fifty", portFifty},
		{"dry run", portDryRun},
		{"after a reboot", portAfterReboot},
	} {
		t.Run(tt.name, func(t *testing.T) {
			began := time.Now()
			t.Cleanup(func() { t.Logf("took %v", time.Since(began).Round(100*time.Millisecond)) })
			t.Cleanup(func() { cleanPorts(t, s.Host) })
			tt.test(t, s)
		})
		awaitLong(t, func() error {
			if leaks := s.Leaks(); leaks != "" {
				return fmt.Errorf("%s left:\n%s", tt.name, leaks)
			}
			return nil
		})
	}
}

// In every mode a bond carries what sits on it, and its members are afterwards what
// they were before.
func portModes(t *testing.T, s *site) {
	giveOwn(t, s.Host)
	before := dump(t, s.Host)
	for _, mode := range bondModes {
		s.MustVsrun(t, "port", "create", "bond0", "--members", "eth1,eth2", "--mode", mode)
		if mode == "balance-rr" {
			s.addVS(t, 8, "--port", "bond0") // its own question comes back by the other member
		} else {
			s.addVS(t, 8, "--port", "bond0", "--no-probe")
		}
		for _, addr := range []string{"192.0.2.8", "2001:db8::8"} {
			if err := reach(s.client, addr); err != nil {
				t.Errorf("%s: %v", mode, err)
			}
		}
		got := s.port(t, "bond0")
		state := "up"
		if mode == "802.3ad" { // with nobody at the other end, one member waits
			state = "degraded"
		}
		if got.Mode != mode || got.State != state || got.MTU != 1400 || !slices.Equal(got.Users, []string{"vs8"}) {
			t.Errorf("%s: %+v", mode, got)
		}
		if r := s.Vsrun("diff"); r.Code != 0 {
			t.Errorf("%s: %v", mode, r)
		}
		s.MustVsrun(t, "destroy", "8")
		s.MustVsrun(t, "port", "destroy", "bond0")
		mustBe(t, s.Host, before, "%s", mode)
	}
}
