package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/nsutil/cgroup"
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

// begin starts the init and the services, all or none.
func (r *Runtime) begin(ctx context.Context, ns *nsutil.Namespace, vs VirtualServer) (*service.Client, error) {
	c, err := r.start(ctx, ns, vs)
	if errors.Is(err, cgroup.ErrBusy) { // no init was made, and the cgroup is another's
		return nil, errors.Join(err, unlessTaken(service.Clear(r.socket(vs.ID))))
	}
	if err != nil {
		return nil, errors.Join(err, r.clearDead(vs.ID))
	}
	if err := set(ctx, c, vs, service.Report{}); err != nil {
		defer c.Close()
		_, ended := c.Shutdown(context.WithoutCancel(ctx), OwnTimeout)
		return nil, errors.Join(err, ended, r.clear(vs.ID))
	}
	return c, nil
}

// find is the init of a virtual server, though its socket may be lost or its
// queue of connections full.
func (r *Runtime) find(id int) (*service.Client, error) {
	c, err := service.Dial(r.socket(id))
	if errors.Is(err, service.ErrNotRunning) || errors.Is(err, service.ErrSilent) {
		return service.Find(r.logDir(id), r.socket(id))
	}
	return c, err
}

// dial is the init of a virtual server, to talk to. One that has lost its
// socket, or is in a namespace that is gone, is ended first.
func (r *Runtime) dial(ctx context.Context, ns *nsutil.Namespace, id int) (*service.Client, error) {
	c, err := service.Dial(r.socket(id))
	lost := errors.Is(err, service.ErrNotRunning)
	if lost {
		c, err = service.Find(r.logDir(id), r.socket(id))
	}
	if err != nil {
		return nil, err
	}
	inside, err := c.InNamespace(ns)
	if err == nil && inside && !lost {
		return c, nil
	}
	defer c.Close()
	if err == nil {
		_, err = c.Shutdown(ctx, OwnTimeout)
	}
	return nil, cmp.Or(err, service.ErrNotRunning)
}

// config is what the init of a virtual server is told.
func (r *Runtime) config(vs VirtualServer) service.Config {
	return service.Config{
		ID:         vs.ID,
		Hostname:   vs.Title(),
		NetnsDir:   r.NetnsDir,
		LogDir:     r.logDir(vs.ID),
		PrivateDir: filepath.Join(r.keepDir(vs.ID), "private"),
		Hide:       []string{r.RunDir, r.StateDir},
		DNS:        vs.DNS,
		Share:      vs.Share,
		Volumes:    vs.Volumes,
	}
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

// start starts the init, or takes the one that a killed vsrun has started
// meanwhile.
func (r *Runtime) start(ctx context.Context, ns *nsutil.Namespace, vs VirtualServer) (c *service.Client, err error) {
	if _, err := os.Stat(r.Init); err != nil {
		return nil, &plumbing.Refusal{
			Err:  fmt.Errorf("cannot start a process in %s: the program vs-init is not at %s", vs, r.Init),
			Cure: "install it beside vsrun, or name it with VSRUN_INIT",
		}
	}
	for range tries {
		if err := os.MkdirAll(r.vsDir(vs.ID), 0o755); err != nil {
			return nil, err
		}
		c, err = r.launch(ctx, ns, vs)
		if !errors.Is(err, service.ErrTaken) {
			break
		}
		c, err = r.dial(ctx, ns, vs.ID)
		if !errors.Is(err, service.ErrNotRunning) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot start the init of %s: %w", vs, err)
	}
	return c, nil
}

// launch starts the init with its volumes.
func (r *Runtime) launch(ctx context.Context, ns *nsutil.Namespace, vs VirtualServer) (*service.Client, error) {
	var mounted []*os.File
	defer func() {
		for _, f := range mounted {
			f.Close() // the init has them, or nobody
		}
	}()
	for _, v := range vs.Volumes {
		f, err := volume.Mount(v, r.volumesDir(vs.ID))
		if err != nil {
			return nil, err
		}
		mounted = append(mounted, f)
	}
	return service.Start(ctx, ns, r.Init, r.socket(vs.ID), r.config(vs), mounted...)
}

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

// clear removes what an init that has ended leaves. A cgroup of a virtual server that
// there is no trace of here is another's: cgroups are the machine's. So is one that
// processes are in: with an init of ours all of its processes have ended.
func (r *Runtime) clear(id int) error {
	if !exists(r.vsDir(id)) && !exists(r.Store.path(id)) {
		return nil
	}
	if err := service.Clear(r.socket(id)); err != nil {
		return err
	}
	err := r.groups().RemoveEmpty(cgroup.Name(id))
	if errors.Is(err, cgroup.ErrBusy) { // gc tells of it
		return nil
	}
	return err
}

// clearDead is clear where there was an init that nobody needs.
func (r *Runtime) clearDead(id int) error {
	if !exists(r.vsDir(id)) {
		return nil
	}
	return unlessTaken(r.clear(id))
}

// unlessTaken is err but for that of an init that has begun to listen meanwhile.
func unlessTaken(err error) error {
	if errors.Is(err, service.ErrTaken) {
		return nil
	}
	return err
}

func (r *Runtime) end(ctx context.Context, id int, timeout time.Duration) (killed []string, err error) {
	c, err := r.find(id)
	if errors.Is(err, service.ErrNotRunning) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer c.Close()
	// What is in the namespace must be found when no process holds it any more.
	// Without a name the kernel removes it a little later: no reason to stop here.
	_ = r.publish(c, id)
	return c.Shutdown(ctx, timeout)
}

// open opens the namespace of a virtual server: that of its init, whose services go on,
// where somebody has taken the name away.
func (r *Runtime) open(id int) (*plumbing.Handle, error) {
	h, err := r.view.Open(r.place(id))
	if err != nil || h.Namespace() != nil {
		return h, err
	}
	c, err := r.find(id)
	if err == nil {
		defer c.Close()
		var ns *nsutil.Namespace
		if ns, err = c.Namespace(); err == nil {
			err = h.Adopt(ns, c.Pid())
		}
	}
	if err != nil && !errors.Is(err, service.ErrNotRunning) {
		h.Close()
		return nil, fmt.Errorf("cannot find the namespace of vs%d: %w", id, err)
	}
	return h, nil
}

// publish gives the namespace that the init is in its name, unless there is one of that
// name.
func (r *Runtime) publish(c *service.Client, id int) error {
	path := r.place(id).Path()
	there, err := nsutil.Open(path)
	if err == nil {
		return there.Close()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ns, err := c.Namespace()
	if errors.Is(err, service.ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Publish(path)
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
