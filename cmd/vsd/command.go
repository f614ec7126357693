package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/runtime"
)

// version is set when a release is linked.
var version string

// options are the command line's.
type options struct {
	stateDir string
	runDir   string
	netnsDir string
	every    time.Duration
}

// A usageError is a command line that cannot be understood.
type usageError struct{ error }

const about = `vsd keeps virtual servers as they should be: it brings up those that are not, hears
from the kernel when something is changed, and mends it at once. vsrun diff shows
what it would mend. Every minute it writes down what they have counted, for vsrun ledger.

Virtual servers do not depend on it: it may be stopped, killed, replaced and absent.
SIGHUP has it look at everything again; SIGTERM and SIGINT end it.`

const examples = `  vsd
  vsd --state-dir /srv/vsrun`

func newCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:           "vsd [flags]",
		Short:         "Keep the virtual servers of this host as they should be",
		Long:          about,
		Example:       examples,
		Version:       cmp.Or(version, buildVersion()),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("cannot understand %q: there are only flags", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.every < time.Second {
				return usageError{fmt.Errorf("cannot checkpoint every %v: it must be 1s at least", o.every)}
			}
			r, err := runtime.Open(o.stateDir, o.runDir, o.netnsDir)
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, nil))
			r.Warn = func(err error) { log.Warn(err.Error()) }
			return run(cmd.Context(), r, o.every, log)
		},
	}
	cmd.SetVersionTemplate("vsd {{.Version}}\n")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return usageError{fmt.Errorf("cannot understand the flags: %w", err)}
	})
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&o.stateDir, "state-dir", fromEnv("VSRUN_STATE_DIR", "/var/lib/vsrun"), "`directory` of saved virtual servers (VSRUN_STATE_DIR)")
	flags.StringVar(&o.runDir, "run-dir", fromEnv("VSRUN_RUN_DIR", "/run/vsrun"), "`directory` of sockets and locks (VSRUN_RUN_DIR)")
	flags.StringVar(&o.netnsDir, "netns-dir", fromEnv("VSRUN_NETNS_DIR", "/run/netns"), "`directory` of network namespaces (VSRUN_NETNS_DIR)")
	flags.DurationVar(&o.every, "checkpoint", time.Minute, "how often what was counted is written (vsrun ledger): the most that a power failure takes")
	return cmd
}

// fromEnv is an environment variable, where empty is as good as unset.
func fromEnv(name, otherwise string) string { return cmp.Or(os.Getenv(name), otherwise) }

// buildVersion is what the go command knows of the module's version.
func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
