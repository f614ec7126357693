package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime"
)

func (a *app) portCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "port",
		Short: "Make one port of several devices, for more throughput or to outlive one",
		Long: `Make one port of several devices of the host (a bond), for more throughput or to
outlive one of them. Interfaces sit on it as on any other port: --port bond0.

In a document, beside virtual servers (vsrun apply):

  ports:
    - name: bond0
      mode: active-backup      # or balance-rr, 802.3ad, balance-xor, broadcast, balance-tlb, balance-alb
      members: [eth1, eth2]
      miimon: 100              # ms between looks at the members' carrier
      primary: eth1            # preferred while it is up
      primaryReselect: always  # or better, failure
      mtu: 1500
    - name: bond1
      mode: active-backup
      members: [eth3, eth4]
      arpInterval: 200         # ms; asks the targets instead of looking at the carrier
      arpTargets: [192.0.2.1]

What a member had, addresses and all, it gets back when it leaves.`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return usagef("unknown command %q for \"vsrun port\"", args[0])
		},
	}
	c.AddCommand(a.portCreateCommand(), a.portLsCommand(), a.portShowCommand(), a.portDestroyCommand())
	return c
}

// bondFlags are a bond on the command line.
type bondFlags struct {
	bond             plumbing.Bond
	mode, mac        string
	members, targets []string
}

func (f *bondFlags) register(c *cobra.Command) {
	flags, b := c.Flags(), &f.bond
	flags.StringSliceVar(&f.members, "members", nil, "the devices it is made of, such as eth1,eth2")
	flags.StringVar(&f.mode, "mode", "", "balance-rr, active-backup, 802.3ad, balance-xor, broadcast, balance-tlb or balance-alb")
	flags.IntVar(&b.Miimon, "miimon", 0, "milliseconds between looks at the members' carrier (default 100, none with ARP)")
	flags.IntVar(&b.UpDelay, "updelay", 0, "milliseconds before a member with carrier is used")
	flags.IntVar(&b.DownDelay, "downdelay", 0, "milliseconds before a member without carrier is left")
	flags.IntVar(&b.ARPInterval, "arp-interval", 0, "milliseconds between ARP questions to the targets, instead of miimon")
	flags.StringSliceVar(&f.targets, "arp-target", nil, "IPv4 address that is asked; repeatable")
	flags.StringVar(&b.ARPValidate, "arp-validate", "", "whose answers count: none, active, backup, all, filter, filter_active, filter_backup")
	flags.StringVar(&b.Primary, "primary", "", "the member that is preferred")
	flags.StringVar(&b.PrimaryReselect, "primary-reselect", "", "when it is taken again: always, better, failure")
	flags.StringVar(&b.FailOverMAC, "fail-over-mac", "", "whose MAC the bond has: none (its own), active, follow")
	flags.StringVar(&b.HashPolicy, "hash-policy", "", "what chooses the member: layer2, layer2+3, layer3+4, …")
	flags.StringVar(&b.LACPRate, "lacp-rate", "", "slow (every 30 s) or fast (every second)")
	flags.IntVar(&b.MinLinks, "min-links", 0, "members with carrier that the bond needs for its own (802.3ad)")
	flags.IntVar(&b.MTU, "mtu", 0, "largest packet in bytes (default the members' smallest)")
	flags.StringVar(&f.mac, "mac", "", "MAC address (default the first member's)")
}

func (f *bondFlags) parse(name string) (plumbing.Bond, error) {
	b := f.bond
	b.Name, b.Mode, b.Members = name, plumbing.BondMode(f.mode), f.members
	var err error
	if f.mac != "" {
		if b.MAC, err = plumbing.ParseMAC(f.mac); err != nil {
			return b, usageError{err}
		}
	}
	for _, s := range f.targets {
		target, err := parseAddr(s)
		if err != nil {
			return b, err
		}
		b.ARPTargets = append(b.ARPTargets, target)
	}
	if f.mode == "" {
		return b, usagef("which mode? --mode balance-rr shares the load, active-backup outlives a member")
	}
	if problems := b.Validate(); len(problems) > 0 {
		return b, &runtime.InvalidError{Problems: problems}
	}
	return b, nil
}

func (a *app) portCreateCommand() *cobra.Command {
	var f bondFlags
	var dryRun bool
	c := &cobra.Command{
		Use:   "create NAME --members DEV,DEV --mode MODE",
		Short: "Make a port of several devices",
		Example: `  vsrun port create bond0 --members eth1,eth2 --mode balance-rr
  vsrun port create bond0 --members eth1,eth2 --mode active-backup --primary eth1
  vsrun port create bond0 --members eth1,eth2 --mode active-backup --arp-interval 200 --arp-target 192.0.2.1`,
		Args: arguments(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			bond, err := f.parse(args[0])
			if err != nil {
				return err
			}
			r, err := a.runtime()
			switch {
			case err != nil:
			case dryRun:
				return a.dryRunPort(r.PlanPortCreate, bond)
			default:
				err = r.CreatePort(c.Context(), bond)
			}
			if err != nil {
				return fmt.Errorf("cannot create port %s: %w", bond.Name, err)
			}
			a.did("port %s created: %s of %s", bond.Name, bond.Mode, strings.Join(bond.Members, ", "))
			return nil
		},
	}
	f.register(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be done, as lines for a root shell")
	return c
}

func (a *app) dryRunPort(planned func(plumbing.Bond) (plumbing.Plan, error), bond plumbing.Bond) error {
	plan, err := planned(bond)
	if err != nil {
		return fmt.Errorf("cannot plan port %s: %w", bond.Name, err)
	}
	fmt.Fprint(a.out, plan.Script(plumbing.Place{}))
	return nil
}

func (a *app) portDestroyCommand() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:   "destroy NAME",
		Short: "Take a port apart, and give its members back as they were",
		Args:  arguments(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.runtime()
			if err != nil {
				return fmt.Errorf("cannot destroy port %s: %w", args[0], err)
			}
			return a.destroyPort(c, r, args[0], dryRun)
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be done, as lines for a root shell")
	return c
}

func (a *app) destroyPort(c *cobra.Command, r *runtime.Runtime, name string, dryRun bool) error {
	if dryRun {
		plan, err := r.PlanPortRemoval(name)
		if err != nil {
			return fmt.Errorf("cannot plan port %s: %w", name, err)
		}
		fmt.Fprint(a.out, plan.Script(plumbing.Place{}))
		return nil
	}
	there, err := r.DestroyPort(c.Context(), name)
	switch {
	case err != nil:
		return fmt.Errorf("cannot destroy port %s: %w", name, err)
	case there:
		a.did("port %s destroyed", name)
	default:
		a.did("port %s was not there", name)
	}
	return nil
}

func (a *app) portLsCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the ports that vsrun made",
		Args:    arguments(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := a.runtime()
			if err != nil {
				return fmt.Errorf("cannot list ports: %w", err)
			}
			all, err := r.PortStatusAll()
			if err != nil {
				return fmt.Errorf("cannot list ports: %w", err)
			}
			return a.print(format, all, func(w io.Writer, wide bool) { portTable(w, all, wide) })
		},
	}
	outputFlag(c, &format)
	return c
}

func portTable(w io.Writer, all []runtime.PortStatus, wide bool) {
	head := []any{"NAME", "STATE", "MODE", "MEMBERS", "USERS"}
	if wide {
		head = append(head, "MAC", "MTU", "DRIFT")
	}
	row(w, head...)
	for _, s := range all {
		var members []string
		for _, m := range s.Members {
			members = append(members, m.Name+":"+m.State)
		}
		cells := []any{s.Name, s.State, s.Mode, strings.Join(members, ","), strings.Join(s.Users, ",")}
		if wide {
			cells = append(cells, s.MAC, dash(s.MTU), runtime.Words(s.Drift))
		}
		row(w, cells...)
	}
}

func (a *app) portShowCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "show NAME",
		Short: "Show a port: its members, who is on it, what differs",
		Args:  arguments(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.runtime()
			var s runtime.PortStatus
			if err == nil {
				s, err = r.PortStatus(args[0])
			}
			if err != nil {
				return fmt.Errorf("cannot show port %s: %w", args[0], err)
			}
			return a.print(format, s, func(w io.Writer, _ bool) { showPort(w, s) })
		},
	}
	outputFlag(c, &format)
	return c
}

func showPort(w io.Writer, s runtime.PortStatus) {
	fmt.Fprintf(w, "port\t%s\n", s.Name)
	fmt.Fprintf(w, "state\t%s\n", s.State)
	fmt.Fprintf(w, "mode\t%s\n", s.Mode)
	fmt.Fprintf(w, "mac\t%s  mtu %d\n", s.MAC, s.MTU)
	for _, m := range s.Members {
		note := ""
		if m.Name == s.Active {
			note = "  active"
		}
		fmt.Fprintf(w, "member\t%s  %s  failures %d%s\n", m.Name, m.State, m.Failures, note)
	}
	for _, u := range s.Users {
		fmt.Fprintf(w, "user\t%s\n", u)
	}
	for _, d := range s.Drift {
		fmt.Fprintf(w, "drift\t%s\n", d)
	}
}
