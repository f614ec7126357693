package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime"
	"github.com/vsrun/vsrun/stats"
	"github.com/vsrun/vsrun/stats/ipmd"
)

func (a *app) statsCommand() *cobra.Command {
	var o statsOutput
	var w watch
	var again bool
	var k clusterQuestion
	c := &cobra.Command{
		Use:   "stats [ID…]",
		Short: "Show the counters of virtual servers",
		Long: `Show what the interfaces of virtual servers have counted, what their processes use,
where the host has cgroups, and with -o json also the protocol counters (MIBs),
sockets and tracked connections of their namespaces. Of interfaces with a realm: root is
also shown what the kernel has counted for that. They are asked of ipmd where it
runs, and read from the kernel otherwise. Without IDs the last line is the sum of
all virtual servers of this host. What was counted before a virtual server was last
enabled, or an interface made again, is in a table of its own: see vsrun ledger --help.

With --watch they are read again and again, and rates since the reading before are
shown, too: in place on a terminal, in figures of three digits (--human=false: exact).
Elsewhere one table follows the other, or with -o json one line, an array.

With --cluster, or --node, this host's ipmd is asked for what the nodes of its cluster
have, this one included. A node that does not answer is named on stderr, and the exit
status is 1.`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := w.check(); err != nil {
				return err
			}
			if c.Flags().Changed("interval") && !again {
				return usagef("--interval is of --watch")
			}
			if err := k.check(again, w.direct); err != nil {
				return err
			}
			if o.neighbours && (again || k.asked()) {
				return usagef("--neighbours are counted once, and on this host: neither --watch nor --cluster and --node go with it")
			}
			o.sum = len(args) == 0
			var err error
			switch {
			case k.asked():
				err = a.clusterStats(c.Context(), args, k, o)
			case again:
				o.exact = c.Flags().Changed("human") && !o.human
				err = a.watchStats(c.Context(), args, &w, o)
			default:
				err = a.stats(c.Context(), args, &w, o)
			}
			if err != nil {
				return fmt.Errorf("cannot read counters: %w", err)
			}
			return nil
		},
	}
	outputFlag(c, &o.format)
	k.flags(c)
	w.flags(c)
	c.Flags().BoolVarP(&again, "watch", "w", false, "again and again, with rates")
	c.Flags().BoolVar(&o.neighbours, "neighbours", false, "count the neighbours, too: with very many virtual servers that takes a while")
	c.Flags().BoolVarP(&o.human, "human", "H", false, "1.23M instead of 1234567; so it is with --watch on a terminal")
	return c
}

// A statsOutput is how counters are printed.
type statsOutput struct {
	format       string
	human, exact bool
	neighbours   bool
	sum          bool         // of all, at the end
	meter        *stats.Meter // nil without rates
	nodes        []string     // whose samples they are; nil: all this one's
}

// isTable tells whether people read it, and no MIB is shown.
func (o statsOutput) isTable() bool { return o.format == "table" || o.format == "wide" }

func (a *app) stats(ctx context.Context, args []string, w *watch, o statsOutput) error {
	w.tables.Store(o.isTable())
	samples, err := a.samples(ctx, args, w)
	if err == nil && o.neighbours {
		err = a.countNeighbours(samples)
	}
	if err == nil && os.Geteuid() == 0 { // who may look into the records
		err = a.countRealms(samples)
	}
	if err != nil {
		return err
	}
	return a.print(o.format, samples, func(out io.Writer, _ bool) { o.table(out, samples) })
}

// samples asks ipmd, who knows whom it may tell what. What it has not heard of may be
// stored all the same, which root alone can see.
func (a *app) samples(ctx context.Context, args []string, w *watch) ([]stats.Sample, error) {
	if w.direct {
		return a.samplesHere(ctx, args)
	}
	client, err := a.ipmd()
	if err != nil {
		return nil, err
	}
	answer, err := client.Ask(ctx, ipmd.Query{IDs: args, MaxAge: ipmd.Now, WithoutMIB: w.tables.Load()})
	unheard := errors.Is(err, ipmd.ErrNotFound)
	if !unheard && !errors.Is(err, ipmd.ErrNotRunning) && !errors.Is(err, fs.ErrPermission) || unheard && os.Geteuid() != 0 {
		return answer.Samples, err
	}
	hint := hintOf(err)
	samples, err := a.samplesHere(ctx, args)
	if errors.Is(err, runtime.ErrNotFound) && hint != "" {
		err = &plumbing.Refusal{Err: err, Cure: hint}
	}
	return samples, err
}

func (a *app) samplesHere(ctx context.Context, args []string) ([]stats.Sample, error) {
	r, err := a.runtime()
	if err != nil {
		return nil, err
	}
	return r.Stats(ctx, args...)
}

func (a *app) countNeighbours(samples []stats.Sample) error {
	r, err := a.runtime()
	if err != nil {
		return err
	}
	return r.CountNeighbours(samples)
}

func (a *app) countRealms(samples []stats.Sample) error {
	r, err := a.runtime()
	if err != nil {
		return err
	}
	return r.CountRealms(samples)
}

// ipmd is the client of this host's.
func (a *app) ipmd() (ipmd.Client, error) {
	dir, err := filepath.Abs(a.runDir)
	return ipmd.Client{Socket: filepath.Join(dir, "ipmd.sock")}, err
}

// table writes what interfaces have counted, and what processes use.
func (o statsOutput) table(w io.Writer, samples []stats.Sample) {
	row(w, slices.Concat(o.node(-1), []any{"ID", "NAME", "INTERFACE"}, o.headings())...)
	var all stats.Counters
	var allRate stats.Rate
	var allKnown bool
	for k, s := range samples {
		line := func(device string, c stats.Counters, rate stats.Rate, known bool) {
			row(w, slices.Concat(o.node(k), []any{s.ID, s.Name, device}, o.cells(c, rate, known))...)
		}
		var span stats.Span
		if o.meter != nil {
			span = o.meter.Span(s.ID)
		}
		for _, i := range s.Interfaces {
			rate, known := span.Interface(i.Name)
			line(i.Name, i.Counters, rate, known)
		}
		rate, known := span.Total()
		line("total", s.Total, rate, known)
		all, allRate, allKnown = all.Plus(s.Total), allRate.Plus(rate), allKnown || known
	}
	if o.sum {
		lead := []any{"all", "-", "total"}
		if o.nodes != nil {
			lead = append([]any{"all"}, lead...)
		}
		row(w, slices.Concat(lead, o.cells(all, allRate, allKnown))...)
	}
	if o.meter == nil && slices.ContainsFunc(samples, func(s stats.Sample) bool { return s.Ledger != nil }) {
		fmt.Fprintln(w)
		o.ledgerTable(w, samples)
	}
	if o.neighbours {
		neighboursTable(w, samples)
	}
	realmsTable(w, samples)
	o.useTable(w, samples)
}

// node is the column of the nodes, if there is one: what it has for a sample, and its
// heading for -1.
func (o statsOutput) node(k int) []any {
	switch {
	case o.nodes == nil:
		return nil
	case k < 0:
		return []any{"NODE"}
	}
	return []any{o.nodes[k]}
}

// neighboursTable is how many neighbours there are, by family and state.
func neighboursTable(w io.Writer, samples []stats.Sample) {
	begun := false
	for _, s := range samples {
		for _, family := range s.Neighbours {
			heading, line := []any{"ID", "NAME", "NEIGHBOURS"}, []any{s.ID, s.Name, family.Name}
			for _, state := range family.Counters {
				heading, line = append(heading, strings.ToUpper(state.Name)), append(line, state.Value)
			}
			if !begun {
				begun = true
				fmt.Fprintln(w)
				row(w, heading...)
			}
			row(w, line...)
		}
	}
}

// realmsTable is what was received in routing realms, of those that have any.
func realmsTable(w io.Writer, samples []stats.Sample) {
	begun := false
	for _, s := range samples {
		for _, realm := range s.Realms {
			if !begun {
				begun = true
				fmt.Fprintln(w)
				row(w, "ID", "NAME", "REALM", "RX BYTES", "RX PACKETS")
			}
			row(w, s.ID, s.Name, realm.Name, realm.Counters[0].Value, realm.Counters[1].Value)
		}
	}
}

// ledgerTable is what was counted over all lives, of those of whom that is known.
func (o statsOutput) ledgerTable(w io.Writer, samples []stats.Sample) {
	accounts := make([]runtime.Account, len(samples))
	for k, s := range samples {
		accounts[k] = runtime.Account{ID: s.ID, Name: s.Name, Ledger: s.Ledger}
	}
	ledgerTable(w, accounts, o.human, o.node)
}

func (o statsOutput) headings() []any {
	rates, counts := []any{"RX BYTES/S", "RX PACKETS/S", "TX BYTES/S", "TX PACKETS/S"},
		[]any{"RX BYTES", "RX PACKETS", "RX ERRORS", "RX DROPPED", "TX BYTES", "TX PACKETS", "TX ERRORS", "TX DROPPED"}
	if o.human {
		rates, counts = []any{"RX B/s", "RX p/s", "TX B/s", "TX p/s"}, []any{"RX B", "RX p", "TX B", "TX p", "LOST"}
	}
	if o.meter == nil {
		return counts
	}
	return append(rates, counts...)
}

// cells are what stands below the headings. In few digits there is room for what
// was lost alone, in whatever way.
func (o statsOutput) cells(c stats.Counters, r stats.Rate, known bool) (cells []any) {
	rates := []float64{r.RxBytes, r.RxPackets, r.TxBytes, r.TxPackets}
	if o.meter == nil {
		rates = nil
	}
	for _, v := range rates {
		switch {
		case !known:
			cells = append(cells, "")
		case o.human:
			cells = append(cells, short(&v))
		default:
			cells = append(cells, fmt.Sprintf("%.0f", v))
		}
	}
	if !o.human {
		return append(cells, c.RxBytes, c.RxPackets, c.RxErrors, c.RxDropped, c.TxBytes, c.TxPackets, c.TxErrors, c.TxDropped)
	}
	for _, n := range []uint64{c.RxBytes, c.RxPackets, c.TxBytes, c.TxPackets, lost(c)} {
		cells = append(cells, shortCount(n))
	}
	return cells
}

// useTable is what the processes use, of those that have any.
func (o statsOutput) useTable(w io.Writer, samples []stats.Sample) {
	begun := false
	for k, s := range samples {
		if s.Use == nil {
			continue
		}
		if !begun {
			begun = true
			fmt.Fprintln(w)
			row(w, append(o.node(-1), "ID", "NAME", "SERVICE", "MEMORY", "PEAK", "TASKS", "CPU", "USER", "SYSTEM", "THROTTLED", "READ", "WRITTEN", "READS", "WRITES", "OOM KILLS")...)
		}
		line := func(name string, u cgroup.Use) {
			row(w, append(o.node(k), s.ID, s.Name, name, bytesUsed(u.Memory), bytesUsed(u.MemoryPeak), counted(u.Tasks),
				cpuUsed(u.CPU), cpuUsed(u.CPUUser), cpuUsed(u.CPUSystem), cpuUsed(u.Throttled),
				bytesUsed(u.ReadBytes), bytesUsed(u.WriteBytes), counted(u.ReadOps), counted(u.WriteOps), counted(u.OOMKills))...)
		}
		for _, one := range s.Services {
			line(one.Name, one.Use)
		}
		line("total", *s.Use)
	}
}
