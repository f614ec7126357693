package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/vsrun/vsrun/cmd/vsrun/screen"
	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/stats"
)

// oneLines are what is to be seen of the virtual server that is looked into.
func (t *top) oneLines(width, height int) []screen.Line {
	help := t.symbols("↑↓ scroll  z zeros  / filter counters  Esc back  q quit")
	at := slices.IndexFunc(t.rows, func(r topRow) bool { return r.ID == t.chosen })
	if at < 0 {
		return t.withFoot([]screen.Line{screen.Text(fmt.Sprintf("vs%d is not enabled any more.", t.chosen), screen.Bold)}, height, help)
	}
	r := t.rows[at]
	all := t.one(r, width)
	space := max(1, height-2)
	t.first = max(0, min(t.first, len(all)-space))
	title := screen.Piece{Text: t.symbols(fmt.Sprintf("vs%d › ", r.ID)) + r.Name, Style: screen.Bold}
	lines := []screen.Line{edges(title, fmt.Sprintf("lines %d to %d of %d", t.first+1, min(len(all), t.first+space), len(all)), width)}
	return t.withFoot(append(lines, all[t.first:min(len(all), t.first+space)]...), height, help)
}

func (t *top) one(r topRow, width int) []screen.Line {
	var lines []screen.Line
	for _, way := range []struct {
		name string
		rate float64
		of   func(traffic) float64
	}{{"in ", r.rate.RxBytes, func(h traffic) float64 { return h.rx }}, {"out", r.rate.TxBytes, func(h traffic) float64 { return h.tx }}} {
		lines = append(lines, screen.Line{
			{Text: way.name + " " + pad(perSecond(way.rate), 9) + " "},
			{Text: t.spark(r.ID, min(remembered, width-15), way.of), Style: screen.Cyan},
		})
	}
	lines = append(lines, nil)
	lines = append(lines, aligned(interfaceCells(r), 1)...)
	if r.Ledger != nil {
		c := r.Ledger.Total
		lines = append(lines, nil)
		lines = append(lines, aligned([][]string{
			{"OVER ALL LIVES SINCE", "RX", "TX", "RX p", "TX p", "LOST", "GAPS"},
			{day(r.Ledger.Since), shortCount(c.RxBytes), shortCount(c.TxBytes), shortCount(c.RxPackets), shortCount(c.TxPackets), shortCount(lost(c)), strconv.Itoa(r.Ledger.Gaps)},
		}, 1)...)
	}
	if r.Sample.Use != nil {
		lines = append(lines, nil)
		lines = append(lines, aligned(useCells(r), 1)...)
	}
	lines = append(lines, nil)
	if len(r.MIB) == 0 {
		return append(lines, screen.Text("MIB: at the next reading", screen.Plain))
	}
	return append(lines, aligned(t.counterCells(r), 2)...)
}

func interfaceCells(r topRow) [][]string {
	cells := [][]string{{"INTERFACE", "RX B/s", "TX B/s", "RX p/s", "TX p/s", "LOST/s", "RX", "TX", "LOST"}}
	line := func(name string, c stats.Counters, rate stats.Rate, known bool) {
		row := []string{name}
		for _, v := range []float64{rate.RxBytes, rate.TxBytes, rate.RxPackets, rate.TxPackets, rate.Lost()} {
			if known {
				row = append(row, short(&v))
			} else {
				row = append(row, "-")
			}
		}
		cells = append(cells, append(row, shortCount(c.RxBytes), shortCount(c.TxBytes), shortCount(lost(c))))
	}
	for _, i := range r.Interfaces {
		rate, known := r.span.Interface(i.Name)
		line(i.Name, i.Counters, rate, known)
	}
	line("total", r.Total, r.rate, r.known)
	return cells
}

func useCells(r topRow) [][]string {
	cells := [][]string{{"SERVICE", "CPU %", "MEMORY", "PEAK", "TASKS", "READ B/s", "WRITE B/s", "OOM KILLS"}}
	line := func(name string, u cgroup.Use, rate stats.UseRate) {
		cells = append(cells, []string{name, short(percent(rate.CPU)), cmp.Or(bytesUsed(u.Memory), "-"), cmp.Or(bytesUsed(u.MemoryPeak), "-"),
			cmp.Or(counted(u.Tasks), "-"), short(rate.ReadBytes), short(rate.WriteBytes), cmp.Or(counted(u.OOMKills), "-")})
	}
	for _, s := range r.Services {
		line(s.Name, s.Use, r.span.Service(s.Name))
	}
	line("total", *r.Sample.Use, r.use)
	return cells
}

func (t *top) counterCells(r topRow) [][]string {
	cells := [][]string{{"MIB", "COUNTER", "VALUE", "PER SECOND"}}
	for _, part := range []struct {
		of  string
		mib stats.MIB
	}{{"", r.MIB}, {"sockstat ", r.Sockets}, {"", r.Conntrack}, {"neighbours ", r.Neighbours}} {
		for _, g := range part.mib {
			for _, c := range g.Counters {
				if c.Value == 0 && !t.zeros || !matches(t.filter, part.of+g.Name, c.Name) {
					continue
				}
				rate := "-"
				if v, ok := r.span.Counter(g.Name, c.Name); ok {
					rate = short(&v)
				}
				cells = append(cells, []string{part.of + g.Name, c.Name, strconv.FormatInt(c.Value, 10), rate})
			}
		}
	}
	return cells
}

// aligned are the cells in columns, the first so many to the left and the others to
// the right. The first line is headings.
func aligned(cells [][]string, left int) []screen.Line {
	widths := make([]int, len(cells[0]))
	for _, row := range cells {
		for i, c := range row {
			widths[i] = max(widths[i], screen.Width(c))
		}
	}
	var lines []screen.Line
	for n, row := range cells {
		var text string
		for i, c := range row {
			wide := widths[i]
			if i < left {
				wide = -wide
			}
			text += pad(c, wide) + "  "
		}
		style := screen.Plain
		if n == 0 {
			style = screen.Bold
		}
		lines = append(lines, screen.Text(text, style))
	}
	return lines
}
