package ledger

import (
	"time"

	"github.com/vsrun/vsrun/stats"
)

// A statement is what one account has counted, as other nodes get it.
type statement struct {
	Since   time.Time  `json:"since"`
	Gaps    int        `json:"gaps,omitempty"`
	Lost    float64    `json:"lost,omitempty"`
	LastGap *stats.Gap `json:"lastGap,omitempty"`
	Figures figures    `json:"figures"`
}

func (a *account) statement(own figures) statement {
	return statement{a.Since, a.Gaps, a.Lost, a.LastGap, own}
}

// plus is both as one.
func (s statement) plus(o statement) statement {
	if o.Since.Before(s.Since) {
		s.Since = o.Since
	}
	if s.LastGap == nil || o.LastGap != nil && o.LastGap.To.After(s.LastGap.To) {
		s.LastGap = o.LastGap
	}
	s.Gaps += o.Gaps
	s.Lost += o.Lost
	s.Figures = s.Figures.plus(o.Figures)
	return s
}

// told is the account for others, with a reading that need not be the last one, or
// none.
func (a *account) told(now *reading) *stats.Ledger {
	var moved statement
	moved.Since = a.Since
	for _, s := range a.Moved {
		moved = moved.plus(s)
	}
	kept := a.statement(a.own()).plus(moved)
	figures := kept.Figures.list()
	told := &stats.Ledger{
		Since: kept.Since, Gaps: kept.Gaps, Lost: kept.Lost, LastGap: kept.LastGap,
		Figures: figures, Kept: stats.Kept{Time: a.Last.Time, Figures: figures},
	}
	if now != nil {
		told.Figures = a.with(*now).plus(moved.Figures).list()
	}
	return told
}
