package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/runtime"
	"github.com/vsrun/vsrun/stats/ipmd"
)

// Exit statuses that scripts rely on.
const (
	exitFailed   = 1 // or something differs
	exitUsage    = 2
	exitNotFound = 3
)

// An app is what the commands share.
type app struct {
	stateDir, runDir, netnsDir string

	out, err io.Writer
	running  bool // the command line was understood
}

const teach = `Vsrun runs virtual servers on this Linux host. Each is a network namespace with
its own interfaces on the host's ports, its own addresses, routes, services and
counters.

  vsrun create 8 --port eth1 --address 192.0.2.8/24 --gateway 192.0.2.1
  vsrun service add 8 web --capability nginx -- nginx -g 'daemon off;'
  vsrun show 8
  vsrun stats 8
  vsrun disable 8          off the network, kept
  vsrun destroy 8          gone

ID is a virtual server's number (1 to 4094) or its name. What is inside can be
seen with the usual tools: ip -n vs8 address, vsrun exec 8 -- ss -tln.`

// run is one vsrun command; it returns the exit status.
func run(ctx context.Context, args []string) int {
	a := &app{out: os.Stdout, err: os.Stderr}
	root := a.command(args)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	return a.report(err)
}

func (a *app) command(args []string) *cobra.Command {
	root := &cobra.Command{
		Use:           "vsrun",
		Short:         "Run virtual servers on one Linux kernel",
		Version:       version,
		Long:          teach,
		SilenceErrors: true,
		SilenceUsage:  true,
		// Reached only when all of the command line was understood.
		PersistentPreRun: func(*cobra.Command, []string) { a.running = true },
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.stateDir, "state-dir", setting("VSRUN_STATE_DIR", "/var/lib/vsrun"), "what virtual servers should be, and their logs (VSRUN_STATE_DIR)")
	flags.StringVar(&a.runDir, "run-dir", setting("VSRUN_RUN_DIR", "/run/vsrun"), "sockets of what runs (VSRUN_RUN_DIR)")
	flags.StringVar(&a.netnsDir, "netns-dir", setting("VSRUN_NETNS_DIR", "/run/netns"), "where namespaces are published (VSRUN_NETNS_DIR)")
	root.AddCommand(a.verbs(args)...)
	return root
}

// verbs are the commands below vsrun. Where the first argument is one of them, it is made
// alone: all of them take half a millisecond.
func (a *app) verbs(args []string) []*cobra.Command {
	verbs := map[string]func() *cobra.Command{
		"create": a.createCommand, "attach": a.attachCommand, "detach": a.detachCommand,
		"enable": a.enableCommand, "disable": a.disableCommand, "destroy": a.destroyCommand,
		"boot": a.bootCommand, "shutdown": a.shutdownCommand,
		"apply": a.applyCommand, "diff": a.diffCommand, "events": a.eventsCommand,
		"ls": a.lsCommand, "show": a.showCommand, "ps": a.psCommand, "logs": a.logsCommand, "exec": a.execCommand,
		"move": a.moveCommand, "port": a.portCommand, "service": a.serviceCommand, "stats": a.statsCommand, "ledger": a.ledgerCommand,
		"top": a.topCommand, "gc": a.gcCommand, "version": a.versionCommand,
	}
	if len(args) > 0 && verbs[args[0]] != nil {
		return []*cobra.Command{verbs[args[0]]()}
	}
	var all []*cobra.Command
	for _, verb := range verbs {
		all = append(all, verb()) // cobra sorts them
	}
	return all
}

func setting(env, standard string) string {
	if v := os.Getenv(env); v != "" {
		return v
	}
	return standard
}

// runtime opens what virtual servers are kept and run in.
func (a *app) runtime() (*runtime.Runtime, error) {
	r, err := runtime.Open(a.stateDir, a.runDir, a.netnsDir)
	if err == nil {
		r.Warn = a.say
	}
	return r, err
}

// An exitError is a status that was reached without anything to say.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// A usageError is a command line that makes no sense.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// arguments wants so many of them, and shows how else.
func arguments(low, high int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < low || len(args) > high {
			return usagef("usage: %s", strings.TrimSuffix(c.UseLine(), " [flags]"))
		}
		return nil
	}
}

// report says what went wrong, and gives the exit status for it.
func (a *app) report(err error) int {
	var code exitError
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	a.say(err)
	var invalid *runtime.InvalidError
	misused := !a.running || errors.As(err, &usage) || errors.As(err, &invalid)
	switch {
	case hintOf(err) != "":
		fmt.Fprintf(a.err, "hint: %s\n", hintOf(err))
	case misused:
		fmt.Fprintln(a.err, "hint: see vsrun --help, or vsrun COMMAND --help")
	}
	if misused {
		return exitUsage
	}
	if errors.Is(err, runtime.ErrNotFound) || errors.Is(err, runtime.ErrNoPort) || errors.Is(err, ipmd.ErrNotFound) {
		return exitNotFound
	}
	return exitFailed
}

// say writes an error on one line, but a document's problems one a line.
func (a *app) say(err error) {
	var doc *runtime.DocumentError
	if errors.As(err, &doc) {
		for _, e := range doc.Unwrap() {
			fmt.Fprintf(a.err, "vsrun: %s\n", oneLine(e))
		}
		return
	}
	fmt.Fprintf(a.err, "vsrun: %s\n", oneLine(err))
}

func oneLine(err error) string {
	text := strings.TrimSpace(err.Error())
	if strings.Contains(text, "\n\nDid you mean") {
		text = didYouMean().ReplaceAllString(text, "; did you mean $1?")
	}
	return strings.Map(printable, strings.ReplaceAll(text, "\n", "; "))
}

// printable replaces what a terminal would obey: errors repeat words that
// somebody gave.
func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return unicode.ReplacementChar
}

// didYouMean is what cobra adds to an unknown command, a line each.
var didYouMean = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\n\nDid you mean this\?\n\t(\S+)(\n\t\S+)*`)
})

// did says what was done, on stdout.
func (a *app) did(format string, args ...any) { fmt.Fprintf(a.out, format+"\n", args...) }

// warn says what a person should know, on stderr.
func (a *app) warn(format string, args ...any) { fmt.Fprintf(a.err, "vsrun: "+format+"\n", args...) }

// find is the number of the virtual server that a word means.
func find(r *runtime.Runtime, word string) (int, error) { return r.Store.Find(word) }
