package floor_test

import (
	"strings"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/bench/floor"
	"github.com/vsrun/vsrun/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// What the floor makes is what it says, in iproute2's eyes, and nothing is left of it.
func TestFloor(t *testing.T) {
	h := lab.New(t)
	gateway := h.Segment("eth1").Client("gateway", "198.19.255.254/15")
	f, err := floor.Open(h.NetnsDir, "eth1")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var servers []floor.Server
	for n := range 3 {
		servers = append(servers, floor.Number(n+1))
		if err := f.Create(servers[n]); err != nil {
			t.Fatal(err)
		}
	}
	heard := gateway.Capture(t)
	servers = append(servers, floor.Number(4))
	if err := f.CreateTold(servers[3]); err != nil {
		t.Fatal(err)
	}
	if got := heard.Await(1, 10*time.Second, lab.Announces("198.18.0.4")); len(got) == 0 {
		t.Error("nobody was told of 198.18.0.4")
	}
	inside := h.In("vs2")
	if got := inside.Run(t, "ip", "-o", "address", "show", "dev", "eth0") + inside.Run(t, "ip", "route"); !strings.Contains(got, "198.18.0.2/15") ||
		!strings.Contains(got, "default via 198.19.255.254 dev eth0") {
		t.Errorf("it has: %s", got)
	}
	if err := gateway.Ping("198.18.0.2"); err != nil {
		t.Error(err)
	}
	if n, err := f.Look(servers[1]); err != nil || n < 6 {
		t.Errorf("Look found %d things: %v", n, err)
	}
	c, err := f.OpenCounters(servers[1], "dev", "snmp")
	if err != nil {
		t.Fatal(err)
	}
	if sum, err := c.Read(); err != nil || sum == 0 {
		t.Errorf("the counters come to %d: %v", sum, err)
	}
	c.Close()
	if err := f.Destroy(servers[0]); err != nil {
		t.Error(err)
	}
	if err := f.Drop(servers[1:]); err != nil {
		t.Error(err)
	}
	if macs := h.Run(t, "bridge", "fdb", "show", "dev", "eth1"); strings.Contains(macs, "02:76:73") {
		t.Errorf("MACs are left on the port:\n%s", macs)
	}
}
