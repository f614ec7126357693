package bench

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

// Files are what a report is shown in, by their paths from the project's top.
func (r Report) Files(readme string) (map[string]string, error) {
	var page strings.Builder
	if err := pageTemplate.Execute(&page, r); err != nil {
		return nil, err
	}
	readme, err := between(readme, r.Short())
	return map[string]string{
		"docs/bench.md":        page.String(),
		"docs/bench.svg":       r.ratioPlot(),
		"docs/bench-scale.svg": r.scalePlot(),
		"README.md":            readme,
	}, err
}

//go:embed page.md
var page string

var pageTemplate = template.Must(template.New("page").Parse(page))

// Render shows docs/bench.json below top.
func Render(top string) error {
	r, err := load(filepath.Join(top, "docs/bench.json"))
	if err != nil {
		return err
	}
	readme, err := os.ReadFile(filepath.Join(top, "README.md"))
	if err != nil {
		return err
	}
	files, err := r.Files(string(readme))
	if err != nil {
		return err
	}
	for path, text := range files {
		if err := os.WriteFile(filepath.Join(top, path), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// The table in the README is between these lines.
const (
	begin = "<!-- from docs/bench.json, by make bench -->\n"
	end   = "<!-- to here -->\n"
)

func between(text, table string) (string, error) {
	before, rest, ok := strings.Cut(text, begin)
	_, after, there := strings.Cut(rest, end)
	if !ok || !there {
		return "", fmt.Errorf("README.md has no room for the table: it wants the lines %q and %q", begin, end)
	}
	return before + begin + table + end + after, nil
}

// Section is the table of one section, in the order of sizes.
func (r Report) Section(name string) string {
	var rows []Row
	var order []string
	for _, row := range r.Rows {
		if row.Section == name {
			rows = append(rows, row)
			order = append(order, row.What)
		}
	}
	slices.SortStableFunc(rows, func(a, b Row) int {
		if a.What != b.What {
			return slices.Index(order, a.What) - slices.Index(order, b.What)
		}
		return a.Size - b.Size
	})
	var b strings.Builder
	b.WriteString("| | virtual servers | vsrun | beside it | | ratio | goal |\n|---|---|---|---|---|---|---|\n")
	for _, row := range rows {
		theirs, ratio := "", ""
		if row.Theirs != nil {
			theirs = amount(row.Theirs.Median, row.Unit)
		}
		if row.Ratio != nil {
			ratio = fmt.Sprintf("%s (%s–%s)", digits(row.Ratio.Median), digits(row.Ratio.Low), digits(row.Ratio.High))
		}
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %s | %s | %s |\n",
			row.What, row.Size, amount(row.Ours.Median, row.Unit), theirs, row.Against, ratio, row.outcome())
	}
	return b.String()
}

// outcome is the goal and whether it holds, for a table.
func (r Row) outcome() string {
	switch {
	case r.Goal == nil:
		return ""
	case r.Holds():
		return r.bound() + " holds"
	}
	return r.bound() + " **missed**"
}

// sections is their order.
var sections = []string{"create", "destroy", "look", "read", "ipmd", "processes", "wire", "memory"}

// Goals are the rows that have one, for the most virtual servers that each was measured
// with, up to a thousand.
func (r Report) Goals() (rows []Row) {
	for _, row := range r.Rows {
		if row.Goal == nil || row.Size > 1000 {
			continue
		}
		k := slices.IndexFunc(rows, func(other Row) bool { return other.What == row.What && other.Against == row.Against })
		switch {
		case k < 0:
			rows = append(rows, row)
		case rows[k].Size < row.Size:
			rows[k] = row
		}
	}
	slices.SortStableFunc(rows, func(a, b Row) int {
		return slices.Index(sections, a.Section) - slices.Index(sections, b.Section)
	})
	return rows
}

// Held is how many of them are reached.
func (r Report) Held() (held int) {
	for _, row := range r.Goals() {
		if row.Holds() {
			held++
		}
	}
	return held
}

// Short is the table of goals.
func (r Report) Short() string {
	var b strings.Builder
	b.WriteString("| | virtual servers | vsrun | beside it | goal |\n|---|---|---|---|---|\n")
	for _, row := range r.Goals() {
		beside := ""
		if row.Ratio != nil {
			beside = fmt.Sprintf("× %s of %s", digits(row.Ratio.Median), row.Against)
		}
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %s |\n", row.What, row.Size, amount(row.Ours.Median, row.Unit), beside, row.outcome())
	}
	return b.String()
}
