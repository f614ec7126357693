package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

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
		a.orderCommand("start", "started", "Start a service that is stopped", service.OrderStart),
		a.orderCommand("stop", "stopped", "Stop a service until it is started again, or the virtual server disabled and enabled", service.OrderStop),
		a.orderCommand("reload", "told to read its configuration again", "Have a service read its configuration again", service.OrderReload),
		a.orderCommand("restart", "restarted", "Stop a service and start it", service.OrderRestart),
	)
	return c
}

func (a *app) serviceAddCommand() *cobra.Command {
	var f serviceFlags
	c := &cobra.Command{
		Use:   "add ID NAME [flags] -- CMD…",
		Short: "Add a service, or change the one of that name, and start it",
		Long: `Add a service, or change the one of that name, and start it. The program must stay
in the foreground: one that puts itself in the background looks as if it had
ended, and is started again.

It runs as root without any capability, unless it is told otherwise: --capability
names one (NET_BIND_SERVICE), or a daemon whose needs are known: ` + strings.Join(slices.Sorted(maps.Keys(service.Presets)), ", ") + `.`,
		Example: `  vsrun service add 8 web --capability nginx --ready-tcp 80 -- nginx -c /srv/finance/nginx.conf -g 'daemon off;'
  vsrun service add 8 sync --user backup --after web -- /usr/local/bin/sync`,
		Args: func(c *cobra.Command, args []string) error {
			if c.ArgsLenAtDash() != 2 || len(args) < 3 {
				return usagef("what shall run? vsrun service add ID NAME -- CMD…")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			s, err := f.parse(args[1], args[2:])
			if err != nil {
				return err
			}
			did := ""
			vs, err := a.onServer(args[0], func(r *runtime.Runtime, id int) (vs runtime.VirtualServer, err error) {
				vs, did, err = r.AddService(c.Context(), id, s)
				return vs, err
			})
			if err != nil {
				return fmt.Errorf("cannot add service %s to %s: %w", s.Name, args[0], err)
			}
			a.did("%s service %s %s: %s", vs, s.Name, did, strings.Join(s.Command, " "))
			return nil
		},
	}
	f.register(c)
	return c
}

// serviceFlags are a service on the command line.
type serviceFlags struct {
	service.Service
	resources      resourceFlags
	restart        string
	listenStream   []string
	listenDatagram []string
	limitInterval  time.Duration
	stopTimeout    time.Duration
	readyWithin    time.Duration
	reloadCommand  string
	readyCommand   string
	healthCommand  string
	healthInterval time.Duration
	healthTimeout  time.Duration
}

func (f *serviceFlags) register(c *cobra.Command) {
	flags, s := c.Flags(), &f.Service
	flags.StringVar(&f.restart, "restart", "always", "when it ends by itself: always, on-failure or never")
	flags.IntVar(&s.StartLimit.Burst, "start-limit-burst", 0, "how often it may be started before it is left failed (default: any number)")
	flags.DurationVar(&f.limitInterval, "start-limit-interval", 0, "in what time these starts count (default 1m)")
	flags.StringArrayVar(&s.Private, "private", nil, "a directory that this virtual server has for itself; repeatable")
	flags.StringSliceVar(&s.After, "after", nil, "services that have to be ready before it is started")
	flags.IntVar(&s.Ready.TCP, "ready-tcp", 0, "it is ready when somebody listens on this port")
	flags.BoolVar(&s.Ready.Notify, "ready-notify", false, "it says itself when it is ready (sd_notify)")
	flags.StringVar(&s.Ready.Output, "ready-output", "", "it is ready when a line that it writes has this text in it")
	flags.StringVar(&f.readyCommand, "ready-command", "", "it is ready when this shell command succeeds, which is tried until then")
	flags.DurationVar(&f.readyWithin, "ready-within", 0, "how long that may take (default 30s)")
	flags.StringSliceVar(&f.listenStream, "listen-stream", nil, "a socket that is opened for it and held while it restarts: 80, 192.0.2.8:80, /run/a.sock; repeatable")
	flags.StringSliceVar(&f.listenDatagram, "listen-datagram", nil, "the same, of datagrams (sd_listen_fds); repeatable")
	flags.StringVar(&f.healthCommand, "health-command", "", "it is well as long as this shell command succeeds; restarted when it is not")
	flags.IntVar(&s.Health.TCP, "health-tcp", 0, "it is well as long as somebody listens on this port")
	flags.DurationVar(&f.healthInterval, "health-interval", 0, "from one such check to the next (default 30s)")
	flags.DurationVar(&f.healthTimeout, "health-timeout", 0, "how long the command may take (default 10s)")
	flags.IntVar(&s.Health.Failures, "health-failures", 0, "how many in a row it does not stand (default 3)")
	flags.StringVar(&s.Stop.Signal, "stop-signal", "", "what asks it to end (default TERM)")
	flags.DurationVar(&f.stopTimeout, "stop-timeout", 0, "how long it gets to end before it is killed (default 10s)")
	flags.StringVar(&s.Reload.Signal, "reload", "", "the signal upon which it reads its configuration again, such as HUP")
	flags.StringVar(&f.reloadCommand, "reload-command", "", "a shell command that has it do so; $MAINPID is its process")
	flags.StringVar(&s.User, "user", "", "whom it runs as (default root)")
	flags.StringVar(&s.Group, "group", "", "the group it runs as (default the user's)")
	flags.StringSliceVar(&s.Capabilities, "capability", nil, "what root's powers it may have; repeatable (default none)")
	flags.StringVar(&s.Syscalls, "syscalls", "", "all: no filter of system calls")
	flags.BoolVar(&s.ReadOnly, "read-only", false, "it may write only to what is --writable, --private, or in memory")
	flags.StringArrayVar(&s.Writable, "writable", nil, "a file or directory that it may write to, though it is read-only otherwise; repeatable")
	flags.StringToStringVar(&s.Environment, "env", nil, "NAME=VALUE; repeatable")
	flags.StringVar(&s.Directory, "directory", "", "where it starts (default /)")
	flags.StringVar(&s.Umask, "umask", "", "octal (default 022)")
	flags.StringToStringVar(&s.Limits, "limit", nil, "of setrlimit(2), such as nofile=4096; repeatable")
	flags.IntVar(&s.Nice, "nice", 0, "-20 to 19")
	f.resources.register(c, "its")
	flags.IntVar(&s.OOMScore, "oom-score", 0, "-1000 (killed last) to 1000 (first) when memory is short")
}

func (f *serviceFlags) parse(name string, command []string) (service.Service, error) {
	s := f.Service
	s.Name, s.Command = name, command
	for _, address := range f.listenStream {
		s.Sockets = append(s.Sockets, service.Socket{Stream: address})
	}
	for _, address := range f.listenDatagram {
		s.Sockets = append(s.Sockets, service.Socket{Datagram: address})
	}
	s.StartLimit.Interval = service.Duration(f.limitInterval)
	s.Ready.Timeout, s.Stop.Timeout = service.Duration(f.readyWithin), service.Duration(f.stopTimeout)
	s.Health.Interval, s.Health.Timeout = service.Duration(f.healthInterval), service.Duration(f.healthTimeout)
	s.Ready.Command, s.Health.Command, s.Reload.Command = shell(f.readyCommand), shell(f.healthCommand), shell(f.reloadCommand)
	var err error
	if s.Resources, err = f.resources.over(s.Resources); err != nil {
		return s, err
	}
	if err := s.Restart.UnmarshalText([]byte(f.restart)); err != nil {
		return s, usagef("--restart: %w", err)
	}
	return s, nil
}

// shell is a command that a shell carries out, nil for none.
func shell(text string) []string {
	if text == "" {
		return nil
	}
	return []string{"sh", "-c", text}
}

func (a *app) serviceRmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rm ID NAME",
		Short: "Stop a service and forget it",
		Args:  arguments(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			was := false
			vs, err := a.onServer(args[0], func(r *runtime.Runtime, id int) (vs runtime.VirtualServer, err error) {
				vs, was, err = r.RemoveService(c.Context(), id, args[1])
				return vs, err
			})
			switch {
			case err != nil:
				return fmt.Errorf("cannot remove service %s from %s: %w", args[1], args[0], err)
			case was:
				a.did("%s service %s removed", vs, args[1])
			default:
				a.did("%s had no service %s", vs, args[1])
			}
			return nil
		},
	}
}

func (a *app) orderCommand(verb, done, short string, order service.Order) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " ID NAME",
		Short: short,
		Args:  arguments(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			var killed []string
			vs, err := a.onServer(args[0], func(r *runtime.Runtime, id int) (vs runtime.VirtualServer, err error) {
				killed, err = r.Order(c.Context(), id, args[1], order)
				return name(r, id), err
			})
			if err != nil {
				return fmt.Errorf("cannot %s service %s of %s: %w", verb, args[1], args[0], err)
			}
			a.did("%s service %s %s%s", vs, args[1], done, hadToKill(killed))
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
	if s.Health != "" {
		words = append(words, s.Health)
	}
	if s.Restarts > 0 {
		words = append(words, fmt.Sprintf("%d restarts", s.Restarts))
	}
	if s.Last != "" {
		words = append(words, "last "+s.Last)
	}
	return strings.Join(words, "  ")
}
