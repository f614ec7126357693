package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime"
)

func (a *app) moveCommand() *cobra.Command {
	var port, vlan string
	var dryRun, noProbe bool
	c := &cobra.Command{
		Use:   "move ID IFNAME --port P [--vlan V]",
		Short: "Put an interface of a virtual server on another port, or VLAN, while it is in use",
		Long: `Put an interface of a virtual server on another port, or VLAN, while it is in use. It keeps
its MAC, addresses and routes, and connections go on: the new link is beside the old one
until it has everything. What is not said stays: the port with --vlan alone, the VLAN with
--port alone. An apply of a document with another port does the same.

Multicast groups that a service has joined by the interface have to be joined again. Kernels
before Linux 6.2 lose packets for some milliseconds.`,
		Example: `  vsrun move 8 eth0 --port eth2
  vsrun move 8 eth0 --vlan 20`,
		Args: arguments(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			if port+vlan == "" {
				return usagef("where to? vsrun move %s %s --port P [--vlan V]", args[0], args[1])
			}
			var tag plumbing.VLAN
			if vlan != "" && vlan != untagged {
				var err error
				if tag, err = plumbing.ParseVLAN(vlan); err != nil {
					return usageError{err}
				}
			}
			var was, is plumbing.Interface
			move := func(vs *runtime.VirtualServer) error {
				k := slices.IndexFunc(vs.Interfaces, func(i plumbing.Interface) bool { return i.Name == args[1] })
				if k < 0 {
					return fmt.Errorf("it has no interface %s", args[1])
				}
				was = vs.Interfaces[k]
				vs.Interfaces = slices.Clone(vs.Interfaces)
				if port != "" {
					vs.Interfaces[k].Port = port
				}
				if vlan != "" {
					vs.Interfaces[k].VLAN = tag
				}
				is = vs.Interfaces[k]
				return nil
			}
			vs, err := a.update(c, args[0], move, dryRun, noProbe)
			switch {
			case err != nil:
				return fmt.Errorf("cannot move %s of %s: %w", args[1], args[0], err)
			case dryRun:
			case was.Equal(is):
				a.did("%s unchanged: %s is on %s", vs, args[1], where(is.Port, is.VLAN))
			default:
				a.did("%s moved: %s from %s to %s", vs, args[1], where(was.Port, was.VLAN), where(is.Port, is.VLAN))
			}
			return nil
		},
	}
	flags := c.Flags()
	flags.StringVar(&port, "port", "", "the host's device that it is to sit on")
	flags.StringVar(&vlan, "vlan", "", "the VLAN of the port, or "+untagged)
	flags.BoolVar(&dryRun, "dry-run", false, "print what would be done, as lines for a root shell")
	flags.BoolVar(&noProbe, "no-probe", false, "do not ask the other segment whether the addresses are free")
	return c
}

// untagged is the word for no VLAN.
const untagged = "none"
