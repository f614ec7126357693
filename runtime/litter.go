package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime/service"
	"github.com/vsrun/vsrun/runtime/units"
	"github.com/vsrun/vsrun/runtime/volume"
)

// Litter is what is ours on this host, and should not be there.
type Litter struct {
	Things []string // what there is, in words
	Kept   []string // what nobody but its owner may remove, and why
}

func (l *Litter) add(format string, args ...any) {
	l.Things = append(l.Things, fmt.Sprintf(format, args...))
}

// clear adds one that is removed, if it is to be.
func (l *Litter) clear(remove bool, what string, removal func() error) error {
	if remove {
		if err := removal(); err != nil {
			return fmt.Errorf("cannot remove %s: %w", what, err)
		}
	}
	l.Things = append(l.Things, what)
	return nil
}

// Litter finds what crashes, and people, have left behind, and removes it if it is told
// to. What somebody is at work on is none: it is looked at again under his lock. What
// commands remove by themselves they still do: this is for what nobody runs a command
// for any more.
func (r *Runtime) Litter(ctx context.Context, remove bool) (Litter, error) {
	var all Litter
	ids, err := r.traces()
	if err != nil {
		return all, err
	}
	var errs []error
	for _, id := range ids {
		errs = append(errs, r.litterOf(ctx, id, remove, &all))
	}
	return all, errors.Join(append(errs, r.litterOfPorts(ctx, remove, &all))...)
}

// traces are the numbers of virtual servers that something on this host is named for.
func (r *Runtime) traces() ([]int, error) {
	_, err := os.Lstat(filepath.Join(r.StateDir, lockFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, &plumbing.Refusal{
			Err:  fmt.Errorf("no virtual server has ever been kept in %s: everything would look as if nobody needed it", r.StateDir),
			Cure: "name the state directory with --state-dir",
		}
	}
	if err != nil {
		return nil, err
	}
	ids := append(cgroup.Find().Numbers(), units.Numbers()...)
	marked, err := plumbing.MarkedNamespaces()
	if err != nil {
		return nil, err
	}
	for _, name := range marked {
		ids = append(ids, numberOf(name))
	}
	for _, dir := range []string{r.StateDir, r.NetnsDir, r.RunDir} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			// A namespace or a directory, or a record that is not whole.
			name := strings.TrimPrefix(strings.TrimSuffix(e.Name(), ".json.new"), ".")
			if id := numberOf(name); id != 0 {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	ids = slices.DeleteFunc(slices.Compact(ids), func(id int) bool { return id < 1 || id > MaxID })
	return ids, nil
}

// litterOf looks, and if there is something, looks again when nobody is at work on it.
func (r *Runtime) litterOf(ctx context.Context, id int, remove bool, all *Litter) error {
	found, _, err := r.judge(ctx, id)
	if err != nil || len(found.Things)+len(found.Kept) == 0 {
		return err
	}
	unlock, err := r.Store.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	found, s, err := r.judge(ctx, id)
	if err != nil {
		return err
	}
	all.Kept = append(all.Kept, found.Kept...)
	if remove && len(found.Things) > 0 {
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("cannot remove %s: %w", strings.Join(found.Things, ", "), err)
		}
	}
	all.Things = append(all.Things, found.Things...)
	return nil
}

// A sweep removes what was found of one virtual server.
type sweep []func(context.Context) error

func (s sweep) do(ctx context.Context) error {
	var errs []error
	for _, one := range s {
		errs = append(errs, one(ctx))
	}
	return errors.Join(errs...)
}

// judge says what of all that there is of a virtual server should not be.
func (r *Runtime) judge(ctx context.Context, id int) (found Litter, s sweep, err error) {
	vs, err := r.Store.Load(id)
	none := errors.Is(err, ErrNotFound)
	if err != nil && !none { // nobody knows what should be
		found.Kept = append(found.Kept, err.Error())
		return found, nil, nil
	}
	alive, err := r.judgeInit(ctx, id, &found)
	if err != nil || len(found.Kept) > 0 {
		return found, nil, err
	}
	of := fmt.Sprintf("of vs%d, which there is not", id)
	if !none {
		of = fmt.Sprintf("of %s, which is disabled", vs)
	}
	unwanted, stop := none || vs.Disabled, false
	switch path := r.place(id).Path(); {
	case none && !exists(r.keepDir(id)) && r.published(id) == plumbing.Ours:
		found.Kept = append(found.Kept, fmt.Sprintf("namespace %s: %s has no trace of vs%d, so it may be another state directory's; to remove it: vsrun destroy %d", path, r.StateDir, id, id))
		return found, nil, nil
	case unwanted && r.published(id) == plumbing.Ours:
		found.add("namespace %s %s", path, of)
		stop = true
	case halfPublished(path):
		found.add("name %s without a namespace", path)
		s = append(s, func(context.Context) error { return nsutil.Unpublish(path) })
	}
	if alive && unwanted {
		found.add("init %s", of)
		stop = true
	}
	if unwanted && r.units(VirtualServer{ID: id}).Any() {
		found.add("units %s", of)
		stop = true
	}
	if stop {
		s = append(s, func(ctx context.Context) error { return r.takeDown(ctx, id, OwnTimeout) })
	}
	if !alive {
		s = append(s, r.judgeDead(id, &found)...)
	}
	s = append(s, r.judgeFiles(id, none, &found)...)
	devices, err := r.judgeDevices(id, vs, unwanted, &found)
	return found, append(s, devices...), err
}

// judgeInit reports whether there is an init. One that is kept elsewhere is not ours to
// end, whatever else bears its number.
func (r *Runtime) judgeInit(ctx context.Context, id int, found *Litter) (alive bool, err error) {
	c, err := r.find(id)
	if errors.Is(err, service.ErrNotRunning) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer c.Close()
	asked, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	now, err := c.Report(asked)
	switch {
	case errors.Is(err, service.ErrNotRunning):
		return false, nil
	case err != nil:
		found.Kept = append(found.Kept, fmt.Sprintf("init of vs%d, process %d: %v", id, c.Pid(), err))
	case now.Config.LogDir != r.logDir(id):
		found.Kept = append(found.Kept, fmt.Sprintf("init of vs%d, process %d: another state directory's, it writes to %s", id, c.Pid(), now.Config.LogDir))
	}
	return true, nil
}

// judgeDead finds what an init has left that ended without anybody to see to it.
func (r *Runtime) judgeDead(id int, found *Litter) (s sweep) {
	before := len(found.Things)
	if _, err := os.Lstat(r.vsDir(id)); err == nil {
		found.add("run directory %s of an init that has ended", r.vsDir(id))
	}
	if len(found.Things) > before {
		s = append(s, func(context.Context) error { return service.Clear(r.socket(id)) })
	}
	s = append(s, judgeCgroup(id, found)...)
	images, _ := filepath.Glob(filepath.Join(r.volumesDir(id), "*"+volume.Unfinished))
	for _, image := range images { // its maker would have the lock
		found.add("unfinished volume %s", image)
		s = append(s, func(context.Context) error { return os.Remove(image) })
	}
	return s
}

// judgeCgroup finds the cgroup of an init that has ended, and all its processes with it.
// Who is in there is somebody else's: cgroups are the machine's, and there may be other
// state and run directories, seen from another mount namespace.
func judgeCgroup(id int, found *Litter) sweep {
	name := cgroup.Name(id)
	g := cgroup.Find().Open(name)
	if g == nil {
		return nil
	}
	defer g.Close()
	if g.Busy() {
		found.Kept = append(found.Kept, fmt.Sprintf("cgroup %s: there are processes in it, and no init of vs%d here", name, id))
		return nil
	}
	found.add("cgroup %s of an init that has ended", name)
	return sweep{func(context.Context) error { return cgroup.Find().RemoveEmpty(name) }}
}

// judgeFiles finds what is left beside records.
func (r *Runtime) judgeFiles(id int, none bool, found *Litter) (s sweep) {
	if fresh := r.Store.fresh(id); exists(fresh) {
		found.add("half a record, %s", fresh)
		s = append(s, func(context.Context) error { return r.Store.remove(fresh) })
	}
	switch dir := r.keepDir(id); {
	case !none || !exists(dir):
	case holdsSomething(filepath.Join(dir, "private")), holdsSomething(r.volumesDir(id)), hasLedger(dir):
		found.Kept = append(found.Kept, fmt.Sprintf("%s: data of vs%d, which there is not; to remove it: vsrun destroy %d", dir, id, id))
	default:
		found.add("logs of vs%d, which there is not, in %s", id, dir)
		s = append(s, func(context.Context) error { return os.RemoveAll(dir) })
	}
	return s
}

// judgeDevices finds devices that came back by themselves.
func (r *Runtime) judgeDevices(id int, vs VirtualServer, unwanted bool, found *Litter) (s sweep, err error) {
	h, err := plumbing.Open(r.place(id))
	if err != nil {
		return nil, err
	}
	keep := vs.Network
	if unwanted {
		keep = plumbing.Network{}
	}
	plan, err := h.Returned(keep)
	h.Close()
	for _, step := range plan {
		found.add("a device that vs%d had: %s", id, step)
	}
	if len(plan) > 0 {
		s = sweep{func(ctx context.Context) error {
			h, err := plumbing.Open(r.place(id))
			if err != nil {
				return err
			}
			defer h.Close()
			return r.giveBack(ctx, h, keep)
		}}
	}
	return s, err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// hasLedger tells whether there is one, or one that was put aside.
func hasLedger(dir string) bool {
	found, _ := filepath.Glob(filepath.Join(dir, "ledger*"))
	return len(found) > 0
}

func holdsSomething(dir string) bool {
	entries, _ := os.ReadDir(dir)
	return len(entries) > 0
}

// published says whose the namespace is that has a virtual server's name.
func (r *Runtime) published(id int) plumbing.Presence {
	h, err := r.view.Open(r.place(id))
	if err != nil { // a file that is no namespace
		return plumbing.Foreign
	}
	defer h.Close()
	whose, _ := h.Whose()
	return whose
}

// halfPublished is the file of a name that nothing has been mounted on.
func halfPublished(path string) bool {
	ns, err := nsutil.Open(path)
	if err == nil {
		ns.Close()
	}
	return errors.Is(err, os.ErrNotExist) && exists(path)
}

// litterOfPorts looks at what virtual servers share.
func (r *Runtime) litterOfPorts(ctx context.Context, remove bool, all *Litter) error {
	unlock, err := r.Store.lock(ctx, host)
	if err != nil {
		return err
	}
	defer unlock()
	var errs []error
	halves, _ := filepath.Glob(r.Store.freshPort("*"))
	for _, half := range halves {
		errs = append(errs, all.clear(remove, "half a record, "+half, func() error { return r.Store.remove(half) }))
	}
	h, err := r.view.Open(r.place(host)) // where nothing is ever published
	if err != nil {
		return err
	}
	defer h.Close()
	errs = append(errs, r.litterOfBonds(ctx, h, remove, all))
	plan, err := h.Leftover(nil, plumbing.Network{})
	errs = append(errs, err)
	for _, step := range plan {
		what := strings.TrimPrefix(step.String(), "delete ") + ", which nobody uses"
		errs = append(errs, all.clear(remove, what, func() error { return plumbing.Plan{step}.Force(ctx, h) }))
	}
	return errors.Join(errs...)
}

// litterOfBonds looks for ports whose destruction has not come to its end.
func (r *Runtime) litterOfBonds(ctx context.Context, h *plumbing.Handle, remove bool, all *Litter) error {
	names, err := r.Store.Ports()
	errs := []error{err}
	for _, name := range names {
		p, err := r.Store.loadPort(name)
		if err != nil { // nobody knows what should be
			all.Kept = append(all.Kept, err.Error())
		}
		if err != nil || !p.Leaving {
			continue
		}
		errs = append(errs, all.clear(remove, "port "+name+", half destroyed", func() error { return r.destroyPort(ctx, p) }))
	}
	ours, err := h.OurBonds()
	for _, name := range ours {
		if !exists(r.Store.portPath(name)) {
			all.Kept = append(all.Kept, fmt.Sprintf("bond %s: %s has no port of that name, so it may be another state directory's; to remove it: ip link delete dev %s", name, r.StateDir, name))
		}
	}
	return errors.Join(append(errs, err)...)
}
