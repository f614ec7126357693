package ledger

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vsrun/vsrun/stats"
)

// A Book is the ledgers of all virtual servers of a host. It is safe for concurrent
// use, and by several processes.
type Book struct {
	Dir string // where vs8/ledger.json and ledger.json are

	// Lock keeps all others that write away until unlock. Replace gives a file new
	// contents, on the disk when it returns, or leaves it as it was.
	Lock    func(context.Context) (unlock func(), err error)
	Replace func(path string, text []byte) error

	// Read is a file's contents. It waits for nobody, whatever has the name.
	Read func(path string) ([]byte, error)

	accounts cache[account]
	readings cache[readings]
	ends     ends
}

// A Source is a virtual server, the interfaces that it is meant to have, and what
// reads its counters: with fs.ErrNotExist where there is nothing to be read.
type Source struct {
	ID     int
	Wanted []string
	Read   func(*stats.Sample) error

	// Before is, for Opening, what interfaces that are not there yet have counted elsewhere: a
	// device of the host's keeps its counters when it is moved in.
	Before map[string]stats.Counters
}

// readings are those of a checkpoint, by the virtual server's ID. One counts in place
// of an account's own last one if it was made for that writing of it.
type readings map[int]struct {
	Token string  `json:"token"`
	Last  reading `json:"last"`
}

func (b *Book) accountPath(id int) string {
	return filepath.Join(b.Dir, fmt.Sprintf("vs%d", id), "ledger.json")
}

func (b *Book) readingsPath() string { return filepath.Join(b.Dir, "ledger.json") }

// A sealed file tells when it is not what was written.
type sealed struct {
	CRC32  uint32          `json:"crc32"`
	Ledger json.RawMessage `json:"ledger"`
}

// errSpoiled is a file whose contents are of no use.
var errSpoiled = errors.New("it is spoiled")

func seal(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // all of its types can be marshalled
	}
	return sealText(text)
}

func sealText(text []byte) []byte {
	return fmt.Appendf(nil, `{"crc32":%d,"ledger":%s}`+"\n", crc32.ChecksumIEEE(text), text)
}

func unseal(text []byte, v any) error {
	var s sealed
	var plain bytes.Buffer // somebody may have indented it
	err := json.Unmarshal(text, &s)
	if err == nil {
		err = json.Compact(&plain, s.Ledger)
	}
	switch {
	case err != nil:
	case crc32.ChecksumIEEE(plain.Bytes()) != s.CRC32:
		err = errors.New("its checksum does not fit")
	default:
		err = json.Unmarshal(s.Ledger, v)
	}
	if c, ok := v.(interface{ check() error }); ok && err == nil {
		err = c.check()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errSpoiled, err)
	}
	return nil
}

// current is the account with its last reading.
func (r readings) current(id int, a *account) *account {
	if e, ok := r[id]; ok && e.Token == a.Token {
		one := *a
		one.Last = e.Last
		return &one
	}
	return a
}

// putAside gives a spoiled file another name, and says so.
func putAside(path string, why error, then string) error {
	aside := strings.TrimSuffix(path, ".json") + "-" + time.Now().UTC().Format("20060102T150405.000000000Z") + ".spoiled"
	if err := os.Rename(path, aside); err != nil {
		return fmt.Errorf("cannot use %s: %w; nor put it aside: %w", path, why, err)
	}
	return &spoiledError{fmt.Errorf("%s: %w; it is put aside as %s, and %s", path, why, aside, then)}
}

// A spoiledError tells of what was lost; what was to be done was done.
type spoiledError struct{ error }

func (e *spoiledError) Unwrap() error { return e.error }

// all are the readings of the last checkpoint. Without them nothing of a life that
// goes on is lost, for its counters are sums.
func (b *Book) all() (readings, error) {
	r, err := b.readings.get(b.readingsPath(), b.Read, false)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return readings{}, nil
	case !errors.Is(err, errSpoiled):
		return r, err
	}
	err = putAside(b.readingsPath(), err, "what was counted since is read from the kernel")
	if _, done := errors.AsType[*spoiledError](err); done {
		return readings{}, err
	}
	return nil, err
}

// account is that of a virtual server, a new one if it has none; now is what its
// counters say.
func (b *Book) account(id int, all readings, now reading) (*account, error) {
	a, err := b.accounts.get(b.accountPath(id), b.Read, false)
	switch {
	case err == nil:
		return all.current(id, &a).clone(), nil
	case errors.Is(err, fs.ErrNotExist):
		return newAccount(now), nil
	case errors.Is(err, errSpoiled):
		err = putAside(b.accountPath(id), err, "counting begins anew")
		if _, done := errors.AsType[*spoiledError](err); done {
			return newAccount(now), err
		}
	}
	return nil, err
}

func (b *Book) save(id int, a *account) error {
	fresh := *a
	fresh.Token = rand.Text()
	if err := b.Replace(b.accountPath(id), seal(&fresh)); err != nil {
		return err
	}
	a.Token, a.dirty = fresh.Token, false
	return nil
}

// take reads the counters; nothing to be read is a reading of no life.
func (s Source) take() (reading, error) {
	var sample stats.Sample
	err := s.Read(&sample)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return reading{Phase: closed, Time: time.Now().UTC()}, nil
	case err == nil && sample.Life == "":
		err = errors.New("this kernel does not tell network namespaces apart (SO_NETNS_COOKIE, Linux 5.14)")
	}
	return readingOf(&sample), err
}

// change has fn change an account, with what its counters say now, and writes it if
// there is anything to write.
func (b *Book) change(ctx context.Context, s Source, fn func(a *account, now reading) error) error {
	unlock, err := b.Lock(ctx)
	if err != nil {
		return cannot("keep", s.ID, err)
	}
	defer unlock()
	now, err := s.take()
	if err != nil {
		return cannot("keep", s.ID, err)
	}
	last, spoiled := readings{}, error(nil)
	if _, err := os.Lstat(b.accountPath(s.ID)); !errors.Is(err, fs.ErrNotExist) { // else it counts for nothing
		last, spoiled = b.last(s.ID)
	}
	if last == nil {
		return cannot("keep", s.ID, spoiled)
	}
	a, err := b.account(s.ID, last, now)
	if a == nil {
		return cannot("keep", s.ID, errors.Join(spoiled, err))
	}
	ended := b.ends.of(s.ID)
	a.took(now, ended)
	if err := fn(a, now); err != nil {
		return err
	}
	a.tidy(s.Wanted)
	if a.dirty {
		err = errors.Join(err, b.save(s.ID, a))
	}
	if err == nil {
		b.ends.drop(s.ID, ended)
	}
	return cannot("keep", s.ID, errors.Join(spoiled, err))
}

func cannot(verb string, id int, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot %s the ledger of vs%d: %w", verb, id, err)
}

// Opening is to be called before a virtual server is put on the network.
func (b *Book) Opening(ctx context.Context, s Source) error {
	return b.change(ctx, s, func(a *account, now reading) error { a.toOpen(now, s.Before); return nil })
}

// Never is to be called when a virtual server that Opening was called for was not put
// on the network, for something had failed before.
func (b *Book) Never(ctx context.Context, s Source) error {
	return b.change(ctx, s, func(a *account, _ reading) error { a.toNever(); return nil })
}

// Leaving is to be called when interfaces of a virtual server that is taken off the
// network are down, before they are deleted, or when it has none.
func (b *Book) Leaving(ctx context.Context, s Source, names ...string) error {
	return b.change(ctx, s, func(a *account, now reading) error { a.toLeave(now, names...); return nil })
}

// Closing is Leaving for interfaces alone: the virtual server stays, or gets others. It
// is to be called once more when they are gone, without names: only then is one that is
// made anew, and counts more than the one before it, not taken for that.
func (b *Book) Closing(ctx context.Context, s Source, names ...string) error {
	return b.change(ctx, s, func(a *account, now reading) error { a.toClose(now, names...); return nil })
}

// Checkpoint takes a reading of each virtual server in the list. It returns what went
// wrong; all that could be kept was.
func (b *Book) Checkpoint(ctx context.Context, list []Source) error {
	unlock, err := b.Lock(ctx)
	if err != nil {
		return fmt.Errorf("cannot take a checkpoint: %w", err)
	}
	defer unlock()
	all, err := b.all()
	if all == nil {
		return fmt.Errorf("cannot take a checkpoint: %w", err)
	}
	errs := []error{err}
	fresh := readings{}
	listed := map[int]bool{}
	for _, s := range list {
		listed[s.ID] = true
		errs = append(errs, cannot("keep", s.ID, b.checkpoint(s, all, fresh)))
	}
	for id := range all { // one whose record cannot be read now
		if !listed[id] {
			b.carry(id, all, fresh)
		}
	}
	if len(fresh)+len(all) > 0 {
		text := seal(fresh)
		err := b.Replace(b.readingsPath(), text)
		if err == nil {
			b.readings.put(b.readingsPath(), cached[readings]{text: text, value: fresh})
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// checkpoint takes the reading of one virtual server into fresh, or into its account
// when that has to be written.
func (b *Book) checkpoint(s Source, all, fresh readings) error {
	now, err := s.take()
	if err != nil || now.Life == "" {
		b.carry(s.ID, all, fresh)
		return err
	}
	a, err := b.account(s.ID, all, now)
	if a == nil {
		return err
	}
	ended := b.ends.of(s.ID)
	a.took(now, ended)
	a.seen(now)
	a.tidy(s.Wanted)
	if a.dirty {
		if failed := b.save(s.ID, a); failed != nil {
			b.carry(s.ID, all, fresh)
			return errors.Join(err, failed)
		}
	}
	b.ends.drop(s.ID, ended)
	fresh.put(s.ID, a)
	return err
}

// carry takes over what the last checkpoint had of a virtual server.
func (b *Book) carry(id int, all, fresh readings) {
	if a, err := b.accounts.get(b.accountPath(id), b.Read, false); err == nil && a.Token == all[id].Token {
		fresh[id] = all[id]
	}
}

// Forget takes virtual servers that are destroyed out of the last checkpoint. The account of
// each is a file of its own, which goes with its directory: after Forget, for one that has no
// namespace any more is not written again.
func (b *Book) Forget(ctx context.Context, ids ...int) error {
	unlock, err := b.Lock(ctx)
	if err != nil {
		return cannotForget(err)
	}
	defer unlock()
	text, err := b.Read(b.readingsPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	body, ok := unsealText(text)
	if !ok {
		body = nil
	}
	if err == nil && !ok { // somebody may have indented it
		var all readings
		if all, err = b.all(); all != nil {
			body, _ = json.Marshal(all)
		}
	}
	if body == nil {
		return cannotForget(err)
	}
	rest := without(body, ids)
	switch {
	case len(rest) == len(body):
		return cannotForget(err)
	case string(rest) == "{}":
		return cannotForget(errors.Join(err, os.Remove(b.readingsPath())))
	}
	return cannotForget(errors.Join(err, b.Replace(b.readingsPath(), sealText(rest))))
}

func cannotForget(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot forget ledgers: %w", err)
}

func (r readings) put(id int, a *account) {
	e := r[id]
	e.Token, e.Last = a.Token, a.Last
	r[id] = e
}
