package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/cmd/vsrun/screen"
	"github.com/vsrun/vsrun/stats"
)

// A watch is how counters are read again and again.
type watch struct {
	interval time.Duration
	direct   bool
	tables   atomic.Bool // the MIB is not shown, and not asked for
}

func (w *watch) flags(c *cobra.Command) {
	c.Flags().DurationVarP(&w.interval, "interval", "i", time.Second, "from one reading to the next, 100ms or more")
	c.Flags().BoolVar(&w.direct, "direct", false, "read from the kernel even where ipmd runs")
}

func (w *watch) check() error {
	if w.interval < 100*time.Millisecond {
		return usagef("--interval is 100ms or more, not %v", w.interval)
	}
	return nil
}

// A reading is some virtual servers' counters, or why they could not be read.
type reading struct {
	samples []stats.Sample
	err     error
}

// readings reads at each interval, the first time after one. A reading that takes
// longer than that puts off the next one.
func (a *app) readings(ctx context.Context, args []string, w *watch) <-chan reading {
	readings := make(chan reading)
	go func() {
		ticker := time.NewTicker(w.interval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
			samples, err := a.samples(ctx, args, w)
			select {
			case readings <- reading{samples, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return readings
}

// A view is what is shown of readings on a whole terminal.
type view interface {
	take(reading)
	press(key screen.Key, height int) (end bool)
	lines(width, height int) []screen.Line
}

// show draws the view until a key or ctx ends it.
func show(ctx context.Context, s *screen.Screen, v view, readings <-chan reading) error {
	for {
		if err := s.Draw(v.lines(s.Size())); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case r := <-readings:
			v.take(r)
		case <-s.Resized:
		case key, ok := <-s.Keys:
			if key == screen.CtrlL {
				s.Redraw()
			}
			_, height := s.Size()
			if !ok || v.press(key, height) {
				return nil
			}
		}
	}
}

// watchStats shows readings in place on a terminal, and one after the other
// elsewhere, until one fails.
func (a *app) watchStats(ctx context.Context, args []string, w *watch, o statsOutput) error {
	w.tables.Store(o.isTable())
	first, err := a.samples(ctx, args, w)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	readings := a.readings(ctx, args, w)
	o.meter = &stats.Meter{}
	if o.format == "table" && screen.Possible(os.Stdin, os.Stdout) == nil {
		o.human = !o.exact
		return a.watchTerminal(ctx, &statsView{output: o, interval: w.interval}, first, readings)
	}
	for read := (reading{samples: first}); ; {
		if read.err != nil {
			return read.err
		}
		o.meter.Read(read.samples)
		if err := a.printReading(o, read.samples); err != nil {
			return err
		}
		select {
		case read = <-readings:
		case <-ctx.Done():
			return nil
		}
	}
}

// printReading prints one of many: JSON has a line for each, YAML a document.
func (a *app) printReading(o statsOutput, samples []stats.Sample) error {
	switch o.format {
	case "json":
		return json.NewEncoder(a.out).Encode(samples)
	case "yaml":
		fmt.Fprintln(a.out, "---")
	}
	return a.print(o.format, samples, func(out io.Writer, _ bool) { o.table(out, samples) })
}

func (a *app) watchTerminal(ctx context.Context, v *statsView, first []stats.Sample, readings <-chan reading) error {
	s, err := screen.Open(os.Stdin, os.Stdout)
	if err != nil {
		return err
	}
	v.take(reading{samples: first})
	err = show(ctx, s, v, readings)
	if closed := s.Close(); err == nil {
		err = closed
	}
	if err == nil { // the other screen is gone, and what it showed last is wanted
		_, err = io.WriteString(a.out, v.text)
	}
	return err
}

// A statsView is the table of stats, drawn in place.
type statsView struct {
	output   statsOutput
	interval time.Duration
	text     string
	err      error
}

func (v *statsView) take(r reading) {
	if v.err = r.err; r.err != nil {
		return
	}
	v.output.meter.Read(r.samples)
	var b bytes.Buffer
	out := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	v.output.table(out, r.samples)
	out.Flush()
	v.text = b.String()
}

func (v *statsView) press(key screen.Key, _ int) bool {
	return key == 'q' || key == screen.Escape || key == screen.CtrlC
}

func (v *statsView) lines(_, height int) []screen.Line {
	var lines []screen.Line
	for text := range strings.Lines(v.text) {
		style := screen.Plain
		if strings.HasPrefix(text, "ID ") {
			style = screen.Bold
		}
		lines = append(lines, screen.Text(strings.TrimSuffix(text, "\n"), style))
	}
	foot := screen.Text(fmt.Sprintf("every %v, q quits", v.interval), screen.Cyan)
	space := max(0, height-1)
	switch more := len(lines) - space; {
	case v.err != nil:
		foot = screen.Text("not now: "+oneLine(v.err), screen.Yellow)
	case more > 0:
		foot = screen.Text(fmt.Sprintf("%d more lines do not fit: vsrun top scrolls, q quits", more), screen.Cyan)
	}
	lines = append(lines, make([]screen.Line, max(0, space-len(lines)))...)
	return append(lines[:space], foot)
}
