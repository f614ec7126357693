package lab_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/test/lab"
)

// The text is the same for a namespace made again in the same way, and differs
// for every single thing that is made in another way.
func TestNetState(t *testing.T) {
	h := lab.New(t)
	h.Segment("eth1", "eth2")
	makeVS(t, h)
	want := lab.NetState(t, "vs8")
	for _, line := range []string{
		"link ifname=eth0 address=" + vs8MAC + " allmulti=0 flags=[UP] info_kind=macvlan mode=bridge mtu=1500 parent=eth1 promiscuity=0\n",
		"address dev=eth0 local=192.0.2.8 prefixlen=24 ",
		"route -6 dst=2001:db8::/64 dev=eth0 ",
		"rule -4 priority=32766 ",
		"sysctl ipv6/conf/eth0/accept_ra = 1\n",
	} {
		if !strings.Contains(want, line) {
			t.Errorf("%q is not in\n%s", line, want)
		}
	}
	destroyVS(t, h)
	makeVS(t, h)
	if diff := cmp.Diff(want, lab.NetState(t, "vs8")); diff != "" {
		t.Errorf("made twice in the same way, yet:\n%s", diff)
	}
	for _, change := range []string{
		"ip link set eth0 alias mine",
		"ip link set eth0 mtu 1400",
		"ip link set eth0 address 02:00:00:00:00:09",
		"ip link set eth0 type macvlan mode vepa",
		"ip link set lo down",
		"ip addr add 192.0.2.9/24 dev eth0",
		"ip route add default via 192.0.2.1 metric 50",
		"ip -6 route add default via 2001:db8::1 table 7",
		"ip rule add pref 7 table 7",
		"echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore",
		"echo 0 > /proc/sys/net/ipv6/conf/default/accept_ra",
	} {
		before := lab.NetState(t, "vs8")
		h.In("vs8").Run(t, "sh", "-c", change)
		if lab.NetState(t, "vs8") == before {
			t.Errorf("%q makes no difference", change)
		}
	}
}
