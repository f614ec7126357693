package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/runtime"
)

func (a *app) enableCommand() *cobra.Command {
	var noProbe, prune bool
	c := a.manyCommand("enable", "Put virtual servers on the network, or mend what has drifted",
		func(ctx context.Context, r *runtime.Runtime, id int) error {
			r.NoProbe = noProbe
			vs, err := r.Enable(ctx, id)
			if err != nil {
				return err
			}
			a.did("%s enabled%s", vs, summary(vs))
			if !prune {
				return nil
			}
			gone, err := r.Prune(ctx, id)
			for _, what := range gone {
				a.did("%s: deleted foreign %s", vs.Namespace(), what)
			}
			return err
		})
	c.Flags().BoolVar(&noProbe, "no-probe", false, "do not ask the segment whether the addresses are free")
	c.Flags().BoolVar(&prune, "prune", false, "delete the links, addresses, routes and rules that somebody has added inside")
	return c
}

func (a *app) disableCommand() *cobra.Command {
	var timeout time.Duration
	c := a.manyCommand("disable", "Take virtual servers off the network, and keep what they are",
		func(ctx context.Context, r *runtime.Runtime, id int) error {
			killed, err := r.Disable(ctx, id, timeout)
			if err != nil {
				return err
			}
			a.did("%s disabled%s", name(r, id), hadToKill(killed))
			return nil
		})
	timeoutFlag(c, &timeout)
	return c
}

func (a *app) destroyCommand() *cobra.Command {
	var timeout time.Duration
	c := a.manyCommand("destroy", "Remove virtual servers, with their logs, volumes and private directories",
		func(ctx context.Context, r *runtime.Runtime, id int) error {
			vs := name(r, id) // while it has one
			there, killed, err := r.Destroy(ctx, id, timeout)
			switch {
			case err != nil:
				return err
			case !there:
				a.did("%s was not there", vs.Namespace())
			default:
				a.did("%s destroyed%s", vs, hadToKill(killed))
			}
			return nil
		})
	timeoutFlag(c, &timeout)
	return c
}

// name is what messages call a virtual server by.
func name(r *runtime.Runtime, id int) runtime.VirtualServer {
	vs, err := r.Store.Load(id)
	if err != nil {
		return runtime.VirtualServer{ID: id}
	}
	return vs
}

func timeoutFlag(c *cobra.Command, timeout *time.Duration) {
	c.Flags().DurationVar(timeout, "timeout", runtime.OwnTimeout, "the most that services get to end by themselves (default what each has as stop timeout)")
	c.Flags().Lookup("timeout").DefValue = "0s" // is not shown
}

func hadToKill(killed []string) string {
	if len(killed) == 0 {
		return ""
	}
	return ", had to kill " + strings.Join(killed, ", ")
}

// manyCommand is a command that does one thing to each virtual server named.
// One that fails does not keep the others from it.
func (a *app) manyCommand(verb, short string, do func(context.Context, *runtime.Runtime, int) error) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   verb + " ID…|--all",
		Short: short,
		SuggestFor: map[string][]string{
			"enable": {"start", "up"}, "disable": {"stop", "down"}, "destroy": {"rm", "remove", "delete"},
		}[verb],
		RunE: func(c *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usagef("which ones? vsrun %s ID…, or --all", verb)
			}
			r, err := a.runtime()
			if err != nil {
				return fmt.Errorf("cannot %s: %w", verb, err)
			}
			if all {
				list, err := r.Store.List()
				if err != nil {
					a.say(err)
				}
				for _, vs := range list {
					args = append(args, vs.Namespace())
				}
			}
			return a.each(c.Context(), r, verb, args, do)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "every virtual server")
	return c
}

func (a *app) each(ctx context.Context, r *runtime.Runtime, verb string, words []string, do func(context.Context, *runtime.Runtime, int) error) error {
	var failed error
	for _, word := range words {
		id, err := find(r, word)
		if err == nil {
			err = do(ctx, r, id)
		}
		if err != nil {
			if failed != nil {
				a.report(failed)
			}
			failed = fmt.Errorf("cannot %s %s: %w", verb, word, err)
		}
	}
	return failed
}
