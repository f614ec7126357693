package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vsrun/vsrun/cmd/vsrun/screen"
)

// chrome is the rows around the table: a title, the headings, and what keys do.
const chrome = 3

// A topColumn is one of the table's, and one way to sort it.
type topColumn struct {
	word, title string
	width       int
	text        func(topRow) string
	order       func(a, b topRow) int // what is wanted first
}

// topColumns are all but the last, which shows the past, as wide as is left.
var topColumns = []topColumn{
	{"id", "ID", 4, func(r topRow) string { return strconv.Itoa(r.ID) }, func(a, b topRow) int { return 0 }},
	{"name", "NAME", 12, func(r topRow) string { return r.Name }, func(a, b topRow) int { return cmp.Compare(a.Name, b.Name) }},
	figureColumn("rx", "RX B/s", func(r topRow) *float64 { return known(r, r.rate.RxBytes) }),
	figureColumn("tx", "TX B/s", func(r topRow) *float64 { return known(r, r.rate.TxBytes) }),
	figureColumn("rx-packets", "RX p/s", func(r topRow) *float64 { return known(r, r.rate.RxPackets) }),
	figureColumn("tx-packets", "TX p/s", func(r topRow) *float64 { return known(r, r.rate.TxPackets) }),
	figureColumn("lost", "LOST/s", func(r topRow) *float64 { return known(r, r.rate.Lost()) }),
	figureColumn("cpu", "CPU %", func(r topRow) *float64 { return percent(r.use.CPU) }),
	{"memory", "MEMORY", 6, func(r topRow) string { return memory(r) }, func(a, b topRow) int { return compareFigures(memoryUsed(a), memoryUsed(b)) }},
	{"rate", "RX+TX B/s", 6, nil, func(a, b topRow) int { return compareFigures(known(a, a.rate.Bytes()), known(b, b.rate.Bytes())) }},
}

func figureColumn(word, title string, value func(topRow) *float64) topColumn {
	return topColumn{word, title, 6,
		func(r topRow) string { return short(value(r)) },
		func(a, b topRow) int { return compareFigures(value(a), value(b)) }}
}

func sortWords() (words []string) {
	for _, c := range topColumns {
		words = append(words, c.word)
	}
	return words
}

func known(r topRow, rate float64) *float64 {
	if !r.known {
		return nil
	}
	return &rate
}

func memoryUsed(r topRow) *int64 {
	if r.Sample.Use == nil {
		return nil
	}
	return r.Sample.Use.Memory
}

func memory(r topRow) string { return cmp.Or(bytesUsed(memoryUsed(r)), "-") }

// compareFigures puts the largest first, and what is unknown last.
func compareFigures[T cmp.Ordered](a, b *T) int {
	switch {
	case a != nil && b != nil:
		return cmp.Compare(*b, *a)
	case a != nil:
		return -1
	case b != nil:
		return 1
	}
	return 0
}

// visible are the rows that the filter leaves, sorted.
func (t *top) visible() []topRow {
	var rows []topRow
	for _, r := range t.rows {
		if t.open || matches(t.filter, r.Name, strconv.Itoa(r.ID)) {
			rows = append(rows, r)
		}
	}
	order := topColumns[t.sort].order
	slices.SortFunc(rows, func(a, b topRow) int {
		by := cmp.Or(order(a, b), cmp.Compare(a.ID, b.ID))
		if t.reverse {
			return -by
		}
		return by
	})
	return rows
}

// matches tells whether one of the words has the filter's text in it.
func matches(filter string, words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool {
		return strings.Contains(strings.ToLower(w), strings.ToLower(filter))
	})
}

// lines are what is to be seen, in so many columns and rows.
func (t *top) lines(width, height int) []screen.Line {
	if t.open {
		return t.oneLines(width, height)
	}
	rows, space := t.visible(), max(1, height-chrome)
	if at := slices.IndexFunc(rows, func(r topRow) bool { return r.ID == t.chosen }); at >= 0 {
		t.first = min(max(t.first, at-space+1), at)
	}
	t.first = max(0, min(t.first, len(rows)-space))
	shown := rows[t.first:min(len(rows), t.first+space)]

	lines := []screen.Line{t.title(rows, len(shown), width), t.headings(width)}
	for _, r := range shown {
		lines = append(lines, t.row(r, width))
	}
	if len(rows) == 0 {
		lines = append(lines, screen.Text(t.nothing(), screen.Plain))
	}
	return t.withFoot(lines, height, t.symbols("↑↓ choose  Enter look into  ←→ sort  r reverse  / filter  q quit"))
}

func (t *top) nothing() string {
	if len(t.rows) == 0 {
		return "No virtual server is enabled."
	}
	return "No name or number has that in it."
}

func (t *top) title(rows []topRow, shown, width int) screen.Line {
	var sum traffic
	for _, r := range rows {
		sum.rx, sum.tx = sum.rx+r.rate.RxBytes, sum.tx+r.rate.TxBytes
	}
	text := fmt.Sprintf("%d virtual servers", len(rows))
	if len(rows) == 1 {
		text = "1 virtual server"
	}
	if shown < len(rows) {
		text += fmt.Sprintf(", %d to %d", t.first+1, t.first+shown)
	}
	return edges(screen.Piece{Text: text, Style: screen.Bold}, fmt.Sprintf("in %s  out %s  every %v", perSecond(sum.rx), perSecond(sum.tx), t.watch.interval), width)
}

// edges has one text at the left and one at the right, if both fit.
func edges(left screen.Piece, right string, width int) screen.Line {
	gap := width - screen.Width(left.Text) - screen.Width(right)
	if gap < 2 {
		return screen.Line{left}
	}
	return screen.Line{left, {Text: strings.Repeat(" ", gap) + right}}
}

// widths is how wide the name's and the last column are: a wide terminal has room
// for long names, and shows more of the past.
func (t *top) widths(width int) (name, past int) {
	rest := width
	for _, c := range topColumns[:len(topColumns)-1] {
		rest -= c.width + 1
	}
	name = topColumns[1].width
	for _, r := range t.rows {
		name = max(name, screen.Width(r.Name))
	}
	name = min(name, topColumns[1].width+max(0, rest-16)/2)
	return name, rest - (name - topColumns[1].width)
}

func (t *top) headings(width int) screen.Line {
	name, past := t.widths(width)
	var line screen.Line
	for i, c := range topColumns {
		style := screen.Reverse
		title := c.title
		if i == t.sort {
			title = t.symbols(map[bool]string{false: "▼", true: "▲"}[t.reverse]) + strings.TrimSuffix(title, "/s")
		}
		wide := c.width
		switch c.word {
		case "name":
			title, wide = pad(title, -name), name
		case "rate":
			title, wide = pad(title, -past), past
		}
		line = append(line, screen.Piece{Text: pad(title, wide) + " ", Style: style})
	}
	return line
}

func (t *top) row(r topRow, width int) screen.Line {
	name, past := t.widths(width)
	var b strings.Builder
	for _, c := range topColumns[:len(topColumns)-1] {
		text := c.text(r)
		if c.word == "name" {
			text = pad(screen.Fit(text, name), -name)
		}
		b.WriteString(pad(text, c.width) + " ")
	}
	spark := screen.Piece{Text: t.spark(r.ID, past, func(h traffic) float64 { return h.rx + h.tx }), Style: screen.Cyan}
	if r.ID == t.chosen {
		return screen.Line{{Text: b.String() + pad(spark.Text, -past), Style: screen.Reverse}}
	}
	return screen.Line{{Text: b.String()}, spark}
}

// withFoot puts the last line on the last row: what is typed, what failed, or what
// keys do.
func (t *top) withFoot(lines []screen.Line, height int, help string) []screen.Line {
	for len(lines) < height-1 {
		lines = append(lines, nil)
	}
	foot := screen.Text(help, screen.Cyan)
	switch {
	case t.typing:
		foot = screen.Text("filter: "+t.filter+"_  (Enter keeps it, Esc clears it)", screen.Bold)
	case t.err != nil:
		foot = screen.Text("not now: "+oneLine(t.err), screen.Yellow)
	case t.filter != "":
		foot = screen.Text("filter: "+t.filter+"  (Esc clears it)", screen.Bold)
	}
	return append(lines[:max(0, height-1)], foot)
}

// spark draws the past of a virtual server, the latest at the right. The highest
// is the largest in sight.
func (t *top) spark(id, width int, value func(traffic) float64) string {
	levels := []rune("▁▂▃▄▅▆▇█")
	if !t.unicode {
		levels = []rune("_.:-=+*#")
	}
	past := t.history[id]
	past = past[max(0, len(past)-max(width, 0)):]
	var most float64
	for _, h := range past {
		most = max(most, value(h))
	}
	b := []rune(strings.Repeat(" ", max(0, width-len(past))))
	for _, h := range past {
		switch v := value(h); {
		case v < 0:
			b = append(b, ' ')
		case v == 0:
			b = append(b, levels[0])
		default:
			b = append(b, levels[1+int(v/most*float64(len(levels)-2)+.5)])
		}
	}
	return string(b)
}

var asciiSymbols = strings.NewReplacer("↑↓", "up/down", "←→", "left/right", "▼", "v", "▲", "^", "…", "...", "›", ">")

func (t *top) symbols(text string) string {
	if t.unicode {
		return text
	}
	return asciiSymbols.Replace(text)
}

// pad fills up with spaces: at the left, or at the right where width is negative.
func pad(text string, width int) string {
	space := strings.Repeat(" ", max(0, max(width, -width)-screen.Width(text)))
	if width < 0 {
		return text + space
	}
	return space + text
}
