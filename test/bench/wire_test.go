package bench

import (
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/bench/floor"
)

// wire compares a virtual server's way to a client of the segment with that of the port
// itself.
func (b *bench) wire(t *testing.T) {
	const hosts, clients = "198.19.0.1", "198.19.0.2"
	b.Run(t, "ip", "address", "add", hosts+"/15", "dev", port)
	defer b.Run(t, "ip", "address", "delete", hosts+"/15", "dev", port)
	client := b.segment.Client("client", clients+"/15")
	b.command(t).make()
	defer b.command(t).remove()

	connect := func(inside func(func() error) error, address string) path {
		var listener net.Listener
		must(t, inside(func() (err error) { listener, err = net.Listen("tcp4", address+":0"); return err }))
		defer listener.Close()
		near, err := client.Dial("tcp4", listener.Addr().String())
		must(t, err)
		far, err := listener.Accept()
		must(t, err)
		return path{near: blocking(t, near), far: blocking(t, far)}
	}
	through := connect(b.In(floor.Number(lone).Name).Do, floor.Number(lone).Address.Addr().String())
	defer through.close()
	bare := connect(func(do func() error) error { return do() }, hosts)
	defer bare.close()

	megabytes := b.turns(32)
	from := func(p path) contender { return func() float64 { return throughput(t, p.far, p.near, megabytes) } }
	to := func(p path) contender { return func() float64 { return throughput(t, p.near, p.far, megabytes) } }
	taken := race(b.turns(40), from(through), from(bare), to(through), to(bare))
	const section, beside = "wire", "the bare port"
	least := &Goal{Of: "ratio", Least: true, Bound: 0.97}
	b.tell(row(section, "TCP from a virtual server", 1, "MB/s", taken[0], beside, taken[1], least))
	b.tell(row(section, "TCP to a virtual server", 1, "MB/s", taken[2], beside, taken[3], least))

	rounds := b.turns(500)
	trip := func(p path) contender { return func() float64 { return roundTrips(t, p, rounds) } }
	taken = race(b.turns(60), trip(through), trip(bare))
	b.tell(row(section, "round trip of 64 bytes, TCP", 1, "µs", taken[0], beside, taken[1], ratio(1.03)))
}

// A path is a connection, both ends of it. Its ends block: what the Go runtime's poller
// takes would be the same for all, and hide what differs.
type path struct{ near, far int }

func (p path) close() { unix.Close(p.near); unix.Close(p.far) }

// blocking takes the descriptor out of the connection.
func blocking(t *testing.T, c net.Conn) int {
	t.Helper()
	defer c.Close()
	f, err := c.(*net.TCPConn).File()
	must(t, err)
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd()))
	must(t, err)
	must(t, unix.SetNonblock(fd, false))
	return fd
}

// throughput is in MB/s, as the receiver sees it.
func throughput(t *testing.T, from, to, megabytes int) float64 {
	size := megabytes * 1e6
	sent := make(chan error, 1)
	took := timed(func() {
		go func() { sent <- send(from, size) }()
		must(t, receive(to, size))
	})
	must(t, <-sent)
	return float64(megabytes) / took.Seconds()
}

func send(fd, size int) error {
	block := make([]byte, 128<<10)
	for size > 0 {
		n, err := unix.Write(fd, block[:min(size, len(block))])
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		size -= max(n, 0)
	}
	return nil
}

func receive(fd, size int) error {
	block := make([]byte, 128<<10)
	for size > 0 {
		n, err := unix.Read(fd, block[:min(size, len(block))])
		switch {
		case n == 0 && err == nil:
			return io.ErrUnexpectedEOF
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		}
		size -= max(n, 0)
	}
	return nil
}

// roundTrips is how long one takes, the median of some, in µs.
func roundTrips(t *testing.T, p path, rounds int) float64 {
	const size = 64
	echoed := make(chan error, 1)
	go func() {
		for range rounds {
			if err := errors.Join(receive(p.far, size), send(p.far, size)); err != nil {
				echoed <- err
				return
			}
		}
		echoed <- nil
	}()
	taken := make([]float64, rounds)
	for k := range taken {
		var err error
		taken[k] = micros(timed(func() { err = errors.Join(send(p.near, size), receive(p.near, size)) }))
		must(t, err)
	}
	must(t, <-echoed)
	return spread(taken).Median
}
