package service

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vsrun/vsrun/nsutil"
	"golang.org/x/sys/unix"
)

// ErrNotRunning says that the virtual server has no init: it never had one, or
// it has ended.
var ErrNotRunning = errors.New("the virtual server's init is not running")

// ErrSilent says that the init lives and does not answer: it has been stopped,
// or has far too much to do.
var ErrSilent = errors.New("the init does not answer")

// margin is what an init gets to answer and to end, beyond the time that its
// services have.
const margin = 5 * time.Second

// A Client talks to a virtual server's init, and holds it by a pidfd. Its
// methods may be called by several goroutines; each request has a connection of
// its own.
type Client struct {
	socket string
	init   *process
}

// Dial finds the init that listens on socket; ErrNotRunning when there is none.
// What a dead one has left is no error for anybody. It waits for nobody: one
// that is stopped is found too, unless so many have tried to talk to it that
// its queue is full (ErrSilent).
func Dial(socket string) (*Client, error) {
	conn, err := connect(socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	p, err := peerProcess(conn)
	if err != nil {
		return nil, err
	}
	return &Client{socket, p}, nil
}

// Close lets go of the init, which goes on.
func (c *Client) Close() error { return c.init.f.Close() }

// Pid is the init's process id as the caller counts. It may belong to another
// process once the init has ended.
func (c *Client) Pid() int { return c.init.pid }

// Pidfd is the init, valid until Close.
func (c *Client) Pidfd() int { return int(c.init.f.Fd()) }

// Wait returns when the init and all processes of the virtual server have ended, or ctx
// has.
func (c *Client) Wait(ctx context.Context) error { return c.init.wait(ctx) }

// InNamespace reports whether the init, and with it the virtual server's
// services, is in the network namespace. ErrNotRunning when it has ended.
func (c *Client) InNamespace(ns *nsutil.Namespace) (bool, error) {
	own, err := c.Namespace()
	if err != nil {
		return false, err
	}
	defer own.Close()
	return own.Same(ns), nil
}

// Namespace is the network namespace that the init, and with it the virtual
// server's services, is in. ErrNotRunning when it has ended.
func (c *Client) Namespace() (*nsutil.Namespace, error) {
	ns, err := nsutil.Open(c.init.proc("ns/net"))
	exiting := errors.Is(err, fs.ErrNotExist) // it lets go of its namespaces first
	if c.init.alive() && !exiting {           // and so the path meant the init
		return ns, err
	}
	if err == nil {
		ns.Close()
	}
	return nil, ErrNotRunning
}

// Set makes the virtual server's services exactly these: new ones are started,
// those that are not in the list stopped, changed ones restarted, the others
// left alone; what a person has stopped stays stopped. It returns when all that
// is done; a service that does not want to end is killed after its Stop.Timeout.
// One that cannot be started is an error, and is tried again as its Restart says;
// a private directory that cannot be made is one too, and nothing has changed.
func (c *Client) Set(ctx context.Context, services []Service) error {
	_, err := c.order(ctx, request{Op: opSet, Services: services})
	return err
}

// Lay makes the virtual server's own files exactly these. A program that has read
// one before goes on with what it read. An error is about those that it names.
func (c *Client) Lay(ctx context.Context, files []File) error {
	_, err := c.order(ctx, request{Op: opFiles, Files: files})
	return err
}

// Status lists the services in the order of the latest Set.
func (c *Client) Status(ctx context.Context) ([]Status, error) {
	r, err := c.Report(ctx)
	return r.Services, err
}

// Report asks the init how it was started, and how its services stand.
func (c *Client) Report(ctx context.Context) (Report, error) {
	answer, err := c.do(ctx, request{Op: opStatus})
	if err != nil {
		return Report{}, err
	}
	if answer.Report == nil {
		return Report{}, errors.New("the init's answer holds no report")
	}
	r := *answer.Report
	for i, s := range r.Services {
		if s.Pid != 0 {
			r.Services[i].Pid = c.init.child(s.Pid)
		}
	}
	return r, nil
}

// An Order is what a person tells a service.
type Order string

// The orders.
const (
	OrderStart   Order = opStart   // it is stopped, or waits for its next try; running already is success
	OrderStop    Order = opStop    // it stays stopped until it is started by name
	OrderRestart Order = opRestart // it is stopped if it runs, and started
	OrderReload  Order = opReload  // it runs, and reads its configuration again
)

// Order gives a service an order, and returns when that is done. killed is the
// service's name when it had to be killed, because it did not end in its time.
func (c *Client) Order(ctx context.Context, o Order, name string) (killed []string, err error) {
	return c.order(ctx, request{Op: string(o), Name: name})
}

// order sends a request that services start and stop upon. That may take as long
// as they were given; an init that is silent for longer is hung.
func (c *Client) order(ctx context.Context, r request) (killed []string, err error) {
	patient, cancel := context.WithTimeout(ctx, Longest+margin)
	defer cancel()
	answer, err := c.do(patient, r)
	return answer.Killed, err
}

// OwnTimeout has each service end within its own Stop.Timeout.
const OwnTimeout time.Duration = -1

// Shutdown ends the virtual server's processes: the services are asked to end,
// in reverse order, and those that have not after their own time, or timeout, are
// killed. One that others are started after is asked when those have ended, and has
// up to 5 s then, whatever the timeout. Shutdown returns when no process is left, with
// the names of the killed; "init" is among them when the init itself had to be,
// because it did not do that in all that time and 5 s. Having ended already is
// success.
func (c *Client) Shutdown(ctx context.Context, timeout time.Duration) ([]string, error) {
	id := c.init.number()
	begin := time.Now()
	patient, cancel := context.WithTimeout(ctx, margin)
	report, err := c.Report(patient)
	cancel()
	if err == nil {
		begin = time.Now() // else it has already had time to answer
	}
	if timeout < 0 {
		timeout = max(stopWithin, chain(report.Wanted, func(s Service) time.Duration { return s.Stop.Within() }))
	}
	most := timeout + chain(report.Wanted, func(s Service) time.Duration { return min(s.Stop.Within(), moment) }) + margin
	asked, cancel := context.WithDeadline(ctx, begin.Add(most))
	defer cancel()
	r, err := c.do(asked, request{Op: opShutdown, Timeout: timeout})
	if errors.Is(err, ErrNotRunning) || errors.Is(err, ErrSilent) {
		// It has ended, or somebody has removed its socket, or its queue is
		// full: an init takes SIGTERM for the same request.
		err = c.init.signal(unix.SIGTERM)
	}
	if err == nil {
		err = c.init.wait(asked)
	}
	if err == nil {
		return r.Killed, c.tidy(id)
	}
	if ctx.Err() != nil { // the caller's wish, not the init's silence
		return nil, ctx.Err()
	}
	return append(r.Killed, initName), c.Kill(ctx)
}

// Kill ends all of the virtual server's processes at once, and returns when none
// is left.
func (c *Client) Kill(ctx context.Context) error {
	id := c.init.number()
	if err := c.init.signal(unix.SIGKILL); err != nil {
		return err
	}
	patient, cancel := context.WithTimeout(ctx, margin)
	defer cancel()
	if err := c.init.wait(patient); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("cannot end process %d: killed, but one of its processes "+
			"hangs in the kernel, or belongs to a stopped command that was run inside", c.init.pid)
	}
	return c.tidy(id)
}

// tidy removes what the dead init leaves, its socket and the cgroup of the virtual
// server with that number, unless a new init has them already.
func (c *Client) tidy(id int) error {
	err := locked(filepath.Dir(c.socket), func() error {
		if err := removeStale(c.socket); err != nil {
			return err
		}
		return RemoveCgroup(id)
	})
	switch {
	case errors.Is(err, ErrTaken):
		return nil
	case errors.Is(err, fs.ErrNotExist): // somebody has removed the directory, which nobody can listen in
		return RemoveCgroup(id)
	}
	return err
}

// do sends one request to the init that Dial found, never to a later one.
func (c *Client) do(ctx context.Context, r request) (response, error) {
	conn, err := connect(c.socket)
	if err != nil {
		return response{}, err
	}
	defer conn.Close()
	cred, err := peer(conn)
	if err != nil {
		return response{}, err
	}
	if int(cred.Pid) != c.init.pid || !c.init.alive() {
		return response{}, ErrNotRunning
	}
	return roundTrip(ctx, conn, r)
}

// roundTrip sends a request and waits for the answer.
func roundTrip(ctx context.Context, conn *os.File, r request) (response, error) {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	line, err := exchange(conn, r)
	switch {
	case err == nil:
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return response{}, ErrSilent
	case ctx.Err() != nil:
		return response{}, ctx.Err()
	case gone(err):
		return response{}, ErrNotRunning
	default:
		return response{}, fmt.Errorf("cannot talk to the init: %w", err)
	}
	var a response
	if err := json.Unmarshal(line, &a); err != nil {
		return a, fmt.Errorf("cannot understand the init's answer: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

func exchange(conn *os.File, r request) ([]byte, error) {
	if err := writeLine(conn, r); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(io.LimitReader(conn, maxAnswer)).ReadBytes('\n')
	if len(line) == maxAnswer && err != nil {
		err = errors.New("its answer is longer than 16 MiB")
	}
	return line, err
}

// gone reports whether the error is how a connection tells that the process at
// its other end has ended.
func gone(err error) bool {
	return slices.ContainsFunc([]error{unix.EPIPE, unix.ECONNRESET, io.EOF},
		func(e error) bool { return errors.Is(err, e) })
}
