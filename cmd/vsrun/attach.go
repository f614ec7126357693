package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime"
)

func (a *app) attachCommand() *cobra.Command {
	var iface interfaceFlags
	var dryRun, noProbe bool
	c := &cobra.Command{
		Use:     "attach ID --port P [interface flags]",
		Short:   "Give a virtual server one more interface",
		Example: `  vsrun attach 8 --port eth2 --address 198.51.100.8/24`,
		Args:    arguments(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if iface.port == "" {
				return usagef("an interface needs --port, the host's device that it sits on")
			}
			add := func(vs *runtime.VirtualServer) error {
				interfaces, routes, err := iface.parse(vs.Network)
				vs.Interfaces, vs.Routes = append(vs.Interfaces, interfaces...), append(vs.Routes, routes...)
				return err
			}
			vs, err := a.update(c, args[0], add, dryRun, noProbe)
			if err != nil {
				return fmt.Errorf("cannot attach an interface to %s: %w", args[0], err)
			}
			if !dryRun {
				i := vs.Interfaces[len(vs.Interfaces)-1]
				a.did("%s attached%s", vs, summary(runtime.VirtualServer{Network: plumbing.Network{Interfaces: []plumbing.Interface{i}}}))
			}
			return nil
		},
	}
	iface.register(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be done, as lines for a root shell")
	c.Flags().BoolVar(&noProbe, "no-probe", false, "do not ask the segment whether the addresses are free")
	return c
}

func (a *app) detachCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "detach ID IFNAME",
		Short: "Take an interface, and the routes by it, from a virtual server",
		Args:  arguments(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			vs, err := a.update(c, args[0], func(vs *runtime.VirtualServer) error { return detach(vs, args[1]) }, false, false)
			if err != nil {
				return fmt.Errorf("cannot detach %s from %s: %w", args[1], args[0], err)
			}
			a.did("%s detached: %s", vs, args[1])
			return nil
		},
	}
}

func detach(vs *runtime.VirtualServer, ifname string) error {
	before := len(vs.Interfaces)
	through := plumbing.Network{Interfaces: slices.Clone(vs.Interfaces)}
	vs.Interfaces = slices.DeleteFunc(vs.Interfaces, func(i plumbing.Interface) bool { return i.Name == ifname })
	if len(vs.Interfaces) == before {
		return fmt.Errorf("%s has no interface %s", vs, ifname)
	}
	vs.Routes = slices.DeleteFunc(vs.Routes, func(r plumbing.Route) bool { return through.Leaves(r) == ifname })
	return nil
}

// update changes a virtual server, or prints what that would do.
func (a *app) update(c *cobra.Command, word string, change func(*runtime.VirtualServer) error, dryRun, noProbe bool) (runtime.VirtualServer, error) {
	var vs runtime.VirtualServer
	r, err := a.runtime()
	if err != nil {
		return vs, err
	}
	r.NoProbe = noProbe
	id, err := find(r, word)
	if err != nil {
		return vs, err
	}
	if !dryRun {
		return r.Update(c.Context(), id, change)
	}
	if vs, err = r.Store.Load(id); err != nil {
		return vs, err
	}
	if err := change(&vs); err != nil {
		return vs, err
	}
	if err := valid(vs); err != nil {
		return vs, err
	}
	return vs, a.dryRun(r, vs, r.Plan)
}
