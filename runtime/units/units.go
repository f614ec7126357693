package units

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/runtime/service"
)

// Booted reports whether systemd has booted this system (sd_booted(3)).
func Booted() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

// transient is where systemd keeps units that were asked for, as long as they are loaded.
const transient = "/run/systemd/transient"

// A Server is a virtual server whose services are units.
type Server struct{ service.Config }

func (v Server) name() string { return cgroup.Name(v.ID) }

func (v Server) title() string {
	if v.Hostname != "" {
		return v.Hostname
	}
	return v.name()
}

func (v Server) prefix() string { return "vsrun-" + v.name() + "-" }

func (v Server) unit(service string) string { return v.prefix() + service + ".service" }

func (v Server) service(unit string) string {
	return strings.TrimSuffix(strings.TrimPrefix(unit, v.prefix()), ".service")
}

// Matches are what journalctl finds the output of a service by.
func (v Server) Matches(name string) []string {
	return []string{"_SYSTEMD_UNIT=" + v.unit(name)}
}

func (v Server) slice() string { return "vsrun-" + v.name() + ".slice" }

// Any reports whether systemd has a unit of the virtual server. It asks nobody.
func (v Server) Any() bool { return len(v.loaded()) > 0 || v.hasSlice() }

// hasSlice looks for the slice's cgroup, in v2's hierarchy or systemd's own.
func (v Server) hasSlice() bool {
	for _, hierarchy := range []string{"", "unified", "systemd"} {
		if _, err := os.Lstat(filepath.Join("/sys/fs/cgroup", hierarchy, "vsrun.slice", v.slice())); err == nil {
			return true
		}
	}
	return false
}

func (v Server) loaded() (names []string) {
	paths, _ := filepath.Glob(filepath.Join(transient, v.unit("*")))
	for _, p := range paths {
		names = append(names, filepath.Base(p))
	}
	return names
}

// Numbers are those of the virtual servers that systemd has a unit of.
func Numbers() (ids []int) {
	paths, _ := filepath.Glob(filepath.Join(transient, "vsrun-vs*-*.service"))
	for _, p := range paths {
		name, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(p), "vsrun-"), "-")
		if id := cgroup.Number(name); id > 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// Report tells how the services stand. Those that run as want has them are in Wanted
// as they are there, others by their names.
func (v Server) Report(ctx context.Context, want []service.Service) (service.Report, error) {
	r := service.Report{Config: v.Config}
	list, err := show(ctx, v.loaded())
	for _, u := range list {
		if u.state() == service.Stopped {
			continue
		}
		name := v.service(u["Id"])
		r.Services = append(r.Services, u.status(name))
		known := service.Service{Name: name}
		if k := slices.IndexFunc(want, func(s service.Service) bool { return s.Name == name }); k >= 0 && v.same(u, want[k]) {
			known = want[k]
		}
		r.Wanted = append(r.Wanted, known)
	}
	return r, err
}

// same reports whether the unit is what would be asked for now.
func (v Server) same(u unit, s service.Service) bool {
	return "--description="+u["Description"] == v.command(s)[0]
}

// Set makes the virtual server's services exactly these: those that are not in the
// list, are changed, or have failed are stopped, and those that are not there started,
// in their order. A service that cannot be started is an error; systemd tries it again
// as its Restart says.
func (v Server) Set(ctx context.Context, want []service.Service) error {
	list, err := show(ctx, v.loaded())
	if err != nil {
		return err
	}
	var old []string
	running := map[string]bool{}
	for _, u := range list {
		name := v.service(u["Id"])
		k := slices.IndexFunc(want, func(s service.Service) bool { return s.Name == name })
		stopped := u.state() == service.Failed || u.state() == service.Stopped
		if running[name] = k >= 0 && !stopped && v.same(u, want[k]); !running[name] {
			old = append(old, u["Id"])
		}
	}
	if _, err := v.stop(ctx, old, service.OwnTimeout); err != nil {
		return err
	}
	for _, s := range inOrder(want) {
		if running[s.Name] {
			continue
		}
		if err := v.start(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// inOrder has every service behind those that it is started after.
func inOrder(services []service.Service) (list []service.Service) {
	done := map[string]bool{}
	var add func(s service.Service)
	add = func(s service.Service) {
		if done[s.Name] {
			return
		}
		done[s.Name] = true
		for _, o := range services {
			if slices.Contains(s.After, o.Name) {
				add(o)
			}
		}
		list = append(list, s)
	}
	for _, s := range services {
		add(s)
	}
	return list
}

// start returns when the service is ready.
func (v Server) start(ctx context.Context, s service.Service) error {
	err := v.MakePrivate(s)
	if err == nil {
		_, err = run(ctx, "systemd-run", v.command(s)...)
	}
	if err != nil {
		return fmt.Errorf("cannot start %s (journalctl -u %s tells more): %w", s.Name, v.unit(s.Name), err)
	}
	return nil
}

// Order gives a service an order, and returns when that is done. killed is its name
// when it had to be killed. One that was stopped is started again by the next Set:
// systemd forgets it.
func (v Server) Order(ctx context.Context, o service.Order, s service.Service) (killed []string, err error) {
	name := v.unit(s.Name)
	list, err := show(ctx, []string{name})
	if err != nil {
		return nil, err
	}
	state := list[0].state()
	idle := state == service.Stopped || state == service.Failed || state == service.Finished
	switch {
	case o == service.OrderReload && idle:
		return nil, fmt.Errorf("%s is %s", s.Name, state)
	case o == service.OrderReload:
		_, err = run(ctx, "systemctl", "kill", "--kill-whom=main", "--signal="+signal(s.Reload.Signal), name)
		return nil, err
	case o == service.OrderStart && !idle && state != service.Backoff:
		return nil, nil
	}
	if slices.Contains(v.loaded(), name) {
		killed, err = v.stop(ctx, []string{name}, service.OwnTimeout)
	}
	if err == nil && o != service.OrderStop {
		err = v.start(ctx, s)
	}
	return killed, err
}

// Stop ends all services, in the reverse order of services, and forgets them. Those that
// have not ended within their own time, or timeout, are killed, and named.
func (v Server) Stop(ctx context.Context, services []service.Service, timeout time.Duration) (killed []string, err error) {
	names := v.loaded()
	var order []string
	for _, s := range inOrder(services) {
		order = append(order, v.unit(s.Name))
	}
	slices.SortStableFunc(names, func(a, b string) int { return slices.Index(order, b) - slices.Index(order, a) })
	killed, err = v.stop(ctx, names, timeout)
	if err == nil && v.hasSlice() { // systemd stops none by itself
		_, err = run(ctx, "systemctl", "stop", v.slice())
	}
	return killed, err
}

// stop stops units one after the other, and names the services that had to be killed.
// What has failed stays loaded until it is reset.
func (v Server) stop(ctx context.Context, names []string, timeout time.Duration) (killed []string, err error) {
	if timeout < 0 {
		timeout = service.Longest * time.Duration(len(names)) // systemd ends each in its own time
	}
	patient, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, name := range names {
		died, err := v.stopOne(ctx, patient, name)
		if err != nil {
			return killed, fmt.Errorf("cannot stop %s: %w", name, err)
		}
		if died {
			killed = append(killed, v.service(name))
		}
	}
	return killed, nil
}

// stopOne asks as long as patient lasts, and reports whether the unit had to be killed.
func (v Server) stopOne(ctx, patient context.Context, name string) (killed bool, err error) {
	before, err := show(ctx, []string{name})
	if err != nil {
		return false, err
	}
	_, err = run(patient, "systemctl", "stop", name)
	if patient.Err() != nil && ctx.Err() == nil {
		if _, err = run(ctx, "systemctl", "kill", "--signal=KILL", name); err == nil {
			_, err = run(ctx, "systemctl", "stop", name)
		}
	}
	if err != nil {
		return false, err
	}
	after, err := show(ctx, []string{name})
	if err != nil || after[0].state() != service.Failed {
		return false, err
	}
	_, err = run(ctx, "systemctl", "reset-failed", name)
	return before[0].state() != service.Failed && after[0].killed(), err
}
