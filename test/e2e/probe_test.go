package e2e_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

// IPv6 addresses are no longer tentative when create returns, in whatever way
// they got there.
func TestIPv6IsUsableAtOnce(t *testing.T) {
	s := newSite(t)
	for _, flags := range [][]string{nil, {"--no-probe"}} {
		args := append([]string{"create", "8", "--port", "eth1", "--address", "2001:db8::8/64"}, flags...)
		s.MustVsrun(t, args...)
		began := time.Now()
		// That nobody has to wait is asked of the kernel: an answer may take long on a busy machine.
		if waiting := s.Run(t, "ip", "-n", "vs8", "-6", "address", "show", "tentative"); strings.Contains(waiting, "2001:db8::8") {
			t.Errorf("%v: %s", flags, waiting)
		}
		vs := s.In("vs8")
		err := vs.Do(func() error {
			l, err := net.Listen("tcp", "[2001:db8::8]:80")
			if err == nil {
				l.Close()
			}
			return err
		})
		if err != nil {
			t.Errorf("%v: cannot bind: %v", flags, err)
		}
		if r := s.client.TryRun("ping", "-n", "-c", "1", "-W", "10", "2001:db8::8"); r.Code != 0 {
			t.Error(flags, r)
		}
		t.Logf("create %v: bound and pinged %v after it returned", flags, time.Since(began).Round(time.Millisecond))
		if r := vs.TryRun("ping", "-n", "-c", "1", "-W", "10", "-I", "2001:db8::8", "2001:db8::100"); r.Code != 0 {
			t.Error(flags, r)
		}
		s.MustVsrun(t, "destroy", "8")
	}
}

// carries holds for frames that have an address in their payload.
func carries(addr string) func(lab.Frame) bool {
	b := netip.MustParseAddr(addr).AsSlice()
	return func(f lab.Frame) bool { return bytes.Contains(f.Payload, b) }
}

func not(holds func(lab.Frame) bool) func(lab.Frame) bool {
	return func(f lab.Frame) bool { return !holds(f) }
}

func TestProbesThenAnnounces(t *testing.T) {
	s := newSite(t)
	wire := s.client.Capture(t)
	s.MustVsrun(t, "create", "8", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64", "--address", "192.0.2.18/24")
	mac := s.mac(t, "vs8", "eth0")
	for _, addr := range []string{"192.0.2.8", "192.0.2.18", "2001:db8::8"} {
		if got := wire.Await(1, 10*time.Second, lab.Announces(addr)); len(got) != 1 {
			t.Errorf("%s is announced %d times, want 1: %v", addr, len(got), got)
		}
	}
	// Whatever else is on its way comes before the answer to this.
	if err := reach(s.client, "192.0.2.8"); err != nil {
		t.Error(err)
	}
	for _, addr := range []string{"192.0.2.8", "192.0.2.18", "2001:db8::8"} {
		all := wire.Frames(carries(addr))
		if len(all) < 4 {
			t.Fatalf("%s: only %v", addr, all)
		}
		for k, f := range all[:3] {
			if !lab.Probes(addr)(f) || f.Src.String() != mac {
				t.Errorf("frame %d with %s is no probe from %s: %v", k+1, addr, mac, f)
			}
		}
		announced := wire.Frames(lab.Announces(addr))
		if len(announced) != 1 { // each is copied to all on the port
			t.Errorf("%s is announced %d times, want 1: %v", addr, len(announced), announced)
		}
		for _, f := range announced {
			checkAnnouncement(t, f, mac)
		}
		t.Logf("%s: probes at 0, %v, %v, announced at %v", addr,
			all[1].Time.Sub(all[0].Time).Round(time.Millisecond), all[2].Time.Sub(all[0].Time).Round(time.Millisecond),
			announced[0].Time.Sub(all[0].Time).Round(time.Millisecond))
	}
	if v4 := wire.Frames(lab.Probes("192.0.2.8")); len(v4) != 3 {
		t.Errorf("%d ARP probes, want 3: %v", len(v4), v4)
	}
	if stray := wire.Frames(lab.From(mac), carries("192.0.2.100"), func(f lab.Frame) bool { return f.EtherType == unix.ETH_P_ARP && f.Payload[7] == 1 }); len(stray) > 1 {
		t.Errorf("it asks for others: %v", stray)
	}
}

// checkAnnouncement looks at what lab.Announces does not: whose MAC address is
// told, and whether it replaces what is known (RFC 4861, 4.4).
func checkAnnouncement(t *testing.T, f lab.Frame, mac string) {
	t.Helper()
	told, p := "", f.Payload
	switch f.EtherType {
	case unix.ETH_P_ARP:
		told = net.HardwareAddr(p[8:14]).String()
	case unix.ETH_P_IPV6:
		if p[44]&0x20 == 0 {
			t.Errorf("no override flag: %v", f)
		}
		if len(p) < 72 || p[64] != 2 || p[65] != 1 {
			t.Fatalf("no target address: %v", f)
		}
		told = net.HardwareAddr(p[66:72]).String()
	}
	if told != mac || f.Src.String() != mac {
		t.Errorf("%v tells %s, want %s", f, told, mac)
	}
}

func TestNoProbe(t *testing.T) {
	s := newSite(t)
	holder := s.seg.Client("holder", "192.0.2.8/24")
	wire := s.client.Capture(t)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--address", "2001:db8::8/64")
	wire.Await(1, 10*time.Second, lab.Announces("2001:db8::8"))
	if got := wire.Frames(lab.Probes("192.0.2.8")); len(got) != 0 {
		t.Errorf("told not to probe, it sent %v", got)
	}
	// The kernel asks once by itself, at about the same time.
	if got := wire.Frames(lab.Probes("2001:db8::8")); len(got) > 1 {
		t.Errorf("told not to probe, it sent %v", got)
	}
	if holder.MAC(t) == s.mac(t, "vs8", "eth0") {
		t.Error("two have one MAC address")
	}
}

func TestAddressInUseIsRefused(t *testing.T) {
	s := newSite(t)
	holder := s.seg.Client("holder", "192.0.2.8/24", "2001:db8::8/64")
	for _, addr := range []string{"192.0.2.8/24", "2001:db8::8/64"} {
		ip, _, _ := strings.Cut(addr, "/")
		r := s.Vsrun("create", "8", "--port", "eth1", "--address", "192.0.2.7/24", "--address", addr)
		want := fmt.Sprintf("%s is in use on the segment by %s\nhint: ", ip, holder.MAC(t))
		if r.Code != 1 || !strings.Contains(r.Stderr, want) || !strings.Contains(r.Stderr, "--no-probe") {
			t.Errorf("%v\nwant status 1 and %q", r, want)
		}
		if leaks := s.Leaks(); leaks != "" {
			t.Errorf("refused, it left\n%s", leaks)
		}
		if r := s.Vsrun("show", "8"); r.Code != 3 {
			t.Error(r)
		}
		if err := s.client.Silent("192.0.2.7"); err != nil {
			t.Error(err)
		}
	}
	// Enable probes again: somebody may have taken it meanwhile.
	s.MustVsrun(t, "create", "9", "--disabled", "--port", "eth1", "--address", "192.0.2.8/24")
	if r := s.Vsrun("enable", "9"); r.Code != 1 || !strings.Contains(r.Stderr, holder.MAC(t)) {
		t.Error(r)
	}
	if got := s.show(t, "9"); got.State != "disabled" {
		t.Errorf("after an enable that was refused it is %s", got.State)
	}
}

// Two that ask for one address at the same time see each other's question: not
// both may get it (RFC 5227, 2.1.1).
func TestTwoProbeForOneAddress(t *testing.T) {
	s := newSite(t, "eth1", "eth2")
	for _, addr := range []string{"192.0.2.8/24", "2001:db8::8/64"} {
		results := make([]lab.Result, 2)
		macs := make([]string, 2)
		done := make(chan struct{})
		for k := range results {
			// Another port, store and number: another host, as far as the two know.
			go func() {
				results[k] = s.Vsrun("create", fmt.Sprint(8+k), "--port", fmt.Sprint("eth", 1+k), "--address", addr,
					"--state-dir", filepath.Join(s.StateDir, fmt.Sprint("host", k)))
				macs[k] = derived(t, fmt.Sprint("vs", 8+k), "eth0")
				done <- struct{}{}
			}()
		}
		<-done
		<-done
		got := 0
		for k, r := range results {
			if r.Code == 0 {
				got++
			} else if !strings.Contains(r.Stderr, "is in use on the segment by "+macs[1-k]) {
				t.Errorf("%v\ndoes not name %s", r, macs[1-k])
			}
		}
		t.Logf("%s: %d of 2 got it", addr, got)
		if got > 1 {
			t.Errorf("both have %s", addr)
		}
		for k := range results {
			dir := filepath.Join(s.StateDir, fmt.Sprint("host", k))
			s.MustVsrun(t, "destroy", "--all", "--state-dir", dir)
			os.RemoveAll(dir)
		}
	}
}
