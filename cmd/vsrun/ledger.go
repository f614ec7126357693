package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/runtime"
	"github.com/vsrun/vsrun/stats"
)

func (a *app) ledgerCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ledger",
		Short: "Show what virtual servers have counted since they were created",
		Long: `Show what virtual servers have counted over all of their lives: counters of the kernel
begin at zero whenever a virtual server is enabled or an interface is made again, a
ledger goes on, also after a reboot and on another node.

It is written when a virtual server is taken off the network, and by vsd every minute
(vsd --checkpoint). What a power failure, or who deletes a namespace by hand, takes
along is missing, and counted as a gap: GAPS is how many, and LOST the time that they
are about, all together. Figures that are written never go back.

  vsrun ledger show 8                                     the totals, by interface and protocol
  vsrun ledger export 8 | ssh b vsrun ledger import 8 -   take them along to node b
  vsrun ledger reset 8                                    begin again at zero

Disable a virtual server before the export, or export it again afterwards: importing
counts nothing twice, and a later export takes the place of an earlier one.`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return usagef("unknown command %q for \"vsrun ledger\"", args[0])
		},
	}
	c.AddCommand(a.ledgerLsCommand(), a.ledgerShowCommand(), a.ledgerExportCommand(), a.ledgerImportCommand(), a.ledgerResetCommand())
	return c
}

func (a *app) ledgerLsCommand() *cobra.Command {
	var format string
	var human bool
	c := &cobra.Command{
		Use:   "ls",
		Short: "List the totals of all virtual servers",
		Args:  arguments(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := a.runtime()
			if err != nil {
				return fmt.Errorf("cannot list ledgers: %w", err)
			}
			list, failed := r.Store.List()
			accounts := []runtime.Account{}
			for _, vs := range list {
				account, err := r.Account(vs)
				failed = errors.Join(failed, err)
				if err == nil {
					accounts = append(accounts, account)
				}
			}
			err = a.print(format, accounts, func(w io.Writer, _ bool) {
				ledgerTable(w, accounts, human, func(int) []any { return nil })
			})
			if failed != nil {
				failed = fmt.Errorf("cannot list all ledgers: %w", failed)
			}
			return errors.Join(err, failed)
		},
	}
	outputFlag(c, &format)
	c.Flags().BoolVarP(&human, "human", "H", false, "1.23M instead of 1234567")
	return c
}

// ledgerTable begins each line with what lead has for it, and for -1 the headings.
func ledgerTable(w io.Writer, accounts []runtime.Account, human bool, lead func(k int) []any) {
	figure := func(n uint64) string {
		if human {
			return shortCount(n)
		}
		return strconv.FormatUint(n, 10)
	}
	row(w, append(lead(-1), "ID", "NAME", "SINCE", "RX BYTES", "RX PACKETS", "TX BYTES", "TX PACKETS", "GAPS", "LOST")...)
	for k, a := range accounts {
		if l := a.Ledger; l != nil {
			t := l.Total
			row(w, append(lead(k), a.ID, a.Name, day(l.Since), figure(t.RxBytes), figure(t.RxPackets),
				figure(t.TxBytes), figure(t.TxPackets), l.Gaps, lostTime(l))...)
		}
	}
}

func day(t time.Time) string { return t.Local().Format(time.DateTime) }

func lostTime(l *stats.Ledger) string {
	if l.Gaps == 0 {
		return ""
	}
	return time.Duration(l.Lost * float64(time.Second)).Round(time.Second).String()
}

func (a *app) ledgerShowCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "show ID",
		Short: "Show what a virtual server has counted over all of its lives",
		Args:  arguments(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			var account runtime.Account
			err := a.withRecord(args[0], func(r *runtime.Runtime, vs runtime.VirtualServer) (err error) {
				account, err = r.Account(vs)
				return err
			})
			if err != nil {
				return fmt.Errorf("cannot show the ledger of %s: %w", args[0], err)
			}
			return a.print(format, account, func(w io.Writer, _ bool) { ledgerDetail(w, account.Ledger) })
		},
	}
	outputFlag(c, &format)
	return c
}

func ledgerDetail(w io.Writer, l *stats.Ledger) {
	if l == nil {
		fmt.Fprintln(w, "nothing was counted yet")
		return
	}
	fmt.Fprintf(w, "since\t%s\n", day(l.Since))
	fmt.Fprintf(w, "written\t%s\n", day(l.Kept.Time))
	if g := l.LastGap; g != nil {
		fmt.Fprintf(w, "gaps\t%d, the last from %s to %s\n", l.Gaps, day(g.From), day(g.To))
	}
	fmt.Fprintln(w)
	row(w, "INTERFACE", "SINCE", "RX BYTES", "RX PACKETS", "RX ERRORS", "RX DROPPED", "TX BYTES", "TX PACKETS", "TX ERRORS", "TX DROPPED")
	line := func(name, since string, c stats.Counters) {
		row(w, name, since, c.RxBytes, c.RxPackets, c.RxErrors, c.RxDropped, c.TxBytes, c.TxPackets, c.TxErrors, c.TxDropped)
	}
	for _, i := range l.Interfaces {
		line(i.Name, day(i.Since), i.Counters)
	}
	if l.Removed != (stats.Counters{}) {
		line("removed", "", l.Removed)
	}
	line("total", day(l.Since), l.Total)
	fmt.Fprintln(w)
	row(w, "COUNTER", "VALUE")
	for _, g := range l.MIB {
		for _, c := range g.Counters {
			row(w, g.Name+"."+c.Name, c.Value)
		}
	}
}

func (a *app) ledgerExportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export ID",
		Short: "Write what was counted for another node, on stdout",
		Args:  arguments(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			var text []byte
			err := a.withRecord(args[0], func(r *runtime.Runtime, vs runtime.VirtualServer) (err error) {
				text, err = r.ExportAccount(c.Context(), vs)
				return err
			})
			if err == nil {
				_, err = a.out.Write(text)
			}
			if err != nil {
				return fmt.Errorf("cannot export the ledger of %s: %w", args[0], err)
			}
			return nil
		},
	}
}

func (a *app) ledgerImportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import ID FILE|-",
		Short: "Add what another node has exported, once",
		Args:  arguments(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			err := a.withRecord(args[0], func(r *runtime.Runtime, vs runtime.VirtualServer) error {
				text, err := exported(args[1])
				if err != nil {
					return err
				}
				fresh, err := r.ImportAccount(c.Context(), vs, text)
				switch {
				case err != nil:
					return err
				case fresh:
					a.did("%s goes on from the imported figures", vs)
				default:
					a.did("%s unchanged: all of it was counted already", vs)
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("cannot import into the ledger of %s: %w", args[0], err)
			}
			return nil
		},
	}
}

// exported is what a file has, or stdin.
func exported(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(path)
}

func (a *app) ledgerResetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reset ID",
		Short: "Begin again at zero",
		Args:  arguments(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			err := a.withRecord(args[0], func(r *runtime.Runtime, vs runtime.VirtualServer) error {
				was, err := r.ResetAccount(c.Context(), vs)
				if err == nil {
					a.did("%s counts from zero, after %d bytes received and %d sent since %s", vs, was.Total.RxBytes, was.Total.TxBytes, day(was.Since))
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("cannot reset the ledger of %s: %w", args[0], err)
			}
			return nil
		},
	}
}

// withRecord does something with the virtual server that a word means.
func (a *app) withRecord(word string, do func(*runtime.Runtime, runtime.VirtualServer) error) error {
	r, err := a.runtime()
	if err != nil {
		return err
	}
	id, err := find(r, word)
	if err != nil {
		return err
	}
	vs, err := r.Store.Load(id)
	if err != nil {
		return err
	}
	return do(r, vs)
}
