package bench

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
)

// A Report is what one run has measured.
type Report struct {
	Version    string `json:"version"` // vsrun's
	Kernel     string `json:"kernel"`
	Processors int    `json:"processors"`
	Size       int    `json:"size"` // how many virtual servers there were at most
	Rows       []Row  `json:"rows"`
}

// A Row is what vsrun takes for something, beside what something else takes for it.
type Row struct {
	Section string  `json:"section"`
	What    string  `json:"what"`
	Size    int     `json:"size"`              // how many virtual servers there were
	Unit    string  `json:"unit"`              // of Ours and Theirs
	Against string  `json:"against,omitempty"` // "": nothing does the same
	Ours    Spread  `json:"ours"`
	Theirs  *Spread `json:"theirs,omitempty"`
	Ratio   *Spread `json:"ratio,omitempty"` // Ours to Theirs, turn by turn
	Goal    *Goal   `json:"goal,omitempty"`
}

// A Spread is what several turns have given.
type Spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`  // a quarter is below
	High   float64 `json:"high"` // a quarter is above
	Turns  int     `json:"turns"`
}

func spread(values []float64) Spread {
	sorted := slices.Sorted(slices.Values(values))
	at := func(part float64) float64 { // between two of them, if need be
		whole, rest := math.Modf(part * float64(len(sorted)-1))
		k := int(whole)
		return sorted[k] + rest*(sorted[min(k+1, len(sorted)-1)]-sorted[k])
	}
	return Spread{at(0.5), at(0.25), at(0.75), len(sorted)}
}

// A Goal is a bound that the ratio, or else the figure itself, has to keep.
type Goal struct {
	Of    string  `json:"of"` // ratio or figure
	Least bool    `json:"least,omitempty"`
	Bound float64 `json:"bound"`
}

// ratio and figure are goals: to be at most that.
func ratio(most float64) *Goal  { return &Goal{Of: "ratio", Bound: most} }
func figure(most float64) *Goal { return &Goal{Of: "figure", Bound: most} }

// Holds tells whether the goal is reached.
func (r Row) Holds() bool {
	v := r.Ours.Median
	if r.Goal.Of == "ratio" {
		v = r.Ratio.Median
	}
	if r.Goal.Least {
		return v >= r.Goal.Bound
	}
	return v <= r.Goal.Bound
}

// row makes a row of turns; theirs may be nil.
func row(section, what string, size int, unit string, ours []float64, against string, theirs []float64, goal *Goal) Row {
	r := Row{Section: section, What: what, Size: size, Unit: unit, Against: against, Ours: spread(ours), Goal: goal}
	if theirs == nil {
		return r
	}
	ratios := make([]float64, len(ours))
	for k := range ours {
		ratios[k] = ours[k] / theirs[k]
	}
	t, q := spread(theirs), spread(ratios)
	r.Theirs = &t
	if !math.IsNaN(q.Median) && !math.IsInf(q.High, 0) { // of memory, too little may be there to tell
		r.Ratio = &q
	}
	return r
}

func (r Row) String() string {
	s := fmt.Sprintf("%s (%d): %s", r.What, r.Size, amount(r.Ours.Median, r.Unit))
	if r.Theirs != nil {
		s += fmt.Sprintf(", %s %s", r.Against, amount(r.Theirs.Median, r.Unit))
	}
	if r.Ratio != nil {
		s += ": ×" + digits(r.Ratio.Median)
	}
	if r.Goal != nil {
		s += ", " + r.verdict()
	}
	return s
}

func (r Row) verdict() string {
	if r.Holds() {
		return "holds " + r.bound()
	}
	return "MISSED " + r.bound()
}

// bound is the goal in words.
func (r Row) bound() string {
	sign := "≤ "
	if r.Goal.Least {
		sign = "≥ "
	}
	if r.Goal.Of == "ratio" {
		return sign + "×" + digits(r.Goal.Bound)
	}
	return sign + amount(r.Goal.Bound, r.Unit)
}

// digits shows three digits that say something.
func digits(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 1:
		return fmt.Sprintf("%.2g", v)
	case v < 100:
		return fmt.Sprintf("%.3g", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// amount is a figure with its unit.
func amount(v float64, unit string) string {
	if rest, ok := strings.CutPrefix(unit, "µs"); ok && v >= 10000 {
		return digits(v/1000) + " ms" + rest
	}
	return digits(v) + " " + unit
}

func load(path string) (r Report, err error) {
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	return r, err
}

func (r Report) save(path string) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
