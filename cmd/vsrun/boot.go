package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/runtime"
)

const bootHelp = `Bring up all virtual servers that are not disabled, or mend what has drifted.
What was disabled stays so: that is the difference from vsrun enable --all. The
unit vsrun.service does this at boot.`

func (a *app) bootCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "boot",
		Short: "Bring up all virtual servers that are not disabled",
		Long:  bootHelp,
		Args:  arguments(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.atOnce("bring up", false, func(r *runtime.Runtime, vs runtime.VirtualServer) (did string, err error) {
				vs, err = r.Boot(c.Context(), vs.ID)
				if err == nil && !vs.Disabled {
					did = fmt.Sprintf("%s is up%s", vs, summary(vs))
				}
				return did, err
			})
		},
	}
}

const shutdownHelp = `Take all virtual servers down, in order and at once, as at the end of the machine.
They are up again after vsrun boot: that is the difference from vsrun disable --all.
Until then vsd mends nothing.
The unit vsrun-shutdown.service does this when the machine is switched off.`

func (a *app) shutdownCommand() *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "shutdown",
		Short: "Take all virtual servers down until the next boot",
		Long:  shutdownHelp,
		Args:  arguments(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.atOnce("take down", true, func(r *runtime.Runtime, vs runtime.VirtualServer) (did string, err error) {
				killed, err := r.Shutdown(c.Context(), vs.ID, timeout)
				if err == nil && !vs.Disabled {
					did = fmt.Sprintf("%s is down%s", vs, hadToKill(killed))
				}
				return did, err
			})
		},
	}
	timeoutFlag(c, &timeout)
	return c
}

// atOnce does something to all virtual servers, which are to be down from now on or not.
// One that fails does not keep the others from it.
func (a *app) atOnce(what string, down bool, do func(*runtime.Runtime, runtime.VirtualServer) (did string, err error)) error {
	r, err := a.runtime()
	if err != nil {
		return fmt.Errorf("cannot %s virtual servers: %w", what, err)
	}
	if err := r.SetDown(down); err != nil {
		return fmt.Errorf("cannot %s virtual servers: %w", what, err)
	}
	defer r.Keep()()
	list, unread := r.Store.List()
	var words []string
	servers := map[int]runtime.VirtualServer{}
	ids := map[string]int{}
	for _, vs := range list {
		words, servers[vs.ID], ids[vs.String()] = append(words, vs.String()), vs, vs.ID
	}
	failed := a.each(what, words, func(word string) (int, error) { return ids[word], nil }, func(ids []int, tell telling) {
		runtime.AtOnce(len(ids), func(k int) {
			did, err := do(r, servers[ids[k]])
			if did == "" {
				tell(ids[k], err)
				return
			}
			tell(ids[k], err, did)
		})
	})
	if failed != nil && unread != nil {
		a.report(unread)
		return failed
	}
	return errors.Join(unread, failed)
}
