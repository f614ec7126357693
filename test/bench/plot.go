package bench

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// A drawing is an SVG that fits a light page and a dark one.
type drawing struct {
	strings.Builder
	width, height int
}

const style = `<style>
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 11px; fill: #59636e }
.grid { stroke: #d1d9e0; stroke-width: 1 }
.one { stroke: #818b98; stroke-width: 1.5 }
.ours { stroke: #0969da; fill: none; stroke-width: 2 }
.theirs { stroke: #818b98; fill: none; stroke-width: 2; stroke-dasharray: 5 3 }
.holds { stroke: #0969da; fill: #0969da; stroke-width: 2 }
.missed { stroke: #bc4c00; fill: none; stroke-width: 2 }
.goal { stroke: #1f2328; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.small { fill: #9198a1 }
.grid { stroke: #3d444d }
.one, .theirs { stroke: #9198a1 }
.ours, .holds { stroke: #4493f8 }
.holds { fill: #4493f8 }
.missed { stroke: #f0883e }
.goal { stroke: #e6edf3 }
}
</style>
`

func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(d, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", class, x1, y1, x2, y2)
}

func (d *drawing) text(class, anchor string, x, y float64, text string) {
	fmt.Fprintf(d, `<text class="%s" text-anchor="%s" x="%.1f" y="%.1f">%s</text>`+"\n", class, anchor, x, y, html.EscapeString(text))
}

func (d *drawing) dot(class string, x, y float64) {
	fmt.Fprintf(d, `<circle class="%s" cx="%.1f" cy="%.1f" r="4"/>`+"\n", class, x, y)
}

func (d *drawing) svg() string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d">`+"\n%s%s</svg>\n", d.width, d.height, d.width, style, d)
}

// ratioPlot has a line for each goal that is a ratio: to the left vsrun takes less.
func (r Report) ratioPlot() string {
	rows := slices.DeleteFunc(r.Goals(), func(row Row) bool { return row.Goal.Of != "ratio" })
	const left, right, line, top = 400, 60, 24, 40
	d := &drawing{width: 900, height: top + line*len(rows) + 30}
	least, most := 0.01, 10.0
	for _, row := range rows {
		least, most = min(least, row.Ratio.Low), max(most, row.Ratio.High)
	}
	x := func(v float64) float64 {
		return left + (float64(d.width)-left-right)*(math.Log(v)-math.Log(least))/(math.Log(most)-math.Log(least))
	}
	bottom := float64(top + line*len(rows))
	for exponent := math.Ceil(math.Log10(least)); exponent <= math.Log10(most); exponent++ {
		v := math.Pow(10, exponent)
		class := "grid"
		if exponent == 0 {
			class = "one"
		}
		d.line(class, x(v), top-8, x(v), bottom)
		d.text("small", "middle", x(v), top-14, "× "+digits(v))
	}
	for k, row := range rows {
		y := float64(top + line*k + line/2)
		class := "missed"
		if row.Holds() {
			class = "holds"
		}
		d.text("", "end", left-12, y-1, row.What)
		d.text("small", "end", left-12, y+11, "beside "+row.Against)
		d.line(class, x(row.Ratio.Low), y, x(row.Ratio.High), y)
		d.dot(class, x(row.Ratio.Median), y)
		d.line("goal", x(row.Goal.Bound), y-8, x(row.Goal.Bound), y+8)
		d.text("", "start", float64(d.width-right)+10, y+4, "× "+digits(row.Ratio.Median))
	}
	d.text("small", "end", float64(d.width)-4, bottom+20, "dot: vsrun, and the half of the turns in the middle; upright line: the goal; filled: it holds; left is faster, but for TCP")
	return d.svg()
}

// The rows that are measured with each number of virtual servers.
const (
	applied   = "vsrun apply of all, as a command"
	destroyed = "vsrun destroy --all; their MACs are free on return"
	compared  = "vsrun diff of all, in order"
	scraped   = "stats.Reader, all counters"
)

// scalePlot has the cost of each virtual server over how many there are.
func (r Report) scalePlot() string {
	d := &drawing{width: 900, height: 560}
	for k, panel := range []struct{ title, what string }{
		{"create: vsrun apply", applied},
		{"destroy: vsrun destroy --all", destroyed},
		{"diff: vsrun diff", compared},
		{"scrape: stats.Reader, all counters", scraped},
	} {
		rows := slices.DeleteFunc(slices.Clone(r.Rows), func(row Row) bool { return row.What != panel.what })
		slices.SortFunc(rows, func(a, b Row) int { return a.Size - b.Size })
		d.panel(float64(60+440*(k%2)), float64(40+270*(k/2)), panel.title, rows)
	}
	d.text("small", "end", 896, 556, "µs for each virtual server, over how many there are; dashed: the bare kernel")
	return d.svg()
}

// panel draws one diagram of 360 by 190 at a place.
func (d *drawing) panel(left, top float64, title string, rows []Row) {
	const width, height = 360.0, 190.0
	most, size := 0.0, 1
	for _, row := range rows {
		most, size = max(most, row.Ours.Median, row.Theirs.Median), max(size, row.Size)
	}
	step := math.Pow(10, math.Floor(math.Log10(most)))
	for most/step < 3 {
		step /= 2
	}
	x := func(n int) float64 { return left + width*float64(n)/float64(size) }
	y := func(v float64) float64 { return top + height - height*v/(most*1.05) }
	d.text("", "start", left, top-10, title)
	for v := 0.0; v <= most*1.05; v += step {
		d.line("grid", left, y(v), left+width, y(v))
		d.text("small", "end", left-6, y(v)+4, digits(v))
	}
	var ours, theirs strings.Builder
	for _, row := range rows {
		fmt.Fprintf(&ours, "%.1f,%.1f ", x(row.Size), y(row.Ours.Median))
		fmt.Fprintf(&theirs, "%.1f,%.1f ", x(row.Size), y(row.Theirs.Median))
		if row.Size*10 > size {
			d.text("small", "middle", x(row.Size), top+height+16, fmt.Sprint(row.Size))
		}
	}
	fmt.Fprintf(d, `<polyline class="theirs" points="%s"/>`+"\n", &theirs)
	fmt.Fprintf(d, `<polyline class="ours" points="%s"/>`+"\n", &ours)
}
