package lab_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsrun/vsrun/test/lab"
)

// Each kind of thing that can be left behind is seen, and seen to be gone.
func TestLeaksAreFound(t *testing.T) {
	sh := func(make, undo string) func(*testing.T, *lab.Host) func() {
		return func(t *testing.T, h *lab.Host) func() {
			h.Run(t, "sh", "-ec", make)
			return func() { h.Run(t, "sh", "-ec", undo) }
		}
	}
	listen := func(address string) func(*testing.T, *lab.Host) func() {
		return func(t *testing.T, h *lab.Host) func() {
			l, err := net.Listen("unix", address)
			if err != nil {
				t.Fatal(err)
			}
			return func() { l.Close() }
		}
	}
	h := lab.New(t)
	h.Segment("eth1")
	for _, leak := range []struct {
		name string
		make func(*testing.T, *lab.Host) func()
		want string // in the report
	}{
		{"namespace", sh("ip netns add vs8", "ip netns del vs8"), "namespace  + vs8"},
		{"half a namespace", sh("touch /run/netns/vs8", "rm /run/netns/vs8"), "namespace  + vs8"},
		{"mount", sh("mount -t tmpfs none /mnt", "umount /mnt"), "mount      + /mnt type tmpfs"},
		{"device", sh("ip link add br7 type bridge", "ip link del br7"), "link       + ifname=br7"},
		{"port down", sh("ip link set eth1 down", "ip link set eth1 up"), "link       − ifname=eth1"},
		{"MTU", sh("ip link set eth1 mtu 1400", "ip link set eth1 mtu 1500"), "mtu=1400"},
		{"alias", sh("ip link set eth1 alias mine", "ip link set eth1 alias ''"), "ifalias=mine"},
		{"promiscuous port", sh("ip link set eth1 promisc on", "ip link set eth1 promisc off"), "promiscuity=1"},
		{"macvlan in a namespace", macvlan, "neighbour  + ifname=eth1 mac=02:00:00:00:00:08"},
		{"address", sh("ip addr add 192.0.2.1/24 dev eth1", "ip addr del 192.0.2.1/24 dev eth1"), "address    + dev=eth1 local=192.0.2.1"},
		{"route", sh("ip route add blackhole 198.51.100.0/24", "ip route del blackhole 198.51.100.0/24"), "route      + -4 dst=198.51.100.0/24"},
		{"route in another table", sh("ip -6 route add blackhole 2001:db8::/32 table 7", "ip -6 route flush table 7"), "table=7"},
		{"rule", sh("ip rule add pref 7 table 7", "ip rule del pref 7"), "rule       + -4 priority=7"},
		{"neighbour", sh("ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev eth1", "ip neigh del 192.0.2.9 dev eth1"), "neighbour  + "},
		{"sysctl", sh("echo 2 > /proc/sys/net/ipv4/conf/eth1/arp_announce", "echo 0 > /proc/sys/net/ipv4/conf/eth1/arp_announce"), "sysctl     + ipv4/conf/eth1/arp_announce = 2"},
		{"abstract socket", listen("@vsrun-test"), "socket     + @vsrun-test"},
		{"path socket", listen("/run/test.sock"), "socket     + /run/test.sock"},
		{"file in /run", sh("echo > /run/test.pid", "rm /run/test.pid"), "file       + /run/test.pid"},
		{"directory in /run", sh("mkdir -p $VSRUN_RUN_DIR", "rmdir $VSRUN_RUN_DIR"), "file       + /run/vsrun/"},
		{"state file", sh("mkdir -p $VSRUN_STATE_DIR/vs; echo > $VSRUN_STATE_DIR/vs/8", "rm -r $VSRUN_STATE_DIR"), "/state/vs/8"},
		{"process", process, "sleep 1000"},
		{"descriptor", descriptor, "descriptor + /proc/1/status"},
		{"socket descriptor", socket, "descriptor + socket:["},
		{"cgroup", group, "cgroup     + /sys/fs/cgroup/vs8"},
	} {
		t.Run(leak.name, func(t *testing.T) {
			undo := leak.make(t, h)
			if got := h.Leaks(); !strings.Contains(got, leak.want) {
				t.Errorf("the report lacks %q:\n%s", leak.want, got)
			}
			undo()
			eventually(t, func() bool { return h.Leaks() == "" })
		})
	}
}

// macvlan leaves a nameless namespace, held by a process alone, on a port.
func macvlan(t *testing.T, h *lab.Host) func() {
	p := h.Start(t, "unshare", "--net", "sleep", "1000")
	script := `
		while [ $(readlink /proc/$1/ns/net) = $(readlink /proc/self/ns/net) ]; do sleep 0.01; done
		ip link add eth0 link eth1 netns $1 address 02:00:00:00:00:08 type macvlan
		ip link set eth1 up
		nsenter -t $1 -n ip link set eth0 up`
	h.Run(t, "sh", "-ec", script, "sh", pid(p))
	return func() {
		h.Run(t, "nsenter", "-t", pid(p), "-n", "ip", "link", "del", "eth0")
		p.Stop()
	}
}

func process(t *testing.T, h *lab.Host) func() {
	p := h.Start(t, "sleep", "1000")
	return func() { p.Stop() }
}

func descriptor(t *testing.T, h *lab.Host) func() {
	f, err := os.Open("/proc/1/status")
	if err != nil {
		t.Fatal(err)
	}
	return func() { f.Close() }
}

func socket(t *testing.T, h *lab.Host) func() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return func() { l.Close() }
}

func group(t *testing.T, h *lab.Host) func() {
	lab.NeedRoot(t, "nobody delegates cgroups to an ordinary user")
	lab.Require(t, "cgroup2")
	const dir = "/sys/fs/cgroup/vs8"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return func() { os.Remove(dir) }
}

// A test that leaves something fails, and says what; the next one finds a
// clean host all the same.
func TestLeakFailsTheTest(t *testing.T) {
	outer := lab.New(t)
	leaky := &recorder{TB: t}
	h := lab.New(leaky)
	h.Segment("eth1").Client("client1", "192.0.2.100/24")
	h.Run(t, "sh", "-ec", `
		ip netns add vs8
		ip link add eth0 link eth1 netns vs8 type macvlan
		ip link add br7 type bridge
		mkdir -p $VSRUN_RUN_DIR
		mount -t tmpfs none $VSRUN_RUN_DIR
		setsid ip netns exec vs8 sleep 1000 >/dev/null 2>&1 &`)
	eventually(t, func() bool { return strings.Contains(h.Leaks(), "sleep 1000") })
	leaky.finish()

	report := strings.Join(leaky.errors, "\n")
	for _, want := range []string{"namespace  + vs8", "link       + ifname=br7", "mount      + /run/vsrun", "sleep 1000"} {
		if !strings.Contains(report, want) {
			t.Errorf("the failure does not mention %q:\n%s", want, report)
		}
	}
	eventually(t, func() bool { return outer.Leaks() == "" })
}

// After another failure the leaks are told, as a consequence.
func TestLeakAfterFailureIsNoSecondFailure(t *testing.T) {
	lab.New(t)
	failed := &recorder{TB: t, errors: []string{"already"}}
	h := lab.New(failed)
	h.Run(t, "ip", "netns", "add", "vs8")
	failed.finish()
	if len(failed.errors) != 1 || !strings.Contains(strings.Join(failed.logs, ""), "vs8") {
		t.Errorf("errors %q, logs %q", failed.errors, failed.logs)
	}
}

func TestKeptFilesMayStay(t *testing.T) {
	h := lab.New(t)
	h.Keep("/run/vsrun", filepath.Join(h.StateDir, "*.lock"))
	h.Run(t, "sh", "-ec", "mkdir -p $VSRUN_RUN_DIR $VSRUN_STATE_DIR; echo > $VSRUN_RUN_DIR/a; echo > $VSRUN_STATE_DIR/vs.lock")
	if got := h.Leaks(); got != "" {
		t.Error(got)
	}
	h.Run(t, "rm", "-r", h.RunDir)
}
