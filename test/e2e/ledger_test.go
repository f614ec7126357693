package e2e_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

// A ledger is what vsrun ledger show -o json says.
type ledger struct {
	Since      time.Time
	Gaps       int
	Lost       float64
	Interfaces []struct {
		Name string
		counters
	}
	Removed counters
	Total   counters
	MIB     map[string]map[string]int64
	Kept    struct {
		Time  time.Time
		Total counters
		MIB   map[string]map[string]int64
	}
}

func (s *site) ledger(t *testing.T, id string) ledger {
	t.Helper()
	return decoded[struct{ Ledger ledger }](t, s.MustVsrun(t, "ledger", "show", id, "-o", "json")).Ledger
}

// An audit follows a ledger beside the traffic that a virtual server really had.
type audit struct {
	*site
	id, ns, addr string
	sent         uint64 // by the virtual server, at least
	last         ledger
}

const parcel = 1_000_000

// send has the virtual server send a parcel.
func (a *audit) send(t *testing.T) {
	t.Helper()
	transfer(t, a.site, a.ns, a.addr, parcel)
	a.sent += parcel
}

// check compares: what was sent is counted, once, and nothing went back.
func (a *audit) check(t *testing.T, after string) ledger {
	t.Helper()
	now := a.ledger(t, a.id)
	// Headers and announcements come on top: less than a tenth.
	if got := now.Total.TxBytes; got < a.sent || got > a.sent+a.sent/10+20_000 {
		t.Errorf("after %s it has sent %d bytes, and counts %d", after, a.sent, got)
	}
	if octets := uint64(now.MIB["IpExt"]["OutOctets"]); octets < a.sent || octets > now.Total.TxBytes {
		t.Errorf("after %s it has sent %d bytes, IP counts %d and interfaces %d", after, a.sent, octets, now.Total.TxBytes)
	}
	if now.Kept.Total.TxBytes < a.last.Kept.Total.TxBytes || now.Kept.Total.TxBytes > now.Total.TxBytes {
		t.Errorf("after %s what is kept went from %d to %d, of %d", after, a.last.Kept.Total.TxBytes, now.Kept.Total.TxBytes, now.Total.TxBytes)
	}
	if !a.last.Since.IsZero() && !now.Since.Equal(a.last.Since) {
		t.Errorf("after %s it counts since %v, not %v", after, now.Since, a.last.Since)
	}
	a.last = now
	return now
}

func newAudit(t *testing.T, s *site) *audit {
	t.Helper()
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24")
	return &audit{site: s, id: "8", ns: "vs8", addr: "192.0.2.8"}
}

func (a *audit) expectGaps(t *testing.T, after string, want int) {
	t.Helper()
	if got := a.ledger(t, a.id).Gaps; got != want {
		t.Errorf("after %s there are %d gaps, want %d", after, got, want)
	}
}

// Counting goes on over everything that begins anew in the kernel.
func TestLedger(t *testing.T) {
	a := newAudit(t, newSite(t))
	a.send(t)
	a.check(t, "create")
	a.MustVsrun(t, "disable", "8")
	a.check(t, "disable")
	a.MustVsrun(t, "enable", "8", "--no-probe")
	a.check(t, "enable")
	a.send(t)
	a.check(t, "another transfer")

	a.MustVsrun(t, "detach", "8", "eth0")
	if got := a.check(t, "detach"); got.Kept.Total != got.Total {
		t.Errorf("without an interface %+v is kept of %+v", got.Kept.Total, got.Total)
	}
	startVSD(t, a.Host).Stop()
	if got := a.check(t, "a checkpoint"); len(got.Interfaces) != 0 || got.Removed != got.Total {
		t.Errorf("of an interface that was detached it says %+v, and %+v of those removed", got.Interfaces, got.Removed)
	}
	a.MustVsrun(t, "attach", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24", "--mac", "02:00:00:00:00:08")
	a.send(t)
	got := a.check(t, "attach")
	if len(got.Interfaces) != 1 || got.Removed.TxBytes < 2*parcel || got.Interfaces[0].TxBytes > 2*parcel {
		t.Errorf("of an interface that was attached anew it says %+v, and %+v of those removed", got.Interfaces, got.Removed)
	}
	a.MustVsrun(t, "shutdown")
	a.MustVsrun(t, "boot")
	a.check(t, "shutdown and boot")

	startIPMD(t, a.Host)
	through, direct := readStats(t, a.Host, "8"), decoded[[]sample](t, a.MustVsrun(t, "stats", "8", "-o", "json", "--direct"))
	if through[0].Ledger == nil || through[0].Ledger.Total.TxBytes < a.sent || direct[0].Ledger == nil {
		t.Errorf("stats has %+v, straight from the kernel %+v", through[0].Ledger, direct[0].Ledger)
	}
	if text := a.MustVsrun(t, "stats", "8"); !strings.Contains(text, "\nID  NAME  SINCE ") {
		t.Errorf("stats shows\n%s", text)
	}
	families, err := parseMetrics(curlIPMD(t, a.Host, "/metrics"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vsrun_ledger_transmit_bytes_total", "vsrun_ledger_netstat_IpExt_OutOctets_total"} {
		if v := families[name].GetMetric()[0].GetCounter().GetValue(); v < float64(a.sent) {
			t.Errorf("%s is %v, of %d bytes that were sent", name, v, a.sent)
		}
	}
	a.expectGaps(t, "all of this", 0)
	a.MustVsrun(t, "destroy", "8")
	a.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24")
	if got := a.ledger(t, "8"); got.Total.TxBytes > parcel || !got.Since.After(a.last.Since) {
		t.Errorf("created again it counts %d bytes, since %v", got.Total.TxBytes, got.Since)
	}
}

// An interface that is made anew counts from zero: what the one before it had is not
// lost, though the new one counts more before anybody looks.
func TestLedgerOfAnInterfaceMadeAnew(t *testing.T) {
	a := newAudit(t, newSite(t))
	for k := range 3 {
		for range 1 << k {
			a.send(t)
		}
		document := fmt.Sprintf("id: 8\ninterfaces:\n- {name: eth0, port: eth1, mac: 02:00:00:00:01:%02x, addresses: [192.0.2.8/24]}\n", k)
		if r := a.VsrunIn(document, "apply", "--no-probe", "-f", "-"); r.Code != 0 {
			t.Fatal(r)
		}
	}
	a.check(t, "its MAC was changed, and again")
	a.MustVsrun(t, "disable", "8")
	a.check(t, "disable")
	a.expectGaps(t, "all of this", 0)
}

// What somebody else's namespace counts is not a virtual server's, though it has the name.
func TestLedgerBesideANamespaceThatIsNotOurs(t *testing.T) {
	a := newAudit(t, newSite(t))
	a.send(t)
	a.MustVsrun(t, "disable", "8")
	was := a.check(t, "disable")
	a.MustVsrun(t, "create", "9", "--no-probe", "--port", "eth1", "--address", "192.0.2.10/24") // else there is no checkpoint
	a.Run(t, "ip", "netns", "add", "vs8")
	a.Run(t, "ip", "link", "add", "link", "eth1", "name", "theirs", "netns", "vs8", "type", "macvlan", "mode", "bridge")
	a.In("vs8").Run(t, "ip", "link", "set", "dev", "theirs", "up")
	a.In("vs8").Run(t, "ip", "address", "add", "192.0.2.9/24", "dev", "theirs")
	transfer(t, a.site, "vs8", "192.0.2.9", parcel)
	startVSD(t, a.Host).Stop()
	if got := a.check(t, "a checkpoint"); got.Total != was.Total || got.Kept.Total != was.Kept.Total {
		t.Errorf("it counts %+v, of which %+v is kept; it had %+v", got.Total, got.Kept.Total, was.Total)
	}
	a.Run(t, "ip", "netns", "del", "vs8")
	a.MustVsrun(t, "enable", "8", "--no-probe")
	a.check(t, "enable")
	a.expectGaps(t, "all of this", 0)
}

// startVSD starts vsd, which has written what was counted when this returns.
func startVSD(t *testing.T, h *lab.Host, args ...string) *lab.Process {
	t.Helper()
	path := filepath.Join(h.StateDir, "ledger.json")
	before, _ := os.Stat(path)
	p := h.Start(t, append([]string{filepath.Join(lab.Programs(t), "vsd")}, args...)...)
	t.Cleanup(func() { p.Stop(); os.Remove(filepath.Join(h.RunDir, "vsd.sock")) })
	soon(t, func() error {
		now, err := os.Stat(path)
		if err == nil && before != nil && os.SameFile(before, now) {
			err = fmt.Errorf("vsd has not written yet; it says %s", p.Output())
		}
		return err
	})
	return p
}

// What vanishes with figures that nobody had written is told as a gap; what a
// checkpoint had is kept.
func TestLedgerGaps(t *testing.T) {
	a := newAudit(t, newSite(t))
	a.send(t)
	vsd := startVSD(t, a.Host)
	vsd.Stop() // killed
	if got := a.check(t, "a checkpoint"); got.Kept.Total.TxBytes < parcel {
		t.Errorf("vsd has kept %d bytes of %d", got.Kept.Total.TxBytes, parcel)
	}
	transfer(t, a.site, a.ns, a.addr, parcel/4) // is lost
	a.Run(t, "ip", "netns", "del", "vs8")
	a.MustVsrun(t, "enable", "8", "--no-probe")
	a.check(t, "its namespace was deleted")
	a.expectGaps(t, "its namespace was deleted", 1)
	a.send(t)
	a.check(t, "another transfer")

	startVSD(t, a.Host).Stop()
	a.In("vs8").Run(t, "ip", "link", "del", "eth0")
	a.MustVsrun(t, "enable", "8", "--no-probe")
	a.check(t, "its interface was deleted")
	a.expectGaps(t, "its interface was deleted", 2)

	// With vsd, which hears what it had counted, nothing is lost.
	vsd = startVSD(t, a.Host)
	a.send(t)
	a.In("vs8").Run(t, "ip", "link", "del", "eth0")
	soon(t, func() error {
		if r := a.Vsrun("diff", "8"); r.Code != 0 {
			return errors.New(r.Stdout)
		}
		return nil
	})
	vsd.Stop()
	a.check(t, "its interface was deleted beside vsd")
	a.expectGaps(t, "its interface was deleted beside vsd", 2)

	// What was not put on the network has nothing to lose.
	a.MustVsrun(t, "disable", "8")
	a.client.Run(t, "ip", "address", "add", "192.0.2.8/32", "dev", "eth0")
	if r := a.Vsrun("enable", "8"); r.Code != 1 {
		t.Error(r)
	}
	a.client.Run(t, "ip", "address", "del", "192.0.2.8/32", "dev", "eth0")
	a.MustVsrun(t, "enable", "8", "--no-probe")
	a.check(t, "its address was taken")
	a.expectGaps(t, "its address was taken", 2)

	// Before any checkpoint nothing is known of it, but that it was there.
	a.MustVsrun(t, "disable", "8")
	a.MustVsrun(t, "enable", "8", "--no-probe")
	a.Run(t, "ip", "netns", "del", "vs8")
	a.MustVsrun(t, "disable", "8")
	a.check(t, "nobody had looked at it")
	a.expectGaps(t, "nobody had looked at it", 3)
}

// Whenever vsrun is killed while it takes a virtual server down, and again, nothing
// is missing, and nothing is counted twice.
func TestLedgerOfAKilledTeardown(t *testing.T) {
	a := newAudit(t, newSite(t))
	a.MustVsrun(t, "disable", "8")
	a.MustVsrun(t, "enable", "8", "--no-probe")
	whole := crash(t, time.Minute, "", "disable", "8")
	const runs = 12
	for k := range runs {
		a.MustVsrun(t, "enable", "8", "--no-probe")
		a.send(t)
		crash(t, whole*time.Duration(k+1)/runs, "", "disable", "8")
		if k%2 == 0 {
			a.MustVsrun(t, "disable", "8")
		}
		a.check(t, fmt.Sprintf("it was killed, the %d. time", k+1))
	}
	a.MustVsrun(t, "disable", "8")
	a.check(t, "disable")
	a.expectGaps(t, "all of this", 0)
}

// A ledger that cannot be used keeps nobody from anything.
func TestLedgerSpoiled(t *testing.T) {
	a := newAudit(t, newSite(t))
	a.send(t)
	a.MustVsrun(t, "disable", "8")
	path := filepath.Join(a.StateDir, "vs8", "ledger.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	began := a.check(t, "disable").Since
	for name, spoiled := range map[string]string{
		"nothing":  "",
		"half":     string(text[:len(text)/2]),
		"changed":  strings.Replace(string(text), `"txBytes":1`, `"txBytes":2`, 1),
		"a letter": "x",
	} {
		if err := os.WriteFile(path, []byte(spoiled), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := a.Vsrun("ledger", "show", "8"); r.Code != 1 || !strings.Contains(r.Stderr, "cannot read the ledger of vs8: it is spoiled") {
			t.Errorf("%s: %v", name, r)
		}
		r := a.Vsrun("enable", "8", "--no-probe")
		if r.Code != 0 || !strings.Contains(r.Stderr, "put aside as "+strings.TrimSuffix(path, ".json")+"-") {
			t.Errorf("%s: %v", name, r)
		}
		if got := a.ledger(t, "8"); got.Total.TxBytes > parcel || !got.Since.After(began) {
			t.Errorf("%s: it counts %d bytes since %v", name, got.Total.TxBytes, got.Since)
		}
		if r := a.Vsrun("disable", "8"); r.Code != 0 || r.Stderr != "" {
			t.Errorf("%s: %v", name, r)
		}
	}
	aside, _ := filepath.Glob(strings.TrimSuffix(path, ".json") + "-*.spoiled")
	if len(aside) != 4 {
		t.Errorf("of four spoiled files there are %v", aside)
	}
}

// Without room, or on a disk that cannot be written, virtual servers are taken down
// and shown all the same, and what is missing then is told.
func TestLedgerWithoutRoom(t *testing.T) {
	s := newSite(t)
	if err := os.MkdirAll(s.StateDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", s.StateDir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Vsrun("destroy", "--all")
		unix.Unmount(s.StateDir, 0)
	})
	a := newAudit(t, s)
	a.send(t)
	a.check(t, "create")
	ballast := filepath.Join(s.StateDir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 64<<10), 0o600); err == nil {
		t.Fatal("the disk is not small")
	}
	r := a.Vsrun("shutdown")
	if r.Code != 0 || !strings.Contains(r.Stderr, "cannot keep the ledger of vs8: ") || !strings.Contains(r.Stderr, "no space left on device") {
		t.Error(r)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	a.MustVsrun(t, "boot")
	a.expectGaps(t, "the disk was full", 1)
	a.sent = 0

	if err := unix.Mount("", s.StateDir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	startIPMD(t, s.Host)
	if got := readStats(t, s.Host, "8"); got[0].Ledger == nil {
		t.Error("on a read-only disk stats has no ledger")
	}
	a.check(t, "the disk became read-only")
	if err := unix.Mount("", s.StateDir, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
}

// A virtual server takes its figures along to another node, once.
func TestLedgerMoves(t *testing.T) {
	a := newAudit(t, newSite(t))
	a.send(t)
	early := a.MustVsrun(t, "ledger", "export", "8")
	a.send(t)
	a.MustVsrun(t, "disable", "8")
	late := a.MustVsrun(t, "ledger", "export", "8")
	was := a.check(t, "disable")

	// The other node is another state directory.
	a.MustVsrun(t, "destroy", "8")
	a.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24")
	for k, c := range []struct{ export, says string }{
		{early, "goes on"}, {late, "goes on"}, {late, "unchanged"}, {early, "unchanged"},
	} {
		r := a.VsrunIn(c.export, "ledger", "import", "8", "-")
		if r.Code != 0 || !strings.Contains(r.Stdout, c.says) {
			t.Errorf("import %d: %v", k+1, r)
		}
	}
	if got := a.ledger(t, "8"); !got.Since.Equal(was.Since) {
		t.Errorf("it counts since %v, where the other began at %v", got.Since, was.Since)
	}
	a.last = ledger{}
	a.send(t)
	a.check(t, "the move")
	if r := a.VsrunIn(strings.Replace(late, "rxBytes", "rxBites", 1), "ledger", "import", "8", "-"); r.Code != 1 {
		t.Error(r)
	}
	a.MustVsrun(t, "disable", "8")
	a.check(t, "the move, and disable")

	if out := a.MustVsrun(t, "ledger", "reset", "8"); !strings.Contains(out, "vs8 counts from zero") {
		t.Error(out)
	}
	a.sent, a.last = 0, ledger{}
	a.MustVsrun(t, "enable", "8", "--no-probe")
	a.send(t)
	a.check(t, "reset")
	for _, args := range [][]string{{"show", "9"}, {"export", "9"}, {"reset", "nobody"}} {
		if r := a.Vsrun(append([]string{"ledger"}, args...)...); r.Code != 3 {
			t.Error(r)
		}
	}
}

// Nothing of what a checkpoint had is left of what is destroyed.
func TestLedgerIsDestroyed(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "8")
	startVSD(t, s.Host).Stop()
	path := filepath.Join(s.StateDir, "ledger.json")
	if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), `"8"`) {
		t.Fatalf("%s, %v", text, err)
	}
	s.MustVsrun(t, "destroy", "8")
	if text, err := os.ReadFile(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s, %v", text, err)
	}
}
