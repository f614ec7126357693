package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime/service"
)

// vsDir is where a virtual server's init listens.
func (r *Runtime) vsDir(id int) string {
	return filepath.Join(r.RunDir, VirtualServer{ID: id}.Namespace())
}

func (r *Runtime) socket(id int) string { return filepath.Join(r.vsDir(id), "init.sock") }

func (r *Runtime) logDir(id int) string { return filepath.Join(r.keepDir(id), "log") }

// LogFile is where a service's output is kept.
func (r *Runtime) LogFile(id int, name string) string {
	return filepath.Join(r.logDir(id), name+".log")
}

// serve makes the services match the record. The init is started for the first
// of them; a virtual server without needs none.
func (r *Runtime) serve(ctx context.Context, ns *nsutil.Namespace, vs VirtualServer) error {
	c, err := r.dial(ctx, ns, vs.ID)
	if errors.Is(err, service.ErrNotRunning) {
		if len(vs.Services) == 0 {
			return nil
		}
		c, err = r.start(ctx, ns, vs)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Set(ctx, vs.Services); err != nil {
		return fmt.Errorf("cannot start the services of %s: %w", vs, err)
	}
	return nil
}

// dial finds the init of a virtual server. One that a crash has left in a
// namespace that is gone is ended first.
func (r *Runtime) dial(ctx context.Context, ns *nsutil.Namespace, id int) (*service.Client, error) {
	c, err := service.Dial(ctx, r.socket(id))
	if err != nil {
		return nil, err
	}
	inside, err := c.InNamespace(ns)
	if err == nil && inside {
		return c, nil
	}
	defer c.Close()
	if err == nil {
		err = c.Kill(ctx)
	}
	return nil, errors.Join(err, service.ErrNotRunning)
}

func (r *Runtime) start(ctx context.Context, ns *nsutil.Namespace, vs VirtualServer) (*service.Client, error) {
	if _, err := os.Stat(r.Init); err != nil {
		return nil, &plumbing.Refusal{
			Err:  fmt.Errorf("cannot start a process in %s: the program vs-init is not at %s", vs, r.Init),
			Cure: "install it beside vsrun, or name it with VSRUN_INIT",
		}
	}
	if err := os.MkdirAll(r.vsDir(vs.ID), 0o755); err != nil {
		return nil, err
	}
	c, err := service.Start(ctx, ns, r.Init, r.socket(vs.ID), service.Config{
		ID:         vs.ID,
		Hostname:   vs.Title(),
		NetnsDir:   r.NetnsDir,
		LogDir:     r.logDir(vs.ID),
		PrivateDir: filepath.Join(r.keepDir(vs.ID), "private"),
		DNS:        vs.DNS,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot start the init of %s: %w", vs, err)
	}
	return c, nil
}

// stopServices ends the init and every process below it.
func (r *Runtime) stopServices(ctx context.Context, id int, timeout time.Duration) (killed []string, err error) {
	c, err := service.Dial(ctx, r.socket(id))
	if err == nil {
		defer c.Close()
		killed, err = c.Shutdown(ctx, timeout)
	}
	if err != nil && !errors.Is(err, service.ErrNotRunning) {
		return killed, fmt.Errorf("cannot stop the services of vs%d: %w", id, err)
	}
	return killed, os.RemoveAll(r.vsDir(id))
}

// Exec runs a command inside a virtual server, among the processes that end
// with it, and returns its exit status.
func (r *Runtime) Exec(ctx context.Context, id int, argv []string) (int, error) {
	c, err := r.inside(ctx, id)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return c.Exec(ctx, argv, os.Environ(), os.Stdin, os.Stdout, os.Stderr)
}

// inside returns the init of an enabled virtual server, started if need be.
func (r *Runtime) inside(ctx context.Context, id int) (*service.Client, error) {
	unlock, err := r.Store.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	vs, err := r.Store.Load(id)
	if err != nil {
		return nil, err
	}
	ns, err := nsutil.Open(r.place(id).Path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notEnabled(id)
	}
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	c, err := r.dial(ctx, ns, id)
	if errors.Is(err, service.ErrNotRunning) {
		c, err = r.start(ctx, ns, vs)
		if err == nil {
			err = c.Set(ctx, vs.Services)
		}
	}
	return c, err
}

// AddService adds a service to a virtual server, or replaces the one of that
// name, and starts it where the virtual server is enabled.
func (r *Runtime) AddService(ctx context.Context, id int, s service.Service) (VirtualServer, error) {
	return r.Update(ctx, id, func(vs *VirtualServer) error {
		k := slices.IndexFunc(vs.Services, func(o service.Service) bool { return o.Name == s.Name })
		if k < 0 {
			vs.Services = append(vs.Services, s)
		} else {
			vs.Services[k] = s
		}
		return nil
	})
}

// RemoveService stops a service and forgets it.
func (r *Runtime) RemoveService(ctx context.Context, id int, name string) (VirtualServer, error) {
	return r.Update(ctx, id, func(vs *VirtualServer) error {
		k := slices.IndexFunc(vs.Services, func(o service.Service) bool { return o.Name == name })
		if k < 0 {
			return fmt.Errorf("%s has no service %s", vs, name)
		}
		vs.Services = slices.Delete(vs.Services, k, k+1)
		return nil
	})
}

// A ServiceOrder is what an operator tells a running service.
type ServiceOrder func(*service.Client, context.Context, string) error

// The orders.
var (
	StartService   ServiceOrder = (*service.Client).StartService
	StopService    ServiceOrder = (*service.Client).StopService
	RestartService ServiceOrder = (*service.Client).RestartService
)

// Order tells a service of an enabled virtual server what to do. The record
// stays: the next enable starts it again.
func (r *Runtime) Order(ctx context.Context, id int, name string, order ServiceOrder) error {
	c, err := r.inside(ctx, id)
	if err != nil {
		return err
	}
	defer c.Close()
	return order(c, ctx, name)
}
