package bench

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime"
	"github.com/vsrun/vsrun/test/bench/floor"
)

// lone is the number of the virtual server that is made and destroyed, beside whatever
// others there are.
const lone = runtime.MaxID

// server is what the floor makes of the number, as a virtual server.
func server(id int) runtime.VirtualServer {
	like := floor.Number(id)
	return runtime.VirtualServer{ID: id, Network: plumbing.Network{Interfaces: []plumbing.Interface{{
		Name: "eth0", Port: port, Addresses: []netip.Prefix{like.Address}, Gateways: []netip.Addr{like.Gateway},
	}}}}
}

// A maker makes the lone virtual server, and takes it away again.
type maker struct {
	name         string
	make, remove func() time.Duration
}

// turn makes it, and gives the kernel time to forget it: a namespace ends later than its
// name, and what the next maker does would wait for that.
func (m maker) turn() time.Duration {
	took := m.make()
	m.remove()
	time.Sleep(20 * time.Millisecond)
	return took
}

// one measures what is done to one virtual server among others.
func (b *bench) one(t *testing.T, others int) {
	const create = "create"
	size := max(1, others)
	us := func(m maker) contender { return func() float64 { return micros(m.turn()) } }
	library, plumb, bareCalls, told := b.library(t), b.plumbing(t), b.bareCalls(t), b.toldCalls(t)
	taken := race(b.turns(60), us(library), us(bareCalls), us(plumb), us(told))
	b.tell(row(create, "create and enable one, as a library", size, "µs", taken[0], bareCalls.name, taken[1], ratio(1.3)))
	b.tell(row(create, "create and enable one, as a library", size, "µs", taken[0], told.name, taken[3], nil))
	b.tell(row(create, "the part of it that is package plumbing's", size, "µs", taken[2], bareCalls.name, taken[1], nil))

	cmd, bare, batch, cni := b.command(t), b.bare(t), b.batch(t), b.cni(t)
	taken = race(b.turns(30), us(cmd), us(bare), us(batch), us(cni))
	b.tell(row(create, "vsrun create, as a command", size, "µs", taken[0], bare.name, taken[1], ratio(3)))
	b.tell(row(create, "vsrun create, as a command", size, "µs", taken[0], batch.name, taken[2], ratio(1)))
	b.tell(row(create, "vsrun create, as a command", size, "µs", taken[0], cni.name, taken[3], ratio(0.2)))

	ms := func(m maker) contender {
		return func() float64 {
			m.make()
			took := m.remove()
			time.Sleep(20 * time.Millisecond)
			return millis(took)
		}
	}
	taken = race(b.turns(30), ms(cmd), ms(bareCalls))
	b.tell(row("destroy", "vsrun destroy one; its MAC is free on return", size, "ms", taken[0],
		"the bare system calls: RTM_DELLINK, umount", taken[1], figure(20)))
}

func (b *bench) library(t *testing.T) maker {
	vs := server(lone)
	t.Cleanup(b.runtime.Keep())
	return maker{
		make: func() time.Duration {
			return timed(func() {
				_, err := b.runtime.Create(t.Context(), vs)
				must(t, err)
			})
		},
		remove: func() time.Duration {
			return timed(func() {
				_, _, err := b.runtime.Destroy(t.Context(), lone, runtime.OwnTimeout)
				must(t, err)
			})
		},
	}
}

func (b *bench) plumbing(t *testing.T) maker {
	place := plumbing.Place{Dir: b.NetnsDir, Name: server(lone).Namespace()}
	want := server(lone).Network
	want.Interfaces[0].MAC = plumbing.DeriveMAC("bench", place.Name, "eth0")
	open := func(do func(*plumbing.Handle, plumbing.State) error) time.Duration {
		return timed(func() {
			h, err := plumbing.Open(place)
			must(t, err)
			defer h.Close()
			have, err := h.Observe(want)
			must(t, err)
			must(t, do(h, have))
		})
	}
	return maker{
		make: func() time.Duration {
			return open(func(h *plumbing.Handle, have plumbing.State) error {
				plan, err := plumbing.Diff(place, want, have)
				if err != nil {
					return err
				}
				return plan.WithoutProbe().Apply(t.Context(), h)
			})
		},
		remove: func() time.Duration {
			return open(func(h *plumbing.Handle, have plumbing.State) error {
				return plumbing.Removal(have).Force(t.Context(), h)
			})
		},
	}
}

func (b *bench) bareCalls(t *testing.T) maker {
	return maker{
		name: "the bare system calls",
		make: func() time.Duration {
			return b.floor.time(t, func(h *floor.Host) error { return h.Create(floor.Number(lone)) })
		},
		remove: func() time.Duration {
			return b.floor.time(t, func(h *floor.Host) error { return h.Destroy(floor.Number(lone)) })
		},
	}
}

// toldCalls also tell the segment of the address, which the kernel copies to each neighbour on
// the port before it returns.
func (b *bench) toldCalls(t *testing.T) maker {
	return maker{
		name: "the bare system calls, and its announcement",
		make: func() time.Duration {
			return b.floor.time(t, func(h *floor.Host) error { return h.CreateTold(floor.Number(lone)) })
		},
		remove: b.bareCalls(t).remove,
	}
}

func (b *bench) command(t *testing.T) maker {
	id, like := fmt.Sprint(lone), floor.Number(lone)
	return maker{
		make: func() time.Duration {
			return b.vsrun(t, "create", id, "--no-probe", "--port", port, "--address", like.Address.String(), "--gateway", like.Gateway.String())
		},
		remove: func() time.Duration { return b.vsrun(t, "destroy", id) },
	}
}

func (b *bench) bare(t *testing.T) maker {
	work := func(verb string) func() time.Duration {
		return func() time.Duration { return command(t, "bare", verb, b.NetnsDir, port, fmt.Sprint(lone)) }
	}
	return maker{"a static program of the bare system calls", work("create"), work("destroy")}
}

// batch is iproute2 in batch mode, once on the host and once inside.
func (b *bench) batch(t *testing.T) maker {
	like := floor.Number(lone)
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		must(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	outside := file("outside", fmt.Sprintf("netns add %s\nlink add link %s name eth0 netns %[1]s type macvlan mode bridge\n", like.Name, port))
	inside := file("inside", fmt.Sprintf("link set lo up\nlink set eth0 up\naddress add %s dev eth0\nroute add default via %s\n", like.Address, like.Gateway))
	return maker{
		name: "ip -batch, twice",
		make: func() time.Duration {
			return command(t, "ip", "-batch", outside) + command(t, "ip", "-n", like.Name, "-batch", inside)
		},
		remove: b.bareCalls(t).remove,
	}
}

// cni is the reference plugins called as a container runtime calls them, with a namespace
// that is there already: to make it is not theirs, and not counted.
func (b *bench) cni(t *testing.T) maker {
	like := floor.Number(lone)
	path := filepath.Join(b.NetnsDir, like.Name)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "bench.conflist"), fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": "bench", "plugins": [
		{"type": "macvlan", "master": %q, "mode": "bridge", "ipam": {"type": "static",
			"addresses": [{"address": %q, "gateway": %q}], "routes": [{"dst": "0.0.0.0/0"}]}}]}`,
		port, like.Address, like.Gateway), 0o644))
	environment := []string{"NETCONFPATH=" + dir, "CNI_PATH=" + os.Getenv(toolsVar), "CNI_IFNAME=eth0"}
	return maker{
		name: "CNI: cnitool, macvlan, static",
		make: func() time.Duration {
			ns, err := nsutil.New()
			must(t, err)
			must(t, ns.Publish(path))
			must(t, ns.Close())
			return commandWith(t, environment, "cnitool", "add", "bench", path)
		},
		remove: func() time.Duration {
			took := commandWith(t, environment, "cnitool", "del", "bench", path)
			must(t, nsutil.Unpublish(path))
			return took
		},
	}
}

// services measures one that has a service, and so an init.
func (b *bench) services(t *testing.T) {
	id := fmt.Sprint(lone)
	b.command(t).make()
	defer b.vsrun(t, "destroy", id)
	// It is ready as soon as its program is, and ends upon SIGTERM: all that takes time is
	// vsrun's and the init's.
	b.vsrun(t, "service", "add", id, "a", "--", "sleep", "100000")
	path := filepath.Join(b.NetnsDir, floor.Number(lone).Name)
	run := func(argv ...string) contender { return func() float64 { return micros(command(t, argv...)) } }
	vsrun := func(args ...string) contender { return func() float64 { return micros(b.vsrun(t, args...)) } }

	taken := race(b.turns(60), vsrun("exec", id, "--", "true"), run("ip", "netns", "exec", filepath.Base(path), "true"), run("nsenter", "--net="+path, "true"))
	const processes = "processes"
	faster, slower := ratio(1), ratio(1)
	if spread(taken[1]).Median < spread(taken[2]).Median {
		slower = nil
	} else {
		faster = nil
	}
	b.tell(row(processes, "vsrun exec 8 -- true", 1, "µs", taken[0], "ip netns exec vs8 true", taken[1], faster))
	b.tell(row(processes, "vsrun exec 8 -- true", 1, "µs", taken[0], "nsenter --net=… true", taken[2], slower))

	taken = race(b.turns(20), vsrun("service", "stop", id, "a"), vsrun("service", "start", id, "a"), run("ip", "netns", "exec", filepath.Base(path), "true"))
	b.tell(row(processes, "vsrun service start", 1, "µs", taken[1], "ip netns exec vs8 true", taken[2], nil))
	b.tell(row(processes, "vsrun service stop", 1, "µs", taken[0], "ip netns exec vs8 true", taken[2], nil))
	b.initMemory(t)
	b.reading(t, []floor.Server{floor.Number(lone)})
	b.otherReaders(t, floor.Number(lone))
}

// initMemory looks at the init when it has been at rest for a while: it gives memory back
// a second after the last request.
func (b *bench) initMemory(t *testing.T) {
	if !b.quick {
		time.Sleep(3 * time.Second)
	}
	pid := pidOf(t, "vs-init")
	b.tell(row("memory", "memory of the init of a virtual server with services, at rest", 1, "MB", []float64{resident(t, pid)}, "", nil, figure(5)))
}
