// Package daemon is what the command lines of the daemons have in common: flags and
// no arguments, where virtual servers are kept, and how they begin and end.
//
// Contract: SIGTERM and SIGINT end the command's context, a second one the process.
// The exit status is 0, 1 when it failed, and 2 when it could not be understood.
package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// Dirs are where virtual servers are kept.
type Dirs struct{ State, Run, Netns string }

// A UsageError is a command line that cannot be understood.
type UsageError struct{ error }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// Command completes the command of a daemon, with flags for dirs. version is the
// release's; "" is what the go command knows.
func Command(c *cobra.Command, version string, dirs *Dirs) *cobra.Command {
	c.Use = c.Name() + " [flags]"
	c.Version = cmp.Or(version, buildVersion())
	c.SilenceErrors, c.SilenceUsage = true, true
	c.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return Usagef("cannot understand %q: there are only flags", args[0])
		}
		return nil
	}
	c.SetVersionTemplate(c.Name() + " {{.Version}}\n")
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return Usagef("cannot understand the flags: %w", err)
	})
	flags := c.Flags()
	flags.SortFlags = false
	flags.StringVar(&dirs.State, "state-dir", fromEnv("VSRUN_STATE_DIR", "/var/lib/vsrun"), "`directory` of saved virtual servers (VSRUN_STATE_DIR)")
	flags.StringVar(&dirs.Run, "run-dir", fromEnv("VSRUN_RUN_DIR", "/run/vsrun"), "`directory` of sockets and locks (VSRUN_RUN_DIR)")
	flags.StringVar(&dirs.Netns, "netns-dir", fromEnv("VSRUN_NETNS_DIR", "/run/netns"), "`directory` of network namespaces (VSRUN_NETNS_DIR)")
	return c
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

// Main runs the command, and exits when it failed.
func Main(c *cobra.Command) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop) // the second signal is the kernel's to act on
	err := c.ExecuteContext(ctx)
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", c.Name(), err)
	if _, ok := errors.AsType[UsageError](err); ok {
		fmt.Fprintf(os.Stderr, "hint: %s --help lists the flags\n", c.Name())
		os.Exit(2)
	}
	if e, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok && e.Hint() != "" {
		fmt.Fprintln(os.Stderr, "hint:", e.Hint())
	}
	os.Exit(1)
}
