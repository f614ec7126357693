package agent_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/runtime"
	"github.com/vsrun/vsrun/runtime/agent"
	"github.com/vsrun/vsrun/test/lab"
)

// What cannot be mended is said once, and mended when it can be: a port that is away, or
// has another name.
func TestWaits(t *testing.T) {
	s := newSite(t)
	d := startVSD(t, s.Host)
	putBack := s.segment.Remove(t, "eth1")
	e := d.await(t, "of a port that is away", about("vs8", agent.Waits))
	if e.String() != "cannot be mended now: no port eth1 on this host" {
		t.Errorf("it says %q", e)
	}
	if r := s.Vsrun("diff"); r.Code != 1 || r.Stdout != "vs8: no port eth1 on this host\nvs9: no port eth1 on this host\n" {
		t.Error(r)
	}
	putBack()
	d.await(t, "of a port that is back", about("vs8", agent.Mended))
	d.whole(t)

	ip("link set dev eth1 down", "link set dev eth1 name eth9", "link set dev eth9 up")(t, s)
	e = d.await(t, "of a port that is renamed", about("vs9", agent.Waits))
	if e.String() != "cannot be mended now: port eth1 is called eth9 now" {
		t.Errorf("it says %q", e)
	}
	if err := s.client.Ping("192.0.2.8"); err != nil {
		t.Errorf("with its port renamed: %v", err)
	}
	ip("link set dev eth9 down", "link set dev eth9 name eth1", "link set dev eth1 up")(t, s)
	d.whole(t)
}

// After the carrier was lost all addresses are announced again.
func TestAnnounces(t *testing.T) {
	s := newSite(t)
	d := startVSD(t, s.Host)
	ip("-n vs9 link set dev eth0 mtu 1400")(t, s)
	d.await(t, "of a vsd that hears", about("vs9", agent.Mended))
	d.whole(t)
	s.segment.SetCarrier(t, "eth1", false)
	awaitCarrier(t, s, "vs8", "NO-CARRIER")
	awaitCarrier(t, s, "vs9", "NO-CARRIER")
	heard := s.client.Capture(t)
	s.segment.SetCarrier(t, "eth1", true)
	for _, addr := range []string{"192.0.2.8", "2001:db8::8", "192.0.2.9"} {
		if got := heard.Await(1, 10*time.Second, lab.Announces(addr)); len(got) < 1 {
			t.Errorf("%s was not announced: %v", addr, heard.Frames())
		}
	}
	d.await(t, "of the announcement", about("vs8", agent.Announced))
	d.whole(t)
}

func awaitCarrier(t *testing.T, s *site, vs, flag string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if strings.Contains(s.Run(t, "ip", "-n", vs, "link", "show", "dev", "eth0"), flag) {
			return
		}
	}
	t.Fatalf("eth0 of %s does not become %s", vs, flag)
}

// Two tools that undo each other's work do not spin.
func TestBacksOff(t *testing.T) {
	s := newSite(t)
	d := startVSD(t, s.Host)
	for range 5 {
		ip("-n vs9 link set dev eth0 mtu 1400")(t, s)
		d.await(t, "of what is mended at once", about("vs9", agent.Mended))
	}
	ip("-n vs9 link set dev eth0 mtu 1400")(t, s)
	e := d.await(t, "of a fight", about("vs9", agent.BacksOff))
	if want := "mended too often, something else changes it, too; left alone for 1s: set mtu 1500 on eth0"; e.String() != want {
		t.Errorf("it says %q", e)
	}
	// Other things, and other virtual servers, are mended as ever.
	ip("-n vs9 route add 203.0.113.0/24 dev eth0 proto 118", "-n vs8 link set dev eth0 mtu 1400")(t, s)
	d.awaitAll(t, agent.Mended, "vs8", "vs9")
	ip("-n vs9 link set dev eth0 mtu 1400")(t, s)
	end := d.await(t, "of the end of the wait", about("vs9", agent.Mended))
	if took := end.Time.Sub(e.Time); took < 900*time.Millisecond {
		t.Errorf("it waited only %v", took)
	}
	d.whole(t)
}

// What has been taken down for the time being stays down, and vsrun boot ends that.
func TestStandsBy(t *testing.T) {
	s := newSite(t)
	d := startVSD(t, s.Host)
	s.MustVsrun(t, "shutdown")
	d.signal(syscall.SIGHUP)
	time.Sleep(300 * time.Millisecond) // nothing tells that nothing is done
	if list := s.Run(t, "ip", "netns", "list"); list != "" {
		t.Errorf("taken down, there are %s", list)
	}
	s.MustVsrun(t, "boot")
	d.whole(t)
	ip("-n vs9 link set dev eth0 mtu 1400")(t, s)
	d.await(t, "after boot", about("vs9", agent.Mended))
}

// A namespace that has lost its name and has an init lacks nothing else, and a shell can
// give it back.
func TestNameless(t *testing.T) {
	s := newSite(t)
	pid := func() string {
		return s.Run(t, "sh", "-c", filepath.Join(lab.Programs(t), "vsrun")+` ps 8 | awk '$1 == "one" { print $2, $3 }'`)
	}
	before := pid()
	ip("netns delete vs8")(t, s)
	if r := s.Vsrun("diff"); r.Code != 1 || r.Stdout != "vs8: publish the namespace again\n" {
		t.Error(r)
	}
	line := s.VsrunIn(document, "apply", "--dry-run", "-f", "-")
	if line.Code != 0 || !strings.HasPrefix(line.Stdout, "ip netns attach vs8 ") {
		t.Fatal(line)
	}
	s.Run(t, "sh", "-c", line.Stdout)
	if r := s.Vsrun("diff"); r.Code != 0 || pid() != before {
		t.Errorf("pasted: %v\n%s\nbefore\n%s", r, pid(), before)
	}
	d := startVSD(t, s.Host)
	d.asleep(func() { ip("netns delete vs8")(t, s) })
	if e := d.await(t, "of a lost name", about("vs8", agent.Mended)); runtime.Words(e.Drift) != "publish the namespace again" {
		t.Errorf("it says %q", e)
	}
	d.whole(t)
	if pid() != before {
		t.Errorf("services are\n%s\nbefore\n%s", pid(), before)
	}
}

// What somebody has added on purpose is named, left alone, and deleted when he says so.
func TestForeign(t *testing.T) {
	s := newSite(t)
	d := startVSD(t, s.Host)
	d.whole(t)
	ip("link add link eth1 name mv0 netns vs9 type macvlan", "-n vs9 link set dev mv0 up", "-n vs9 address add 192.0.2.66/24 dev eth0",
		"-n vs9 route add 203.0.113.0/24 dev eth0", "-n vs9 rule add pref 100 table 100 protocol static",
		"-n vs9 rule add pref 101 table local protocol static", "-n vs9 rule delete pref 0")(t, s)
	foreign := []string{"link mv0", "address 192.0.2.66/24 on eth0", "route 203.0.113.0/24 dev eth0", "IPv4 rule 100", "IPv4 rule 101"}
	ip("-n vs9 link set dev eth0 mtu 1400")(t, s)
	d.await(t, "of something else", about("vs9", agent.Mended))
	if r := s.Vsrun("diff", "9"); r.Code != 0 || r.Stdout != "vs9: foreign "+strings.Join(foreign, "\nvs9: foreign ")+"\n" {
		t.Error(r)
	}
	if out := s.MustVsrun(t, "enable", "9", "--prune"); !strings.HasSuffix(out, "\nvs9: deleted foreign "+strings.Join(foreign, "\nvs9: deleted foreign ")+"\n") {
		t.Errorf("it prints %q", out)
	}
	d.whole(t)
}

// Whether an interface heeds routers is heard, too, also of one that vsd has just made.
func TestHeedsRouters(t *testing.T) {
	s := newSite(t)
	s.apply(t, "{id: 8, interfaces: [{name: eth0.5, port: eth1, ra: true}]}")
	d := startVSD(t, s.Host)
	d.whole(t)
	for range 2 {
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(500 * time.Millisecond) { // what is said of a new address wakes vsd, too
			waiting := s.Run(t, "ip", "-n", "vs8", "-6", "address", "show", "tentative") + s.Run(t, "ip", "-n", "vs8", "-6", "address", "show", "optimistic")
			if waiting == "" {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("still\n%s", waiting)
			}
		}
		sysctl("vs8", "net/ipv6/conf/eth0.5/accept_ra=0")(t, s)
		d.await(t, "of routers not heeded", about("vs8", agent.Mended))
		d.whole(t)
	}
}

// Services whose init has died while the port is away run again before that is back.
func TestServicesWithoutPort(t *testing.T) {
	s := newSite(t)
	d := startVSD(t, s.Host)
	putBack := s.segment.Remove(t, "eth1")
	d.await(t, "of a port that is away", about("vs8", agent.Waits))
	kill(t, "vs-init\x00vs8\x00")
	if e := d.await(t, "of a dead init", about("vs8", agent.Mended)); runtime.Words(e.Drift) != "start service one" {
		t.Errorf("it says %q", e)
	}
	if r := s.Vsrun("diff", "8"); r.Stdout != "vs8: no port eth1 on this host\n" {
		t.Error(r)
	}
	putBack()
	d.await(t, "of a port that is back", about("vs8", agent.Mended))
	d.whole(t)
}

// Without vsd nothing ends; the next one mends what was missed, and finishes what a
// killed vsrun has begun.
func TestAbsent(t *testing.T) {
	s := newSite(t)
	d := startVSD(t, s.Host)
	d.cmd.Process.Kill()
	d.cmd.Wait()
	if err := s.client.Ping("192.0.2.8"); err != nil {
		t.Error(err)
	}
	r := s.Vsrun("events")
	if want := "vsrun: cannot show events: vsd is not running\nhint: start it: systemctl enable --now vsd; what differs now: vsrun diff\n"; r.Code != 1 || r.Stderr != want {
		t.Error(r)
	}
	ip("-n vs9 address flush dev eth0", "netns delete vs8")(t, s)
	// A record that was stored, and nothing else: vsrun was killed.
	if err := os.WriteFile(filepath.Join(s.StateDir, "vs10.json"), []byte(`{"id":10}`), 0o600); err != nil {
		t.Fatal(err)
	}
	d = startVSD(t, s.Host)
	d.awaitAll(t, agent.Mended, "vs8", "vs9", "vs10")
	d.whole(t)
	if err := s.client.Ping("192.0.2.9"); err != nil {
		t.Error(err)
	}

	// Those that come while it runs are looked after at once.
	s.MustVsrun(t, "create", "11", "--port", "eth1", "--no-probe", "--address", "192.0.2.11/24")
	ip("-n vs11 address flush dev eth0")(t, s)
	d.await(t, "of vs11", about("vs11", agent.Mended))
	s.MustVsrun(t, "disable", "11")
	s.MustVsrun(t, "destroy", "10")
	d.whole(t)
}

// The command line shows events, to people and to programs.
func TestEvents(t *testing.T) {
	s := newSite(t)
	d := startVSD(t, s.Host)
	ip("-n vs9 link set dev eth0 mtu 1400")(t, s)
	d.await(t, "of vs9", about("vs9", agent.Mended))
	if out := s.MustVsrun(t, "events"); !strings.Contains(out, "  vs9     mended in ") || !strings.HasSuffix(out, "ms: set mtu 1500 on eth0\n") {
		t.Errorf("it prints %q", out)
	}
	var e struct {
		Time  time.Time
		Event string
		ID    int
		Drift []struct{ Topic, Text string }
	}
	out := s.MustVsrun(t, "events", "-o", "json")
	if err := json.Unmarshal([]byte(out), &e); err != nil || e.Event != "mended" || e.ID != 9 || len(e.Drift) != 1 || e.Drift[0].Topic != "mtu" || time.Since(e.Time) > time.Minute {
		t.Errorf("%v: %+v of %s", err, e, out)
	}
	follower := s.Start(t, filepath.Join(lab.Programs(t), "vsrun"), "events", "-f")
	ip("-n vs9 link set dev eth0 mtu 1300")(t, s)
	for end := time.Now().Add(10 * time.Second); strings.Count(follower.Output(), "set mtu 1500 on eth0") < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it follows with %q", follower.Output())
		}
	}
	if fi, err := os.Stat(agent.Socket(s.RunDir)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("who may ask: %v, %v", fi, err)
	}
}
