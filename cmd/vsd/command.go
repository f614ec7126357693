package main

import (
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/cmd/daemon"
	"github.com/vsrun/vsrun/runtime"
)

// version is set when a release is linked.
var version string

// options are the command line's.
type options struct {
	daemon.Dirs
	every time.Duration
}

const about = `vsd keeps virtual servers as they should be: it brings up those that are not, hears
from the kernel when something is changed, and mends it at once. vsrun diff shows
what it would mend. Every minute it writes down what they have counted, for vsrun ledger.

Virtual servers do not depend on it: it may be stopped, killed, replaced and absent.
SIGHUP has it look at everything again; SIGTERM and SIGINT end it.`

const examples = `  vsd
  vsd --state-dir /srv/vsrun --run-dir /run/vsrun-srv`

func newCommand() *cobra.Command {
	var o options
	cmd := daemon.Command(&cobra.Command{
		Use:     "vsd",
		Short:   "Keep the virtual servers of this host as they should be",
		Long:    about,
		Example: examples,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.every < time.Second {
				return daemon.Usagef("cannot checkpoint every %v: it must be 1s at least", o.every)
			}
			r, err := runtime.Open(o.State, o.Run, o.Netns)
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, nil))
			r.Warn = func(err error) { log.Warn(err.Error()) }
			return run(cmd.Context(), r, o.every, log)
		},
	}, version, &o.Dirs)
	cmd.Flags().DurationVar(&o.every, "checkpoint", time.Minute, "how often what was counted is written (vsrun ledger): the most that a power failure takes")
	return cmd
}
