package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/plumbing"
)

// A Runtime runs virtual servers on this host.
type Runtime struct {
	Store     *Store
	StateDir  string // logs and private directories of virtual servers
	RunDir    string // what is gone after a reboot
	NetnsDir  string // where namespaces are published
	Init      string // the program vs-init
	MachineID string // MAC addresses derive from it
	NoProbe   bool   // do not ask the segment whether an address is free

	groups func() *cgroup.Tree // found once: a thousand namespaces are as many mounts to look through

	// Warn, where there is one, is told what failed without anybody being kept from
	// what was to be done.
	Warn func(error)

	view *plumbing.HostView // nil: nothing of the host is remembered
}

// Keep has the Runtime remember what it has read of the store and of the host's devices,
// until end: for who does much at once. What others change meanwhile, it hears.
func (r *Runtime) Keep() (end func()) {
	forget := r.Store.Keep()
	view, err := plumbing.ViewHost()
	if err != nil { // everything is read each time
		return forget
	}
	r.view = view
	return func() {
		r.view = nil
		view.Close()
		forget()
	}
}

// Open is the Runtime of this host, for root alone. The program vs-init is the one beside
// the running program, or what VSRUN_INIT names.
func Open(stateDir, runDir, netnsDir string) (*Runtime, error) {
	if os.Geteuid() != 0 {
		return nil, &plumbing.Refusal{Err: errors.New("only root may do this"), Cure: "try: sudo " + filepath.Base(os.Args[0]) + " …"}
	}
	for _, dir := range []*string{&stateDir, &runDir, &netnsDir} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return nil, err
		}
		*dir = abs
	}
	id, err := MachineID()
	if err != nil {
		return nil, err
	}
	store := OpenStore(stateDir)
	store.spare = runDir
	return &Runtime{
		Store:     store,
		StateDir:  stateDir,
		RunDir:    runDir,
		NetnsDir:  netnsDir,
		Init:      initProgram(),
		MachineID: id,
		groups:    sync.OnceValue(cgroup.Find),
	}, nil
}

// initProgram is where vs-init is: beside the running program.
func initProgram() string {
	if path := os.Getenv("VSRUN_INIT"); path != "" {
		return path
	}
	self, err := os.Executable()
	if err != nil {
		return "vs-init"
	}
	return filepath.Join(filepath.Dir(self), "vs-init")
}

// MachineID reads this machine's id (machine-id(5)).
func MachineID() (string, error) {
	for _, path := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if b, err := os.ReadFile(path); err == nil && len(strings.TrimSpace(string(b))) >= 16 {
			return strings.TrimSpace(string(b)), nil
		}
	}
	return "", &plumbing.Refusal{
		Err:  errors.New("this machine has no id, which MAC addresses derive from"),
		Cure: "make one with: systemd-machine-id-setup (or dbus-uuidgen --ensure=/etc/machine-id)",
	}
}

func (r *Runtime) place(id int) plumbing.Place {
	return plumbing.Place{Dir: r.NetnsDir, Name: VirtualServer{ID: id}.Namespace()}
}

// resolved is the virtual server with the MAC addresses that it gets.
func (vs VirtualServer) resolved(machineID string) VirtualServer {
	vs.Interfaces = slices.Clone(vs.Interfaces)
	for k := range vs.Interfaces {
		if i := &vs.Interfaces[k]; i.MAC.IsZero() && i.HasOwnMAC() {
			i.MAC = plumbing.DeriveMAC(machineID, vs.Namespace(), i.Name)
		}
	}
	return vs
}

func (r *Runtime) network(vs VirtualServer) plumbing.Network {
	return vs.resolved(r.MachineID).Network
}

// Create stores a virtual server and enables it, unless it is Disabled. After
// an error nothing of it is left. One that is there already, and the same, is
// made whole. It returns what was done: created or unchanged.
func (r *Runtime) Create(ctx context.Context, vs VirtualServer) (did string, err error) {
	unlock, err := r.Store.lock(ctx, vs.ID)
	if err != nil {
		return "", err
	}
	defer unlock()
	exists, err := r.existing(vs)
	switch {
	case err != nil:
		return "", err
	case exists:
		return "unchanged", r.affirm(ctx, vs)
	}
	return "created", r.replace(ctx, nil, vs)
}

// existing reports whether vs is there already; one that is different is an
// error.
func (r *Runtime) existing(vs VirtualServer) (bool, error) {
	old, err := r.Store.Load(vs.ID)
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil
	case err != nil || same(old, vs):
		return true, err
	}
	return true, &plumbing.Refusal{
		Err:  fmt.Errorf("%s exists, and is different", old),
		Cure: fmt.Sprintf("see it with: vsrun show %d; change it with vsrun apply, or destroy it first", vs.ID),
	}
}

// same compares what is stored: a default that is written out is the default.
func same(a, b VirtualServer) bool { return bytes.Equal(a.record(), b.record()) }

// Update changes a virtual server, and the kernel with it. After an error all
// is as it was before. change may be called twice, the second time with what counts.
func (r *Runtime) Update(ctx context.Context, id int, change func(*VirtualServer) error) (VirtualServer, error) {
	old, unlock, err := r.Store.hold(ctx, id)
	if err != nil {
		return VirtualServer{}, err
	}
	defer unlock()
	vs, err := r.changed(old, change)
	if err != nil {
		return vs, err
	}
	return vs, r.replace(ctx, &old, vs)
}

// changed makes a change of what a virtual server is to be, which has again what was taken
// from it by an apply that was killed, unless another one has some of that by now.
func (r *Runtime) changed(old VirtualServer, change func(*VirtualServer) error) (VirtualServer, error) {
	if old.Before == nil {
		return old.changed(change)
	}
	less, lessErr := old.changed(change) // first: a change tells its caller what it has found
	vs, err := old.whole().changed(change)
	if err != nil || lessErr != nil || r.Store.free(vs, r.MachineID) == nil {
		return vs, err
	}
	vs.Disabled = old.Before.Disabled // which counts for nothing, and so need not be stored anew
	less.Before = &vs
	return less, nil
}

func (vs VirtualServer) changed(change func(*VirtualServer) error) (VirtualServer, error) {
	vs.Interfaces, vs.Routes, vs.Services = slices.Clone(vs.Interfaces), slices.Clone(vs.Routes), slices.Clone(vs.Services)
	if err := change(&vs); err != nil {
		return vs, err
	}
	if problems := vs.Validate(); len(problems) > 0 {
		return vs, &InvalidError{problems}
	}
	return vs, nil
}

// asItIs is the change of one that is to be what it is to be.
func asItIs(*VirtualServer) error { return nil }

// An InvalidError is a change that would make a virtual server impossible.
type InvalidError struct{ Problems []Problem }

func (e *InvalidError) Error() string { return errors.Join(e.Unwrap()...).Error() }
func (e *InvalidError) Unwrap() []error {
	var errs []error
	for _, p := range e.Problems {
		errs = append(errs, p.Err)
	}
	return errs
}

// replace stores what should be, makes it so, and goes back to old (nil:
// nothing) when it cannot.
func (r *Runtime) replace(ctx context.Context, old *VirtualServer, vs VirtualServer) error {
	if err := errors.Join(vs.checkHost(), r.checkShare(vs), r.checkVolumes(old, vs), r.checkMoved(old, vs)); err != nil {
		return err
	}
	if old != nil && same(*old, vs) {
		return r.affirm(ctx, vs)
	}
	_, kept := os.Lstat(r.keepDir(vs.ID))
	if err := r.Store.claim(ctx, vs, r.MachineID); err != nil {
		return err
	}
	err := r.reconcile(ctx, vs, old)
	switch {
	case err == nil:
		return nil
	case old == nil && errors.Is(kept, fs.ErrNotExist):
		return errors.Join(err, r.remove(vs.ID))
	case old == nil: // data of one whose record is lost
		return errors.Join(err, r.Store.forget(vs.ID))
	}
	if back := r.goBack(context.WithoutCancel(ctx), *old, vs); back != nil && back.Error() != err.Error() {
		err = errors.Join(err, fmt.Errorf("cannot go back to what was: %w", back))
	}
	return err
}

// affirm is replace for one that is stored as it is to be, perhaps by somebody who was killed
// before that was on the disk.
func (r *Runtime) affirm(ctx context.Context, vs VirtualServer) error {
	return errors.Join(r.Store.settle(), r.reconcile(ctx, vs))
}

// goBack makes a virtual server what it was, unless another one has taken something of
// that meanwhile. Then the record stays what was asked for last.
func (r *Runtime) goBack(ctx context.Context, old, vs VirtualServer) error {
	if err := r.Store.claim(ctx, old, r.MachineID); err != nil {
		return err
	}
	return r.reconcile(ctx, old, &vs)
}

// Enable puts virtual servers on the network, or mends what has drifted.
func (r *Runtime) Enable(ctx context.Context, id int) (VirtualServer, error) {
	return r.Update(ctx, id, func(vs *VirtualServer) error { vs.Disabled = false; return nil })
}

// Disable takes a virtual server off the network, and keeps what it should be.
// The services that had to be killed after their time, or timeout, are named.
func (r *Runtime) Disable(ctx context.Context, id int, timeout time.Duration) (killed []string, err error) {
	vs, unlock, err := r.Store.hold(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	vs.Disabled = true
	if err := r.Store.save(vs); err != nil {
		return nil, err
	}
	return r.stop(ctx, id, timeout)
}

// Boot makes a virtual server what it was last asked to be, on the network or not.
func (r *Runtime) Boot(ctx context.Context, id int) (VirtualServer, error) {
	return r.Update(ctx, id, asItIs)
}

// Shutdown takes a virtual server off the network until the next Boot. The services
// that had to be killed after their time, or timeout, are named.
func (r *Runtime) Shutdown(ctx context.Context, id int, timeout time.Duration) (killed []string, err error) {
	unlock, err := r.Store.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return r.stop(ctx, id, timeout)
}

// remove deletes what is kept of a virtual server, the record last. A checkpoint that has
// found the namespace writes into the directory: it has ended when Forget returns, and later
// ones find none.
func (r *Runtime) remove(id int) error {
	r.warn(r.Store.Ledgers().Forget(context.Background(), id))
	if err := os.RemoveAll(r.keepDir(id)); err != nil {
		return err
	}
	return r.Store.forget(id)
}

// keepDir is what a virtual server keeps beside its record: logs and private
// directories.
func (r *Runtime) keepDir(id int) string {
	return filepath.Join(r.StateDir, VirtualServer{ID: id}.Namespace())
}

// rounds is how often a network is looked at until nothing differs: a change of
// an address takes routes along that only the next look can see.
const rounds = 3

// Apply makes a virtual server what vs says, whether it is there or not. It
// returns what was done: created, changed or unchanged.
func (r *Runtime) Apply(ctx context.Context, vs VirtualServer) (did string, err error) {
	unlock, err := r.Store.lock(ctx, vs.ID)
	if err != nil {
		return "", err
	}
	defer unlock()
	return r.apply(ctx, vs)
}

// apply is Apply under the lock.
func (r *Runtime) apply(ctx context.Context, vs VirtualServer) (did string, err error) {
	old, err := r.Store.Load(vs.ID)
	switch {
	case errors.Is(err, ErrNotFound):
		return "created", r.replace(ctx, nil, vs)
	case err != nil:
		return "", err
	case same(old, vs):
		return "unchanged", r.affirm(ctx, vs)
	}
	return "changed", r.replace(ctx, &old, vs)
}

// Diff is what an apply of vs would do, and what somebody has added inside, in words.
func (r *Runtime) Diff(ctx context.Context, vs VirtualServer) (drift []Drift, foreign []string, err error) {
	var was []*VirtualServer
	if old, err := r.Store.Load(vs.ID); err == nil {
		was = append(was, &old)
	}
	s, err := r.status(ctx, vs, was...)
	return s.Drift, s.Foreign, err
}

// Prune deletes the links, addresses, routes and rules that somebody has added inside a virtual
// server, and names them.
func (r *Runtime) Prune(ctx context.Context, id int) (gone []string, err error) {
	vs, unlock, err := r.Store.hold(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	h, err := r.view.Open(r.place(id))
	if err != nil {
		return nil, err
	}
	defer h.Close()
	want := r.network(vs)
	have, err := h.Observe(want)
	if err != nil {
		return nil, err
	}
	foreigners := r.place(id).Foreigners(want, have)
	for _, f := range foreigners {
		gone = append(gone, f.What)
	}
	return gone, h.Prune(foreigners)
}
