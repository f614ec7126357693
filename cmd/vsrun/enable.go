package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/runtime"
)

func (a *app) enableCommand() *cobra.Command {
	var noProbe, prune bool
	c := a.manyCommand("enable", "Put virtual servers on the network, or mend what has drifted",
		func(ctx context.Context, r *runtime.Runtime, ids []int, tell telling) {
			r.NoProbe = noProbe
			runtime.AtOnce(len(ids), func(k int) {
				vs, err := r.Enable(ctx, ids[k])
				if err != nil {
					tell(ids[k], err)
					return
				}
				lines := []string{fmt.Sprintf("%s enabled%s", vs, summary(vs))}
				if prune {
					var gone []string
					gone, err = r.Prune(ctx, ids[k])
					for _, what := range gone {
						lines = append(lines, fmt.Sprintf("%s: deleted foreign %s", vs.Namespace(), what))
					}
				}
				tell(ids[k], err, lines...)
			})
		})
	c.Flags().BoolVar(&noProbe, "no-probe", false, "do not ask the segment whether the addresses are free")
	c.Flags().BoolVar(&prune, "prune", false, "delete the links, addresses, routes and rules that somebody has added inside")
	return c
}

func (a *app) disableCommand() *cobra.Command {
	var timeout time.Duration
	c := a.manyCommand("disable", "Take virtual servers off the network, and keep what they are",
		func(ctx context.Context, r *runtime.Runtime, ids []int, tell telling) {
			runtime.AtOnce(len(ids), func(k int) {
				killed, err := r.Disable(ctx, ids[k], timeout)
				if err != nil {
					tell(ids[k], err)
					return
				}
				tell(ids[k], nil, fmt.Sprintf("%s disabled%s", name(r, ids[k]), hadToKill(killed)))
			})
		})
	timeoutFlag(c, &timeout)
	return c
}

func (a *app) destroyCommand() *cobra.Command {
	var timeout time.Duration
	c := a.manyCommand("destroy", "Remove virtual servers, with their logs, volumes and private directories",
		func(ctx context.Context, r *runtime.Runtime, ids []int, tell telling) {
			r.DestroyAll(ctx, ids, timeout, func(vs runtime.VirtualServer, there bool, killed []string, err error) {
				switch {
				case err != nil:
					tell(vs.ID, err)
				case !there:
					tell(vs.ID, nil, fmt.Sprintf("%s was not there", vs.Namespace()))
				default:
					tell(vs.ID, nil, fmt.Sprintf("%s destroyed%s", vs, hadToKill(killed)))
				}
			})
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

// A telling says what became of a virtual server: what was done, and what failed.
type telling func(id int, err error, did ...string)

// manyCommand is a command that does one thing to each virtual server named.
// One that fails does not keep the others from it.
func (a *app) manyCommand(verb, short string, do func(context.Context, *runtime.Runtime, []int, telling)) *cobra.Command {
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
			defer r.Keep()()
			if all {
				list, err := r.Store.List()
				if err != nil {
					a.say(err)
				}
				for _, vs := range list {
					args = append(args, vs.Namespace())
				}
			}
			return a.each(verb, args, func(word string) (int, error) { return find(r, word) },
				func(ids []int, tell telling) { do(c.Context(), r, ids, tell) })
		},
	}
	c.Flags().BoolVar(&all, "all", false, "every virtual server")
	return c
}

// each does something to those named, each once, and tells in their order what became of
// them, as soon as it is known.
func (a *app) each(verb string, words []string, find func(string) (int, error), do func([]int, telling)) error {
	var ids []int
	var failed error
	fail := func(word string, err error) {
		if failed != nil {
			a.report(failed)
		}
		failed = fmt.Errorf("cannot %s %s: %w", verb, word, err)
	}
	called := map[int]string{}
	for _, word := range words {
		id, err := find(word)
		if err != nil {
			fail(word, err)
		} else if called[id] == "" {
			ids, called[id] = append(ids, id), word
		}
	}
	q := queue{ids: ids}
	do(ids, func(id int, err error, did ...string) {
		q.put(id, func() {
			for _, line := range did {
				a.did("%s", line)
			}
			if err != nil {
				fail(called[id], err)
			}
		})
	})
	return failed
}

// A queue has what is ready in any order told in the order of ids.
type queue struct {
	mu    sync.Mutex
	ids   []int
	ready map[int]func()
}

// queueOf is for 0 to n-1.
func queueOf(n int) *queue {
	q := new(queue)
	for k := range n {
		q.ids = append(q.ids, k)
	}
	return q
}

func (q *queue) put(id int, tell func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ready == nil {
		q.ready = map[int]func(){}
	}
	q.ready[id] = tell
	for len(q.ids) > 0 && q.ready[q.ids[0]] != nil {
		q.ready[q.ids[0]]()
		q.ids = q.ids[1:]
	}
}
