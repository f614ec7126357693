package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/runtime"
)

func (a *app) gcCommand() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:        "gc",
		Short:      "Remove what crashes, or people, have left of virtual servers",
		SuggestFor: []string{"cleanup", "prune"},
		Long: `Remove what is vsrun's on this host and should not be there: namespaces, processes,
cgroups, files and devices of virtual servers and ports that there are not, or that
are disabled. What crashes leave, the same command removes when it is run again;
this is for what nobody runs a command for any more.

Data is not removed, nor what is not vsrun's: that is said on stderr.`,
		Args: arguments(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := a.runtime()
			var litter runtime.Litter
			if err == nil {
				litter, err = r.Litter(c.Context(), !dryRun)
			}
			word := "removed"
			if dryRun {
				word = "would remove"
			}
			for _, thing := range litter.Things {
				a.did("%s %s", word, thing)
			}
			for _, thing := range litter.Kept {
				a.warn("left alone: %s", thing)
			}
			if err != nil {
				return fmt.Errorf("cannot remove what is left: %w", err)
			}
			if len(litter.Things) == 0 {
				a.did("nothing to remove")
			}
			return nil
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "tell what would be removed")
	return c
}
