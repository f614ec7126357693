package bench

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var write = flag.Bool("write", false, "write the pages that docs/bench.json makes, instead of comparing them")

// What is shown is what was measured last.
func TestPage(t *testing.T) {
	const top = "../.."
	if *write {
		must(t, Render(top))
	}
	r, err := load(filepath.Join(top, "docs/bench.json"))
	must(t, err)
	readme, err := os.ReadFile(filepath.Join(top, "README.md"))
	must(t, err)
	files, err := r.Files(string(readme))
	must(t, err)
	for path, want := range files {
		if got, err := os.ReadFile(filepath.Join(top, path)); err != nil || string(got) != want {
			t.Errorf("%s is not what docs/bench.json makes: go test ./test/bench -run TestPage -write (%v)", path, err)
		}
	}
}

func TestGoals(t *testing.T) {
	for _, c := range []struct {
		row  Row
		want string
	}{
		{row("s", "a", 1, "µs", []float64{12, 10, 13}, "b", []float64{10, 10, 10}, ratio(1.3)), "a (1): 12 µs, b 10 µs: ×1.2, holds ≤ ×1.3"},
		{row("s", "a", 9, "µs", []float64{12, 20, 13}, "b", []float64{10, 10, 10}, ratio(1.2)), "a (9): 13 µs, b 10 µs: ×1.3, MISSED ≤ ×1.2"},
		{row("s", "a", 1, "MB/s", []float64{96}, "b", []float64{100}, &Goal{Of: "ratio", Least: true, Bound: 0.97}), "a (1): 96 MB/s, b 100 MB/s: ×0.96, MISSED ≥ ×0.97"},
		{row("s", "a", 1, "ms", []float64{15}, "b", []float64{1}, figure(20)), "a (1): 15 ms, b 1 ms: ×15, holds ≤ 20 ms"},
		{row("s", "a", 1, "MB", []float64{0}, "", nil, figure(0)), "a (1): 0 MB, holds ≤ 0 MB"},
		{row("s", "a", 1, "KiB", []float64{280}, "b", []float64{0}, nil), "a (1): 280 KiB, b 0 KiB"},
	} {
		if got := c.row.String(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
