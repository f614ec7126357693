package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/stats/ledger"
)

// A Store keeps what virtual servers should be, one JSON file each. Files are
// replaced atomically and synced, so that a crash leaves the old or the new.
type Store struct {
	dir     string
	spare   string // where to lock what is read-only; "" for nowhere
	ledgers func() *ledger.Book
	memory  atomic.Pointer[memory] // nil: everything is read each time
}

// ErrNotFound is a virtual server that the store does not have.
var ErrNotFound = errors.New("no such virtual server")

// OpenStore is the store in a directory, which is made when something is to be
// kept in it.
func OpenStore(dir string) *Store {
	s := &Store{dir: dir}
	s.ledgers = sync.OnceValue(s.newBook)
	return s
}

func (s *Store) path(id int) string { return filepath.Join(s.dir, fmt.Sprintf("vs%d.json", id)) }

// fresh is where a record is written before it takes the place of the old one.
// The name is the same each time: a crash leaves one file, which the next
// writing takes over.
func (s *Store) fresh(id int) string { return filepath.Join(s.dir, fmt.Sprintf(".vs%d.json.new", id)) }

// Load returns one virtual server, or ErrNotFound.
func (s *Store) Load(id int) (VirtualServer, error) {
	text, err := readRecord(s.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return VirtualServer{}, fmt.Errorf("%w: vs%d", ErrNotFound, id)
	}
	var vs VirtualServer
	if err == nil {
		vs, err = decodeRecord(text)
	}
	if err == nil && vs.ID != id {
		err = fmt.Errorf("it is the record of vs%d", vs.ID)
	}
	if err != nil {
		return VirtualServer{}, &plumbing.Refusal{
			Err:  fmt.Errorf("cannot use the record %s: %w", s.path(id), err),
			Cure: "it is left as it is: mend it, or move it away and create the virtual server again",
		}
	}
	return vs, nil
}

// hold is Load of one that nobody else changes until unlock.
func (s *Store) hold(ctx context.Context, id int) (vs VirtualServer, unlock func(), err error) {
	if unlock, err = s.lock(ctx, id); err != nil {
		return vs, nil, err
	}
	return s.held(id, unlock)
}

// tryHold is hold for who does not wait: ErrBusy.
func (s *Store) tryHold(id int) (vs VirtualServer, unlock func(), err error) {
	if unlock, err = s.tryLock(id); err != nil {
		return vs, nil, err
	}
	return s.held(id, unlock)
}

func (s *Store) held(id int, unlock func()) (VirtualServer, func(), error) {
	vs, err := s.Load(id)
	if err != nil {
		unlock()
		return vs, nil, err
	}
	return vs, unlock, nil
}

// maxRecord is more than what any document becomes.
const maxRecord = 16 << 20

// readRecord reads a file that may be anything that somebody has put there: a pipe would
// wait for its writer, and a large file take all memory.
func readRecord(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !fi.Mode().IsRegular():
		return nil, errors.New("it is no file")
	case fi.Size() > maxRecord:
		return nil, fmt.Errorf("it has %d bytes", fi.Size())
	}
	text := bytes.NewBuffer(make([]byte, 0, fi.Size()+bytes.MinRead))
	_, err = text.ReadFrom(f)
	return text.Bytes(), err
}

func decodeRecord(text []byte) (VirtualServer, error) {
	var vs VirtualServer
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&vs); err != nil {
		return vs, fmt.Errorf("it is no whole record: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return vs, errors.New("something follows the record")
	}
	if problems := slices.Concat(vs.Validate(), vs.whole().Validate()); len(problems) > 0 {
		return vs, problems[0].Err
	}
	if before := vs.Before; before != nil && (before.ID != vs.ID || before.Before != nil) {
		return vs, errors.New("what it was before is another one")
	}
	return vs, nil
}

// List returns all virtual servers in the order of their numbers. Those that
// cannot be read are left out and named in the error.
func (s *Store) List() ([]VirtualServer, error) {
	if m := s.memory.Load(); m != nil {
		return m.list()
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the state directory: %w", err)
	}
	var list []VirtualServer
	var errs []error
	for _, e := range entries {
		id, _ := RecordOf(e.Name())
		if id == 0 {
			continue
		}
		vs, err := s.Load(id)
		if errors.Is(err, ErrNotFound) { // destroyed since
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, vs)
	}
	slices.SortFunc(list, func(a, b VirtualServer) int { return a.ID - b.ID })
	return list, errors.Join(errs...)
}

// RecordOf is whose record a file of the state directory is: a virtual server's, or a
// port's, or nobody's.
func RecordOf(file string) (id int, port string) {
	name, ok := strings.CutSuffix(file, ".json")
	if !ok {
		return 0, ""
	}
	if port, ok := strings.CutPrefix(name, "port-"); ok {
		return 0, port
	}
	return numberOf(name), ""
}

// Find resolves what people call a virtual server: 8, vs8 or its name.
func (s *Store) Find(word string) (int, error) {
	if word == "" { // a script's variable that is not set
		return 0, fmt.Errorf("%w: the ID is empty", ErrNotFound)
	}
	if isNumber(word) {
		id, err := strconv.Atoi(strings.TrimPrefix(strings.ToLower(word), "vs"))
		if err != nil || id < 1 || id > MaxID {
			return 0, fmt.Errorf("%w: %s (ids are 1 to %d)", ErrNotFound, word, MaxID)
		}
		return id, nil
	}
	list, err := s.List()
	for _, vs := range list {
		if strings.EqualFold(vs.Title(), word) {
			return vs.ID, nil
		}
	}
	return 0, errors.Join(fmt.Errorf("%w: %s", ErrNotFound, word), err)
}

// claim stores a virtual server unless another one has what it wants.
func (s *Store) claim(ctx context.Context, vs VirtualServer, machineID string) error {
	unlock, err := s.lock(ctx, whole)
	if err != nil {
		return err
	}
	defer unlock()
	if m := s.memory.Load(); m != nil {
		if err := m.refuse(vs, machineID); err != nil {
			return err
		}
		return s.save(vs)
	}
	v, err := s.survey(vs, machineID)
	if err == nil {
		err = v.refuse(vs)
	}
	if err != nil {
		return err
	}
	if err := s.save(vs); err != nil {
		return err
	}
	v.keep() // last, for it must not take the record's room
	return nil
}

// free reports whose it is when another virtual server has what vs wants.
func (s *Store) free(vs VirtualServer, machineID string) error {
	if m := s.memory.Load(); m != nil {
		return m.refuse(vs, machineID)
	}
	v, err := s.survey(vs, machineID)
	if err != nil {
		return err
	}
	return v.refuse(vs)
}

// free is the same among others.
func free(vs VirtualServer, others []VirtualServer, machineID string) error {
	all := claims{}
	for _, other := range others {
		all.add(other, machineID)
	}
	return all.refuse(vs, machineID)
}

// record is a virtual server as it is stored, with defaults left out.
func (vs VirtualServer) record() []byte {
	vs.Interfaces = slices.Clone(vs.Interfaces)
	for k := range vs.Interfaces {
		vs.Interfaces[k] = vs.Interfaces[k].Canonical()
	}
	if vs.Name == vs.Namespace() {
		vs.Name = ""
	}
	text, err := json.MarshalIndent(vs, "", "  ")
	if err != nil {
		panic(err) // all of its types can be marshalled
	}
	return append(text, '\n')
}

func (s *Store) save(vs VirtualServer) error {
	return s.write(vs.String(), s.fresh(vs.ID), s.path(vs.ID), vs.record())
}

// write replaces the record of what is named. After an error the old one is there.
func (s *Store) write(what, fresh, path string, text []byte) error {
	if err := replaceFile(fresh, path, text); err != nil {
		return fmt.Errorf("cannot store %s: %w", what, err)
	}
	return nil
}

// replaceFile gives a file new contents, on the disk when it returns, or leaves it as it
// was. They are written as fresh before. What it has already takes no room, and nothing
// that can be written.
func replaceFile(fresh, path string, text []byte) error {
	old, err := readRecord(path)
	if err == nil && bytes.Equal(old, text) {
		return settle(filepath.Dir(path)) // who wrote it may have died before
	}
	first := errors.Is(err, fs.ErrNotExist)
	if err == nil || first {
		err = writeSynced(fresh, text)
	}
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		os.Remove(fresh)
		return err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return errors.Join(err, goBack(first, fresh, path, old))
	}
	return nil
}

// goBack puts the old record where the new one is that a power cut could take away.
func goBack(first bool, fresh, path string, old []byte) error {
	if first {
		return os.Remove(path)
	}
	if err := writeSynced(fresh, old); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// writeSynced writes a new file to the disk.
func writeSynced(path string, text []byte) error {
	f, err := createNew(path)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// createNew makes a new file: what a crash has left of the name may be anything.
func createNew(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
}

// forget removes a virtual server's record. Absent already is success.
func (s *Store) forget(id int) error { return s.remove(s.fresh(id), s.path(id)) }

func (s *Store) remove(paths ...string) error {
	if err := unlink(paths...); err != nil {
		return err
	}
	return s.sync()
}

// unlink is remove for who syncs later.
func unlink(paths ...string) error {
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (s *Store) sync() error { return syncDir(s.dir) }

// settle has what is stored already on the disk: who was killed before may have written it,
// and renamed it, but not synced.
func (s *Store) settle() error {
	if m := s.memory.Load(); m != nil {
		return m.settle()
	}
	return settle(s.dir)
}

// settle is syncDir for what was not written now, and may be read-only.
func settle(dir string) error {
	err := syncDir(dir)
	if errors.Is(err, unix.EROFS) {
		return nil
	}
	return err
}

// syncDir makes the directory's entries survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
