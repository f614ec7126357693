package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/runtime"
	"github.com/vsrun/vsrun/runtime/service"
)

func (a *app) serviceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "service",
		Short: "Add, remove, start and stop the services of a virtual server",
		Long: `A service is a program that runs inside a virtual server: started when it is
enabled, started again when it dies, stopped when it is disabled.`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return usagef("unknown command %q for \"vsrun service\"", args[0])
		},
	}
	c.AddCommand(
		a.serviceAddCommand(),
		a.serviceRmCommand(),
		a.orderCommand("start", "started", "Start a service that is stopped", runtime.StartService),
		a.orderCommand("stop", "stopped", "Stop a service until it is started again, or the virtual server disabled and enabled", runtime.StopService),
		a.orderCommand("restart", "restarted", "Stop a service and start it", runtime.RestartService),
	)
	return c
}

func (a *app) serviceAddCommand() *cobra.Command {
	var restart string
	var private []string
	c := &cobra.Command{
		Use:   "add ID NAME [flags] -- CMD…",
		Short: "Add a service, or change the one of that name, and start it",
		Long: `Add a service, or change the one of that name, and start it. The program must stay
in the foreground: one that puts itself in the background looks as if it had
ended, and is started again.`,
		Example: `  vsrun service add 8 web -- nginx -c /srv/finance/nginx.conf -g 'daemon off;'`,
		Args: func(c *cobra.Command, args []string) error {
			if c.ArgsLenAtDash() != 2 || len(args) < 3 {
				return usagef("what shall run? vsrun service add ID NAME -- CMD…")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			s := service.Service{Name: args[1], Command: args[2:], Private: private}
			if err := s.Restart.UnmarshalText([]byte(restart)); err != nil {
				return usagef("--restart: %w", err)
			}
			vs, err := a.onServer(args[0], func(r *runtime.Runtime, id int) (runtime.VirtualServer, error) {
				return r.AddService(c.Context(), id, s)
			})
			if err != nil {
				return fmt.Errorf("cannot add service %s to %s: %w", s.Name, args[0], err)
			}
			a.did("%s service %s added: %s", vs, s.Name, strings.Join(s.Command, " "))
			return nil
		},
	}
	c.Flags().StringVar(&restart, "restart", "always", "when it ends by itself: always, on-failure or never")
	c.Flags().StringArrayVar(&private, "private", nil, "a directory that this virtual server has for itself; repeatable")
	return c
}

func (a *app) serviceRmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rm ID NAME",
		Short: "Stop a service and forget it",
		Args:  arguments(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			vs, err := a.onServer(args[0], func(r *runtime.Runtime, id int) (runtime.VirtualServer, error) {
				return r.RemoveService(c.Context(), id, args[1])
			})
			if err != nil {
				return fmt.Errorf("cannot remove service %s from %s: %w", args[1], args[0], err)
			}
			a.did("%s service %s removed", vs, args[1])
			return nil
		},
	}
}

func (a *app) orderCommand(verb, done, short string, order runtime.ServiceOrder) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " ID NAME",
		Short: short,
		Args:  arguments(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			vs, err := a.onServer(args[0], func(r *runtime.Runtime, id int) (runtime.VirtualServer, error) {
				return name(r, id), r.Order(c.Context(), id, args[1], order)
			})
			if err != nil {
				return fmt.Errorf("cannot %s service %s of %s: %w", verb, args[1], args[0], err)
			}
			a.did("%s service %s %s", vs, args[1], done)
			return nil
		},
	}
}

func (a *app) onServer(word string, do func(*runtime.Runtime, int) (runtime.VirtualServer, error)) (runtime.VirtualServer, error) {
	r, err := a.runtime()
	if err != nil {
		return runtime.VirtualServer{}, err
	}
	id, err := find(r, word)
	if err != nil {
		return runtime.VirtualServer{}, err
	}
	return do(r, id)
}

func serviceDetail(s service.Status) string {
	var words []string
	if s.Pid != 0 {
		words = append(words, fmt.Sprintf("pid %d", s.Pid))
	}
	if !s.Since.IsZero() {
		words = append(words, "for "+ago(s.Since))
	}
	if s.Restarts > 0 {
		words = append(words, fmt.Sprintf("%d restarts", s.Restarts))
	}
	if s.Last != "" {
		words = append(words, "last "+s.Last)
	}
	return strings.Join(words, "  ")
}
