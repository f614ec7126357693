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
			var attached []plumbing.Interface
			add := func(vs *runtime.VirtualServer) error {
				interfaces, routes, err := iface.parse(vs.Network)
				if err != nil {
					return err
				}
				attached = interfaces
				if again, there := alreadyAttached(*vs, interfaces[0], iface.ifname != ""); there {
					attached[0] = again
				} else {
					vs.Interfaces = append(vs.Interfaces, interfaces...)
				}
				for _, r := range routes {
					if !slices.Contains(vs.Routes, r) {
						vs.Routes = append(vs.Routes, r)
					}
				}
				return nil
			}
			vs, err := a.update(c, args[0], add, dryRun, noProbe)
			if err != nil {
				return fmt.Errorf("cannot attach an interface to %s: %w", args[0], err)
			}
			if !dryRun {
				a.did("%s attached%s", vs, summary(runtime.VirtualServer{Network: plumbing.Network{Interfaces: attached}}))
			}
			return nil
		},
	}
	iface.register(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be done, as lines for a root shell")
	c.Flags().BoolVar(&noProbe, "no-probe", false, "do not ask the segment whether the addresses are free")
	return c
}

// alreadyAttached finds the interface that an earlier attach of the same has made, which
// may have been killed. One without addresses and a name could be another one.
func alreadyAttached(vs runtime.VirtualServer, i plumbing.Interface, named bool) (plumbing.Interface, bool) {
	k := slices.IndexFunc(vs.Interfaces, func(there plumbing.Interface) bool {
		if !named && len(i.Addresses) > 0 {
			i.Name = there.Name
		}
		return there.Equal(i)
	})
	if k < 0 {
		return i, false
	}
	return vs.Interfaces[k], true
}

func (a *app) detachCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "detach ID IFNAME",
		Short: "Take an interface, and the routes by it, from a virtual server",
		Args:  arguments(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			was := false
			take := func(vs *runtime.VirtualServer) error { was = detach(vs, args[1]); return nil }
			vs, err := a.update(c, args[0], take, false, false)
			switch {
			case err != nil:
				return fmt.Errorf("cannot detach %s from %s: %w", args[1], args[0], err)
			case was:
				a.did("%s detached: %s", vs, args[1])
			default:
				a.did("%s had no interface %s", vs, args[1])
			}
			return nil
		},
	}
}

// detach reports whether there was such an interface.
func detach(vs *runtime.VirtualServer, ifname string) bool {
	before := len(vs.Interfaces)
	through := plumbing.Network{Interfaces: slices.Clone(vs.Interfaces)}
	vs.Interfaces = slices.DeleteFunc(vs.Interfaces, func(i plumbing.Interface) bool { return i.Name == ifname })
	vs.Routes = slices.DeleteFunc(vs.Routes, func(r plumbing.Route) bool { return through.Leaves(r) == ifname })
	return len(vs.Interfaces) < before
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
