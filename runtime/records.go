package runtime

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Records are those of a store for who asks often: one is read again only when the kernel
// tells that it has changed (inotify(7)). What was written before an update is in it.
type records struct {
	store   *Store
	inotify int         // -1: nothing is watched
	watched fs.FileInfo // the state directory that is
	byID    map[int]listed
}

// A listed is a record as it was read last.
type listed struct {
	vs  VirtualServer
	err error
}

func newRecords(s *Store) records { return records{store: s, inotify: -1, byID: map[int]listed{}} }

// update returns what the records were that have changed, by their IDs.
func (r *records) update() (old map[int]listed, err error) {
	old = map[int]listed{}
	dir, err := os.Stat(r.store.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.unwatch()
		old, r.byID = r.byID, map[int]listed{}
		return old, nil
	case err != nil:
		return nil, err
	}
	if r.watched != nil && os.SameFile(dir, r.watched) {
		if ids, ok := r.changed(); ok {
			r.read(ids, old)
			return old, nil
		}
	}
	r.unwatch()
	if r.watch() == nil { // else everything is read each time
		r.watched = dir
	}
	entries, err := os.ReadDir(r.store.dir)
	if err != nil {
		r.unwatch()
		return nil, err
	}
	ids := map[int]bool{}
	for id := range r.byID {
		ids[id] = true
	}
	for _, e := range entries {
		if id, _ := RecordOf(e.Name()); id != 0 {
			ids[id] = true
		}
	}
	r.read(ids, old)
	return old, nil
}

func (r *records) read(ids map[int]bool, old map[int]listed) {
	for id := range ids {
		old[id] = r.byID[id]
		vs, err := r.store.Load(id)
		if errors.Is(err, ErrNotFound) {
			delete(r.byID, id)
			continue
		}
		r.byID[id] = listed{vs, err}
	}
}

// list is all of them in the order of their numbers, and what keeps others from being read.
func (r *records) list() ([]VirtualServer, error) {
	var list []VirtualServer
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(r.byID)) {
		if one := r.byID[id]; one.err != nil {
			errs = append(errs, one.err)
		} else {
			list = append(list, one.vs)
		}
	}
	return list, errors.Join(errs...)
}

func (r *records) watch() (err error) {
	if r.inotify, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		return err
	}
	_, err = unix.InotifyAddWatch(r.inotify, r.store.dir, unix.IN_ONLYDIR|
		unix.IN_CREATE|unix.IN_CLOSE_WRITE|unix.IN_ATTRIB|unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_MOVED_TO)
	return err
}

func (r *records) unwatch() {
	if r.inotify >= 0 {
		unix.Close(r.inotify)
	}
	r.inotify, r.watched = -1, nil
}

// changed is whose records may have changed; false when the kernel has lost count.
func (r *records) changed() (ids map[int]bool, ok bool) {
	ids = make(map[int]bool)
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(r.inotify, buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return ids, true
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, false
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			mask, size := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
			if mask&(unix.IN_Q_OVERFLOW|unix.IN_IGNORED|unix.IN_UNMOUNT) != 0 {
				return nil, false
			}
			name := b[unix.SizeofInotifyEvent:][:size]
			b = b[unix.SizeofInotifyEvent+size:]
			if id, _ := RecordOf(string(bytes.TrimRight(name, "\x00"))); id != 0 {
				ids[id] = true
			}
		}
	}
}
