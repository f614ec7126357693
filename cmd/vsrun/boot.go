package main

import (
	"fmt"
	"sync"
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
			return a.atOnce("bring up", false, func(r *runtime.Runtime, vs runtime.VirtualServer) error {
				vs, err := r.Boot(c.Context(), vs.ID)
				if err == nil && !vs.Disabled {
					a.did("%s is up%s", vs, summary(vs))
				}
				return err
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
			return a.atOnce("take down", true, func(r *runtime.Runtime, vs runtime.VirtualServer) error {
				killed, err := r.Shutdown(c.Context(), vs.ID, timeout)
				if err == nil && !vs.Disabled {
					a.did("%s is down%s", vs, hadToKill(killed))
				}
				return err
			})
		},
	}
	timeoutFlag(c, &timeout)
	return c
}

// crowd is how many virtual servers are seen to at once. Most of the time goes by in
// waiting, for answers from the network or for services to end.
const crowd = 16

// atOnce does something to all virtual servers, which are to be down from now on or not.
// One that fails does not keep the others from it.
func (a *app) atOnce(what string, down bool, do func(*runtime.Runtime, runtime.VirtualServer) error) error {
	r, err := a.runtime()
	if err != nil {
		return fmt.Errorf("cannot %s virtual servers: %w", what, err)
	}
	if err := r.SetDown(down); err != nil {
		return fmt.Errorf("cannot %s virtual servers: %w", what, err)
	}
	list, failed := r.Store.List()
	var each sync.WaitGroup
	var mu sync.Mutex
	places := make(chan struct{}, crowd)
	for _, vs := range list {
		places <- struct{}{}
		each.Go(func() {
			defer func() { <-places }()
			err := do(r, vs)
			if err == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if failed != nil {
				a.report(failed)
			}
			failed = fmt.Errorf("cannot %s %s: %w", what, vs, err)
		})
	}
	each.Wait()
	return failed
}
