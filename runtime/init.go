package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime/service"
	"github.com/vsrun/vsrun/runtime/volume"
)

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
