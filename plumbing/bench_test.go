package plumbing

import (
	"errors"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
)

// BenchmarkCreate makes one namespace with a macvlan, an address and a gateway,
// in turn with the system calls alone that this cannot do without.
func BenchmarkCreate(b *testing.B) {
	port := benchPort(b)
	place := Place{Dir: "/run/netns", Name: "vs8"}
	want := eth0(func(i *Interface) { i.Gateways = addrs("192.0.2.1") })
	var ours, floor []time.Duration
	for b.Loop() {
		start := time.Now()
		h := must(Open(place))
		plan := must(Diff(place, want, must(h.Observe(want)))).WithoutProbe()
		if err := plan.Apply(b.Context(), h); err != nil {
			b.Fatal(err)
		}
		ours = append(ours, time.Since(start))
		if err := Removal(must(h.Observe(want))).Force(b.Context(), h); err != nil {
			b.Fatal(err)
		}
		h.Close()
		start = time.Now()
		ns := rawCreate(b, place, port, want.Interfaces[0])
		floor = append(floor, time.Since(start))
		h = must(Open(place))
		Plan{delLink{dev: "eth0"}, unpublish{}}.Force(b.Context(), h)
		ns.Close()
		h.Close()
	}
	slices.Sort(ours)
	slices.Sort(floor)
	middle := len(ours) / 2
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(ours[middle].Microseconds()), "apply-µs")
	b.ReportMetric(float64(floor[middle].Microseconds()), "calls-µs")
	b.ReportMetric(float64(ours[middle])/float64(floor[middle]), "ratio")
}

func benchPort(b *testing.B) int {
	for _, args := range [][]string{
		{"link", "add", "eth1", "type", "veth", "peer", "name", "wire1"},
		{"link", "set", "eth1", "up"},
		{"link", "set", "wire1", "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			b.Fatalf("ip %v: %s", args, out)
		}
	}
	b.Cleanup(func() { exec.Command("ip", "link", "delete", "eth1").Run() })
	h := must(Open(vs8))
	defer h.Close()
	return must(h.Observe(eth0(nil))).Ports["eth1"].Index
}

func rawCreate(b *testing.B, place Place, port int, i Interface) *nsutil.Namespace {
	host := must(dialNetlink(unix.NETLINK_ROUTE))
	defer host.close()
	ns := must(nsutil.New())
	var inside *netlinkSocket
	ns.Do(func() error { inside = must(dialNetlink(unix.NETLINK_ROUTE)); return nil })
	defer inside.close()
	if err := host.one(newLink(i.Name, port, tag{}, i.MAC, 1500, ns.Fd())); err != nil {
		b.Fatal(err)
	}
	to := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	errs := inside.do(
		linkUp(1), linkUp(2),
		address(unix.RTM_NEWADDR, unix.NLM_F_CREATE, 2, i.Addresses[0]),
		route(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, 2, Route{To: to, Via: i.Gateways[0]}),
	)
	if err := errors.Join(errs...); err != nil {
		b.Fatal(err)
	}
	if err := ns.Publish(place.Path()); err != nil {
		b.Fatal(err)
	}
	return ns
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
