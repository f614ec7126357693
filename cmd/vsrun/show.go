package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/runtime"
	"github.com/vsrun/vsrun/runtime/service"
)

func (a *app) lsCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the virtual servers",
		Args:    arguments(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := a.runtime()
			if err != nil {
				return fmt.Errorf("cannot list virtual servers: %w", err)
			}
			defer r.Keep()()
			all, failed := r.StatusAll(c.Context())
			err = a.print(format, all, func(w io.Writer, wide bool) { lsTable(w, all, wide) })
			if failed != nil {
				return fmt.Errorf("cannot list all: %w", failed)
			}
			return err
		},
	}
	outputFlag(c, &format)
	return c
}

func lsTable(w io.Writer, all []runtime.Status, wide bool) {
	head := []any{"ID", "NAME", "STATE", "ADDRESSES", "SERVICES"}
	if wide {
		head = append(head, "PORTS", "MAC", "NAMESPACE", "DRIFT")
	}
	row(w, head...)
	for _, s := range all {
		var addresses, ports, macs, services []string
		for _, i := range s.Interfaces {
			for _, p := range i.Addresses {
				addresses = append(addresses, p.String())
			}
			ports, macs = append(ports, where(i.Port, i.VLAN)), append(macs, i.MAC.String())
		}
		for _, one := range s.Services {
			services = append(services, fmt.Sprintf("%s:%s", one.Name, one.State))
		}
		cells := []any{s.ID, s.Name, s.State, strings.Join(addresses, ","), strings.Join(services, ",")}
		if wide {
			cells = append(cells, strings.Join(ports, ","), strings.Join(macs, ","), s.Namespace, runtime.Words(s.Drift))
		}
		row(w, cells...)
	}
}

func (a *app) showCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "show ID",
		Short: "Show a virtual server: what it should be and what the kernel has",
		Args:  arguments(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := a.status(c, args[0])
			if err != nil {
				return fmt.Errorf("cannot show %s: %w", args[0], err)
			}
			return a.print(format, s, func(w io.Writer, wide bool) { showTable(w, s) })
		},
	}
	outputFlag(c, &format)
	return c
}

func (a *app) status(c *cobra.Command, word string) (runtime.Status, error) {
	r, err := a.runtime()
	if err != nil {
		return runtime.Status{}, err
	}
	id, err := find(r, word)
	if err != nil {
		return runtime.Status{}, err
	}
	return r.Status(c.Context(), id)
}

func showTable(w io.Writer, s runtime.Status) {
	fmt.Fprintf(w, "vs%d\t%s\n", s.ID, s.Name)
	fmt.Fprintf(w, "state\t%s\n", s.State)
	fmt.Fprintf(w, "namespace\t%s\n", s.Namespace)
	if s.Supervisor != "" {
		fmt.Fprintf(w, "supervisor\t%s\n", s.Supervisor)
	}
	for _, i := range s.Interfaces {
		up := "down"
		if i.Up {
			up = "up"
		}
		fmt.Fprintf(w, "interface\t%s  %s on %s  %s  mtu %d  %s\n", i.Name, i.Kind, where(i.Port, i.VLAN), i.MAC, i.MTU, up)
		for _, p := range i.Addresses {
			fmt.Fprintf(w, "  address\t%s\n", p)
		}
		for _, g := range i.Gateways {
			fmt.Fprintf(w, "  gateway\t%s\n", g)
		}
		if i.Mode != "" {
			fmt.Fprintf(w, "  mode\t%s\n", i.Mode)
		}
		for _, m := range i.Sources {
			fmt.Fprintf(w, "  source\t%s\n", m)
		}
		if i.RA {
			fmt.Fprintln(w, "  ra\ttrue")
		}
		for _, own := range []struct {
			name  string
			value int
		}{{"metric", i.Metric}, {"table", i.Table}, {"realm", i.Realm}} {
			if own.value != 0 {
				fmt.Fprintf(w, "  %s\t%d\n", own.name, own.value)
			}
		}
	}
	for _, r := range s.Routes {
		fmt.Fprintf(w, "route\t%s\n", r)
	}
	if len(s.DNS.Servers)+len(s.DNS.Search) > 0 {
		fmt.Fprintf(w, "dns\t%s\n", dns(s.DNS))
	}
	for _, p := range s.Share {
		fmt.Fprintf(w, "share\t%s\n", p)
	}
	for _, v := range s.Volumes {
		fmt.Fprintf(w, "volume\t%s  %s  %s\n", v.Path, v.Filesystem(), cmp.Or(v.Size, v.Device))
	}
	for _, one := range s.Services {
		fmt.Fprintf(w, "service\t%s  %s  %s\n", one.Name, one.State, serviceDetail(one.Status))
		if one.Sandbox != nil {
			fmt.Fprintf(w, "  may\t%s\n", sandbox(*one.Sandbox))
		}
	}
	if limits := limitsOf(s.Resources); limits != "" {
		fmt.Fprintf(w, "limits\t%s\n", limits)
	}
	for _, d := range s.Drift {
		fmt.Fprintf(w, "drift\t%s\n", d)
	}
	for _, f := range s.Foreign {
		fmt.Fprintf(w, "foreign\t%s\n", f)
	}
}

func dns(d service.DNS) string {
	var words []string
	for _, a := range d.Servers {
		words = append(words, a.String())
	}
	if len(d.Search) > 0 {
		words = append(words, "search "+strings.Join(d.Search, " "))
	}
	return strings.Join(words, "  ")
}

// sandbox is on a line what a service may do.
func sandbox(s service.Sandbox) string {
	words := []string{s.User}
	if s.Group != "" {
		words[0] += ":" + s.Group
	}
	if len(s.Capabilities) > 0 {
		words = append(words, strings.Join(s.Capabilities, ","))
	}
	if s.ReadOnly {
		words = append(words, "read-only")
	}
	if len(s.Writable) > 0 {
		words = append(words, "writable "+strings.Join(s.Writable, ","))
	}
	if len(s.Private) > 0 {
		words = append(words, "private "+strings.Join(s.Private, ","))
	}
	return strings.Join(append(words, "system calls "+s.Syscalls), "  ")
}

func (a *app) psCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "ps ID",
		Short: "Show a virtual server's services and their processes",
		Args:  arguments(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := a.status(c, args[0])
			if err != nil {
				return fmt.Errorf("cannot show the services of %s: %w", args[0], err)
			}
			return a.print(format, s.Services, func(w io.Writer, _ bool) {
				row(w, "SERVICE", "STATE", "PID", "RESTARTS", "SINCE", "MEMORY", "CPU", "TASKS", "HEALTH", "LAST")
				for _, one := range s.Services {
					u := one.Use
					row(w, one.Name, one.State, dash(one.Pid), one.Restarts, ago(one.Since), bytesUsed(u.Memory), cpuUsed(u.CPU), counted(u.Tasks), one.Health, one.Last)
				}
			})
		},
	}
	outputFlag(c, &format)
	return c
}

func dash(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return time.Since(t).Round(time.Second).String()
}

// bytesUsed writes an amount with three digits at most.
