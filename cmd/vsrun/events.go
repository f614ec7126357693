package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime/agent"
)

func (a *app) eventsCommand() *cobra.Command {
	var follow bool
	var format string
	c := &cobra.Command{
		Use:   "events [-f]",
		Short: "Show what vsd saw and mended",
		Long: `Show what vsd saw and mended: the latest thousand events since it was started, a line
each. With -o json each line is one event, with what differed and by which kind.`,
		Args: arguments(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			if format != "table" && format != "json" {
				return usagef("output %q is unknown: table or json", format)
			}
			r, err := a.runtime()
			if err != nil {
				return fmt.Errorf("cannot show events: %w", err)
			}
			err = agent.Events(c.Context(), r.RunDir, follow, func(e agent.Event) error {
				if format == "json" {
					return json.NewEncoder(a.out).Encode(e)
				}
				a.did("%s  %-6s  %s", e.Time.Local().Format(time.DateTime), e.Subject(), e)
				return nil
			})
			if errors.Is(err, agent.ErrNotRunning) {
				err = &plumbing.Refusal{Err: err, Cure: "start it: systemctl enable --now vsd; what differs now: vsrun diff"}
			}
			if err != nil {
				return fmt.Errorf("cannot show events: %w", err)
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "also those to come")
	c.Flags().StringVarP(&format, "output", "o", "table", "table or json")
	return c
}
