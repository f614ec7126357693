package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/cmd/vsrun/screen"
	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/stats"
)

func (a *app) topCommand() *cobra.Command {
	w := watch{}
	var sort string
	c := &cobra.Command{
		Use:   "top [ID…]",
		Short: "Watch which virtual servers are busy",
		Long: `Show what virtual servers receive, send and use, a line each and the busiest first,
until q, Esc or Ctrl-C. Figures are rates since the reading before: bytes (B/s) and
packets (p/s) on all interfaces, packets with errors or dropped (LOST/s), and per cent
of one processor; at the right is what went either way lately, the latest last. K, M, G
are thousands, millions, …; of memory they are powers of 1024.

  ↑ ↓ PgUp PgDn   choose one      Enter   look into it: interfaces, services, MIBs
  ← →             sort by         r       the other way round
  /               show only names, numbers or counters with some text in them
  z               (in one) counters that are zero, too

Without colours where NO_COLOR is set, and in ASCII where the locale is.`,
		RunE: func(c *cobra.Command, args []string) error {
			t := newTop(sort, &w)
			if t == nil {
				return usagef("--sort is %s, not %q", strings.Join(sortWords(), ", "), sort)
			}
			if err := w.check(); err != nil {
				return err
			}
			if err := a.top(c.Context(), t, &w, args); err != nil {
				return fmt.Errorf("cannot watch virtual servers: %w", err)
			}
			return nil
		},
	}
	w.flags(c)
	c.Flags().StringVarP(&sort, "sort", "s", "rate", strings.Join(sortWords(), ", "))
	c.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(sortWords(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) top(ctx context.Context, t *top, w *watch, args []string) error {
	w.tables.Store(true)
	first, err := a.samples(ctx, args, w) // what is wrong at once is said on the terminal
	if err != nil {
		return err
	}
	s, err := screen.Open(os.Stdin, os.Stdout)
	if err != nil {
		return &plumbing.Refusal{Err: err, Cure: "vsrun stats --watch writes one reading after the other"}
	}
	t.take(reading{samples: first})
	return errors.Join(show(ctx, s, t, a.readings(ctx, args, w)), s.Close())
}

// A top is what is shown of virtual servers, and how.
type top struct {
	watch   *watch
	unicode bool

	meter   stats.Meter
	rows    []topRow          // by ID
	history map[int][]traffic // by ID, the latest last
	err     error             // why the last reading failed

	sort    int // the column
	reverse bool
	filter  string
	typing  bool // the filter
	chosen  int  // ID; 0 is none
	first   int  // line in sight, of the table or of one virtual server
	open    bool // the chosen one
	zeros   bool
}

// A topRow is one virtual server in the last reading.
type topRow struct {
	stats.Sample
	span  stats.Span
	rate  stats.Rate
	known bool // rate
	use   stats.UseRate
}

// traffic is what went in and out in a second; less than 0 is unknown.
type traffic struct{ rx, tx float64 }

// remembered is how many readings are: more than any terminal has columns for.
const remembered = 300

func newTop(sort string, w *watch) *top {
	column := slices.Index(sortWords(), sort)
	if column < 0 {
		return nil
	}
	return &top{watch: w, sort: column, unicode: screen.Unicode(), history: map[int][]traffic{}}
}

// take takes in what was read; what failed leaves the figures that are there.
func (t *top) take(r reading) {
	if t.err = r.err; r.err != nil {
		return
	}
	for k := range r.samples {
		if s := &r.samples[k]; !t.open || s.ID != t.chosen {
			*s = s.WithoutMIB() // which is not shown
		}
	}
	t.meter.Read(r.samples)
	history := make(map[int][]traffic, len(r.samples))
	t.rows = t.rows[:0]
	for _, s := range r.samples {
		row := topRow{Sample: s, span: t.meter.Span(s.ID)}
		row.rate, row.known = row.span.Total()
		row.use = row.span.Use()
		t.rows = append(t.rows, row)
		now := traffic{row.rate.RxBytes, row.rate.TxBytes}
		if !row.known {
			now = traffic{-1, -1}
		}
		past := t.history[s.ID]
		history[s.ID] = append(past[max(0, len(past)+1-remembered):], now)
	}
	t.history = history
}

// press acts on a key, and is true when that ends it all.
func (t *top) press(key screen.Key, height int) (end bool) {
	page := max(1, height-chrome)
	switch {
	case key == screen.CtrlC:
		return true
	case t.typing:
		t.typeFilter(key)
		return false
	}
	switch key {
	case 'q':
		return true
	case screen.Escape:
		return t.back()
	case '/':
		t.typing, t.filter = true, ""
	case screen.Up, 'k':
		t.move(-1)
	case screen.Down, 'j':
		t.move(1)
	case screen.PageUp:
		t.move(-page)
	case screen.PageDown, ' ':
		t.move(page)
	case screen.Home:
		t.move(-1 << 30)
	case screen.End:
		t.move(1 << 30)
	case screen.Enter:
		t.enter()
	case screen.Left, '<':
		t.sort = (t.sort + len(topColumns) - 1) % len(topColumns)
	case screen.Right, '>':
		t.sort = (t.sort + 1) % len(topColumns)
	case 'r':
		t.reverse = !t.reverse
	case 'z':
		t.zeros = !t.zeros
	}
	return false
}

func (t *top) typeFilter(key screen.Key) {
	switch {
	case key == screen.Enter:
		t.typing = false
	case key == screen.Escape:
		t.typing, t.filter = false, ""
	case key == screen.Backspace:
		if r := []rune(t.filter); len(r) > 0 {
			t.filter = string(r[:len(r)-1])
		}
	case key >= ' ':
		t.filter += string(rune(key))
	}
}

// back leaves what was entered last, and is true when there is nothing left.
func (t *top) back() bool {
	switch {
	case t.filter != "":
		t.filter = ""
	case t.open:
		t.open, t.first = false, 0
		t.watch.tables.Store(true)
	default:
		return true
	}
	return false
}

// enter looks into the chosen one, or the first.
func (t *top) enter() {
	rows := t.visible()
	if t.open || len(rows) == 0 {
		return
	}
	if t.chosen == 0 {
		t.chosen = rows[0].ID
	}
	t.open, t.first, t.filter = true, 0, ""
	t.watch.tables.Store(false)
}

// move chooses another one, or scrolls where one is looked into.
func (t *top) move(by int) {
	if t.open {
		t.first += by // kept in bounds when it is drawn
		return
	}
	rows := t.visible()
	if len(rows) == 0 {
		return
	}
	at := slices.IndexFunc(rows, func(r topRow) bool { return r.ID == t.chosen })
	if at < 0 && by > 0 {
		by-- // the first one down is the first
	}
	t.chosen = rows[min(max(max(at, 0)+by, 0), len(rows)-1)].ID
}
