package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/runtime"
	"github.com/vsrun/vsrun/stats"
	"github.com/vsrun/vsrun/stats/ipmd"
)

func (a *app) statsCommand() *cobra.Command {
	var format string
	var watch, direct bool
	c := &cobra.Command{
		Use:   "stats [ID…]",
		Short: "Show the counters of virtual servers",
		Long: `Show what the interfaces of virtual servers have counted, what their processes use,
where the host has cgroups, and with -o json also the protocol counters (MIBs) of
their namespaces. They are asked of ipmd where it
runs, and read from the kernel otherwise. Without IDs the last line is the sum of
all virtual servers of this host.`,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.runtime()
			if err != nil {
				return fmt.Errorf("cannot read counters: %w", err)
			}
			for {
				samples, err := a.samples(c.Context(), r, args, direct)
				if err != nil {
					return fmt.Errorf("cannot read counters: %w", err)
				}
				err = a.print(format, samples, func(w io.Writer, _ bool) { statsTable(w, samples, len(args) == 0) })
				if err != nil || !watch || !pause(c.Context()) {
					return err
				}
			}
		},
	}
	outputFlag(c, &format)
	c.Flags().BoolVarP(&watch, "watch", "w", false, "again every second")
	c.Flags().BoolVar(&direct, "direct", false, "read from the kernel even where ipmd runs")
	return c
}

// pause waits a second; false when the command is to end.
func pause(ctx context.Context) bool {
	select {
	case <-time.After(time.Second):
		return true
	case <-ctx.Done():
		return false
	}
}

func (a *app) samples(ctx context.Context, r *runtime.Runtime, args []string, direct bool) ([]stats.Sample, error) {
	if direct {
		return r.Stats(ctx, args...)
	}
	samples, err := ipmd.Client{Socket: filepath.Join(r.RunDir, "ipmd.sock")}.Stats(ctx, args...)
	// An ipmd that does not know one may be one that has not heard of it, or
	// it is not enabled: what is stored tells.
	if errors.Is(err, ipmd.ErrNotRunning) || errors.Is(err, ipmd.ErrNotFound) {
		return r.Stats(ctx, args...)
	}
	return samples, err
}

// statsTable ends with the sum of them all where they are all that there are.
func statsTable(w io.Writer, samples []stats.Sample, complete bool) {
	row(w, "ID", "NAME", "INTERFACE", "RX BYTES", "RX PACKETS", "RX ERRORS", "RX DROPPED", "TX BYTES", "TX PACKETS", "TX ERRORS", "TX DROPPED")
	line := func(id any, name, device string, c stats.Counters) {
		row(w, id, name, device, c.RxBytes, c.RxPackets, c.RxErrors, c.RxDropped, c.TxBytes, c.TxPackets, c.TxErrors, c.TxDropped)
	}
	var all stats.Counters
	for _, s := range samples {
		for _, i := range s.Interfaces {
			line(s.ID, s.Name, i.Name, i.Counters)
		}
		line(s.ID, s.Name, "total", s.Total)
		all = all.Plus(s.Total)
	}
	if complete {
		line("all", "-", "total", all)
	}
	useTable(w, samples)
}

// useTable is what the processes use, of those that have any.
func useTable(w io.Writer, samples []stats.Sample) {
	begun := false
	for _, s := range samples {
		if s.Use == nil {
			continue
		}
		if !begun {
			begun = true
			fmt.Fprintln(w)
			row(w, "ID", "NAME", "SERVICE", "MEMORY", "PEAK", "TASKS", "CPU", "USER", "SYSTEM", "THROTTLED", "READ", "WRITTEN", "READS", "WRITES", "OOM KILLS")
		}
		line := func(name string, u cgroup.Use) {
			row(w, s.ID, s.Name, name, bytesUsed(u.Memory), bytesUsed(u.MemoryPeak), counted(u.Tasks),
				cpuUsed(u.CPU), cpuUsed(u.CPUUser), cpuUsed(u.CPUSystem), cpuUsed(u.Throttled),
				bytesUsed(u.ReadBytes), bytesUsed(u.WriteBytes), counted(u.ReadOps), counted(u.WriteOps), counted(u.OOMKills))
		}
		for _, one := range s.Services {
			line(one.Name, one.Use)
		}
		line("total", *s.Use)
	}
}
