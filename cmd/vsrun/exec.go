package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) execCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "exec ID -- CMD…",
		Short: "Run a command inside a virtual server",
		Long: `Run a command inside a virtual server, in its network and among its processes. The
exit status is the command's. What it leaves running ends when the virtual server
is disabled.`,
		Example: `  vsrun exec 8 -- ss -tln
  vsrun exec 8 -- bash`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(command(args)) == 0 {
				return usagef("what shall run? vsrun exec ID -- CMD…")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			argv := command(args)
			r, err := a.runtime()
			if err != nil {
				return fmt.Errorf("cannot run %s: %w", argv[0], err)
			}
			id, err := find(r, args[0])
			if err != nil {
				return fmt.Errorf("cannot run %s: %w", argv[0], err)
			}
			code, err := r.Exec(c.Context(), id, argv)
			if err != nil && code == 0 {
				return fmt.Errorf("cannot run %s in %s: %w", argv[0], args[0], err)
			}
			if err != nil { // not found or not executable, with the status that shells have for it
				a.warn("cannot run %s in %s: %s", argv[0], args[0], oneLine(err))
			}
			if code != 0 {
				return exitError(code)
			}
			return nil
		},
	}
	c.Flags().SetInterspersed(false)
	return c
}

// command is what follows ID, with or without -- in front. Flags after it are
// the command's own.
func command(args []string) []string {
	if len(args) > 1 && args[1] == "--" {
		return args[2:]
	}
	return args[min(1, len(args)):]
}
