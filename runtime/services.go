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
	"github.com/vsrun/vsrun/runtime/volume"
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

// LogFiles is that file after those that were put aside, the oldest first; some may
// not be there.
func (r *Runtime) LogFiles(id int, name string) []string {
	return service.Journal(r.logDir(id), name)
}

// tries is how often something is done over that an init has come between: a
// crash can leave one that is about to listen, or to end.
const tries = 3

// serve makes the services match the record. The init is started for the first
// of them; a virtual server without needs none.
func (r *Runtime) serve(ctx context.Context, ns *nsutil.Namespace, vs VirtualServer, _ bool) error {
	if vs.Supervisor == Systemd {
		return r.serveByUnits(ctx, ns, vs)
	}
	return r.serveByInit(ctx, ns, vs)
}

func (r *Runtime) serveByInit(ctx context.Context, ns *nsutil.Namespace, vs VirtualServer) (err error) {
	for range tries {
		err = r.tell(ctx, ns, vs)
		if !errors.Is(err, service.ErrNotRunning) {
			return err
		}
	}
	return err
}

// tell gives the list of services to the init, and starts it if need be.
func (r *Runtime) tell(ctx context.Context, ns *nsutil.Namespace, vs VirtualServer) error {
	c, err := r.dial(ctx, ns, vs.ID)
	if errors.Is(err, service.ErrNotRunning) {
		if len(vs.Services) == 0 {
			return r.clearDead(vs.ID)
		}
		c, err := r.begin(ctx, ns, vs)
		if err == nil {
			c.Close()
		}
		return err
	}
	if err != nil {
		return err
	}
	defer c.Close()
	now, err := r.ask(ctx, c, vs)
	if err != nil {
		return err
	}
	if now.Config.Same(r.config(vs)) {
		return set(ctx, c, vs, now)
	}
	// What an init has told programs about name, DNS and shares they keep.
	if _, err := c.Shutdown(ctx, OwnTimeout); err != nil {
		return fmt.Errorf("cannot restart the init of %s: %w", vs, err)
	}
	return service.ErrNotRunning // and tell starts it
}

// patience is how long an init may be busy before it counts as hung.
const patience = 5 * time.Second

func (r *Runtime) ask(ctx context.Context, c *service.Client, vs VirtualServer) (service.Report, error) {
	asked, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	now, err := c.Report(asked)
	switch {
	case errors.Is(err, service.ErrSilent):
		err = &plumbing.Refusal{
			Err:  fmt.Errorf("cannot see to the services of %s: %w", vs, err),
			Cure: fmt.Sprintf("its process %d may have been stopped; to end it and what it has started: vsrun disable %d", c.Pid(), vs.ID),
		}
	case err != nil && !errors.Is(err, service.ErrNotRunning):
		err = fmt.Errorf("cannot see to the services of %s: %w", vs, err)
	}
	return now, err
}

// set makes what an init has now what the record says.
func set(ctx context.Context, c *service.Client, vs VirtualServer, now service.Report) error {
	if err := service.Limit(vs.ID, vs.Resources); err != nil {
		return fmt.Errorf("cannot limit %s: %w", vs, err)
	}
	if len(vs.Files)+len(now.Files) > 0 {
		if err := c.Lay(ctx, vs.Files); err != nil {
			return fmt.Errorf("cannot give %s its files: %w", vs, err)
		}
	}
	if err := c.Set(ctx, vs.Services); err != nil {
		return fmt.Errorf("cannot start the services of %s: %w", vs, err)
	}
	return nil
}

// checkShare refuses to share what is vsrun's own. An init does, too, but there is
// none before the first service.
func (r *Runtime) checkShare(vs VirtualServer) error {
	if err := r.config(vs).CheckShare(); err != nil {
		return &plumbing.Refusal{Err: err, Cure: "take it out of share"}
	}
	return nil
}

// checkVolumes refuses those that differ from the old ones, and that an init could
// not be started with.
func (r *Runtime) checkVolumes(old *VirtualServer, vs VirtualServer) error {
	var errs []error
	for _, v := range vs.Volumes {
		if old != nil && slices.Contains(old.Volumes, v) {
			continue
		}
		errs = append(errs, volume.Check(v, r.volumesDir(vs.ID)))
	}
	return errors.Join(errs...)
}

func (r *Runtime) volumesDir(id int) string { return filepath.Join(r.keepDir(id), "volumes") }

// OwnTimeout gives services as long to end as each of them says (service.Stop).
const OwnTimeout = service.OwnTimeout

// stopServices ends the init and every process below it.
func (r *Runtime) stopServices(ctx context.Context, id int, timeout time.Duration) (killed []string, err error) {
	vs, _ := r.Store.Load(id) // else there is none that says in which order
	killed, failed := r.units(VirtualServer{ID: id}).Stop(ctx, vs.Services, timeout)
	for range tries {
		var names []string
		names, err = r.end(ctx, id, timeout)
		killed = append(killed, names...)
		if err == nil {
			err = r.clear(id)
		}
		if !errors.Is(err, service.ErrTaken) {
			break
		}
	}
	if err = errors.Join(failed, err); err != nil {
		return killed, fmt.Errorf("cannot stop the services of vs%d: %w", id, err)
	}
	return killed, nil
}

// Exec runs a command inside a virtual server, among the processes that end
// with it, and returns its exit status. Once it runs, signals are the command's
// to obey, and the end of ctx is nothing to it.
func (r *Runtime) Exec(ctx context.Context, id int, argv []string) (int, error) {
	c, err := r.inside(ctx, id)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return c.Exec(context.WithoutCancel(ctx), argv, os.Environ(), os.Stdin, os.Stdout, os.Stderr)
}

// inside returns the init of an enabled virtual server, started if need be.
func (r *Runtime) inside(ctx context.Context, id int) (*service.Client, error) {
	vs, unlock, err := r.Store.hold(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
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
		return r.begin(ctx, ns, vs.inInit())
	}
	return c, err
}

// AddService adds a service to a virtual server, or replaces the one of that
// name, and starts it where the virtual server is enabled. It returns what was done: added,
// changed or unchanged.
func (r *Runtime) AddService(ctx context.Context, id int, s service.Service) (vs VirtualServer, did string, err error) {
	log := r.LogFile(id, s.Name)
	_, err = os.Lstat(log)
	first := errors.Is(err, fs.ErrNotExist)
	vs, err = r.Update(ctx, id, func(vs *VirtualServer) error {
		k := slices.IndexFunc(vs.Services, func(o service.Service) bool { return o.Name == s.Name })
		switch {
		case k < 0:
			vs.Services, did = append(vs.Services, s), "added"
			return nil
		case vs.Services[k].Equal(s):
			did = "unchanged"
		default:
			did = "changed"
		}
		vs.Services[k], first = s, false
		return nil
	})
	if err != nil && first {
		os.Remove(log) // made by the attempt to start it
	}
	return vs, did, err
}

// RemoveService stops a service and forgets it; it says whether there was one.
func (r *Runtime) RemoveService(ctx context.Context, id int, name string) (vs VirtualServer, was bool, err error) {
	vs, err = r.Update(ctx, id, func(vs *VirtualServer) error {
		vs.Services = slices.DeleteFunc(vs.Services, func(s service.Service) bool {
			was = was || s.Name == name
			return s.Name == name
		})
		return nil
	})
	return vs, was, err
}

// Order tells a service of an enabled virtual server what to do. The record
// stays: the next enable starts it again. killed is its name when it had to be killed.
func (r *Runtime) Order(ctx context.Context, id int, name string, order service.Order) (killed []string, err error) {
	if vs, err := r.Store.Load(id); err == nil && vs.Supervisor == Systemd {
		return r.orderUnit(ctx, id, name, order)
	}
	c, err := r.inside(ctx, id)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Order(ctx, order, name)
}
