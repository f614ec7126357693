package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/vsrun/vsrun/stats"
)

// ErrHadIt is an export that was imported already, or one of an earlier time.
var ErrHadIt = errors.New("all of it was counted already")

// Reset begins a new epoch, and returns what the old one has counted.
func (b *Book) Reset(ctx context.Context, s Source) (was *stats.Ledger, err error) {
	err = b.change(ctx, s, func(a *account, now reading) error {
		if now.Life != "" {
			a.seen(now)
		}
		was = a.told(nil)
		fresh := newAccount(a.Last)
		fresh.Since, fresh.Ended, fresh.Before = now.Time, a.Ended, a.Before
		*a = *fresh
		return nil
	})
	return was, err
}

// Export is what was counted until now, written before it is told.
func (b *Book) Export(ctx context.Context, s Source) (text []byte, err error) {
	err = b.change(ctx, s, func(a *account, now reading) error {
		if now.Life != "" {
			a.seen(now)
			a.dirty = true
		}
		accounts := map[string]statement{a.ID: a.statement(a.own())}
		for id, s := range a.Moved {
			accounts[id] = s
		}
		text = seal(accounts)
		return nil
	})
	return text, err
}

// Import adds what was exported to what a virtual server has counted. What was imported
// before counts once; an export that was made later takes the place of one from
// before. With nothing new in it the error is ErrHadIt.
func (b *Book) Import(ctx context.Context, s Source, text []byte) error {
	accounts := map[string]statement{}
	if err := unseal(text, &accounts); err != nil {
		return fmt.Errorf("cannot use this as an export: %w", err)
	}
	return b.change(ctx, s, func(a *account, now reading) error {
		fresh := false
		for id, s := range accounts {
			if id != a.ID && s.after(a.Moved[id]) {
				if a.Moved == nil {
					a.Moved = map[string]statement{}
				}
				a.Moved[id], fresh = s, true
			}
		}
		if !fresh {
			return ErrHadIt
		}
		a.dirty = true
		return nil
	})
}

// after tells which of two statements of one account is the later one: sums only grow.
func (s statement) after(o statement) bool {
	return o.Since.IsZero() || s.Figures.sum() > o.Figures.sum() || s.Gaps > o.Gaps
}

func (f figures) sum() uint64 {
	t := f.list().Total
	n := t.RxBytes + t.TxBytes + t.RxPackets + t.TxPackets + t.RxErrors + t.TxErrors + t.RxDropped + t.TxDropped
	for _, c := range f.MIB.counts {
		n += c
	}
	return n
}
