package ledger

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"sync"

	"github.com/vsrun/vsrun/stats"
)

// Tell adds to a sample what its virtual server has counted over all of its lives. One
// without a ledger gets none, and neither does one after an error.
func (b *Book) Tell(s *stats.Sample) error {
	now := readingOf(s)
	var err error
	s.Ledger, err = b.tell(s.ID, &now)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return cannot("read", s.ID, err)
}

// Ledger is that of a virtual server, without what is not kept yet. One that has none
// is fs.ErrNotExist.
func (b *Book) Ledger(id int) (*stats.Ledger, error) {
	l, err := b.tell(id, nil)
	return l, cannot("read", id, err)
}

// tell reads the readings before the account: should that be written between, it has
// what they say. The other way round it would lack what was told before.
func (b *Book) tell(id int, now *reading) (*stats.Ledger, error) {
	all, err := b.readings.get(b.readingsPath(), b.Read, true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	a, err := b.accounts.get(b.accountPath(id), b.Read, true)
	if err != nil {
		return nil, err
	}
	return all.current(id, &a).told(now), nil
}

// A cache has what files were when they were read last. What it gives is shared: it must
// not be changed.
type cache[T any] struct {
	mu    sync.Mutex
	files map[string]cached[T] // by path
}

type cached[T any] struct {
	info  os.FileInfo
	text  []byte
	value T
}

// get is the value of a file. A glance trusts that one with the inode, size and time
// that it had is the same: each is written as a new one.
func (c *cache[T]) get(path string, read func(string) ([]byte, error), glance bool) (T, error) {
	info, err := os.Lstat(path)
	c.mu.Lock()
	was, ok := c.files[path]
	c.mu.Unlock()
	if err == nil && ok && glance && os.SameFile(info, was.info) && info.ModTime().Equal(was.info.ModTime()) && info.Size() == was.info.Size() {
		return was.value, nil
	}
	now := cached[T]{info: info}
	if err == nil {
		now.text, err = read(path)
	}
	switch {
	case err != nil:
	case ok && bytes.Equal(now.text, was.text):
		now.value = was.value
	default:
		err = unseal(now.text, &now.value)
	}
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.files, path)
		return now.value, err
	}
	c.put(path, now)
	return now.value, nil
}

func (c *cache[T]) put(path string, now cached[T]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.files == nil {
		c.files = map[string]cached[T]{}
	}
	c.files[path] = now
}
