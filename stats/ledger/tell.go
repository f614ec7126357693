package ledger

import (
	"errors"
	"io/fs"
	"os"

	"github.com/vsrun/vsrun/stats"
)

// A cached value is what a file had when it was as stamp says. A file that is replaced
// is another inode.
type cached[T any] struct {
	stamp stamp
	value T
}

type stamp struct {
	info os.FileInfo
}

func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return stamp{}, nil
	}
	return stamp{info}, err
}

func (s stamp) same(o stamp) bool {
	if s.info == nil || o.info == nil {
		return s.info == o.info
	}
	return os.SameFile(s.info, o.info) && s.info.ModTime().Equal(o.info.ModTime()) && s.info.Size() == o.info.Size()
}

// Tell adds to a sample what its virtual server has counted over all of its lives. One
// without a ledger gets none, and neither does one after an error.
func (b *Book) Tell(s *stats.Sample) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := readingOf(s)
	var err error
	s.Ledger, err = b.tell(s.ID, &now)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return b.cannot("read", s.ID, err)
}

// Ledger is that of a virtual server, without what is not kept yet. One that has none
// is fs.ErrNotExist.
func (b *Book) Ledger(id int) (*stats.Ledger, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, err := b.tell(id, nil)
	return l, b.cannot("read", id, err)
}

// tell reads the readings before the account: should that be written between, it has
// what they say. The other way round it would lack what was told before.
func (b *Book) tell(id int, now *reading) (*stats.Ledger, error) {
	all, err := b.cachedReadings()
	if err != nil {
		return nil, err
	}
	a, err := b.cachedAccount(id)
	if err != nil {
		return nil, err
	}
	return all.current(id, a).told(now), nil
}

func (b *Book) cachedAccount(id int) (*account, error) {
	at, err := stampOf(b.accountPath(id))
	if err != nil {
		return nil, err
	}
	if c, ok := b.accounts[id]; ok && at.info != nil && c.stamp.same(at) {
		return c.value, nil
	}
	a, err := b.loadAccount(id)
	if err != nil {
		delete(b.accounts, id)
		return nil, err
	}
	if b.accounts == nil {
		b.accounts = map[int]cached[*account]{}
	}
	b.accounts[id] = cached[*account]{at, a}
	return a, nil
}

func (b *Book) cachedReadings() (readings, error) {
	at, err := stampOf(b.readingsPath())
	if err != nil {
		return nil, err
	}
	if b.readings.value != nil && b.readings.stamp.same(at) {
		return b.readings.value, nil
	}
	all, err := b.loadReadings()
	if err == nil {
		b.readings = cached[readings]{at, all}
	}
	return all, err
}
