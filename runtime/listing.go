package runtime

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/stats"
)

// A Listing is what Store.Sources lists, for those who ask often: a record is read
// again only when the kernel tells that it has changed (inotify(7)). What was written
// before a call is in its answer.
type Listing struct {
	store    *Store
	netnsDir string

	mu      sync.Mutex
	inotify int         // -1: nothing is watched
	watched fs.FileInfo // the state directory that is
	records map[int]listed
	groups  *cgroup.Tree
	sources []stats.Source
	err     error
}

// A listed is a record as it was read last.
type listed struct {
	vs  VirtualServer
	err error
}

// Listing lists the store's virtual servers, which are published in netnsDir.
func (s *Store) Listing(netnsDir string) *Listing {
	return &Listing{store: s, netnsDir: netnsDir, inotify: -1}
}

// Sources are those of Store.Sources. It is the same slice until something changes.
func (l *Listing) Sources() ([]stats.Source, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	dir, err := os.Stat(l.store.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.unwatch()
		return nil, nil
	case err != nil:
		return nil, err
	}
	if l.watched != nil && os.SameFile(dir, l.watched) {
		if ids, ok := l.changed(); ok {
			l.reread(ids)
			return l.sources, l.err
		}
	}
	l.unwatch()
	if l.watch() == nil { // else everything is read each time
		l.watched = dir
	}
	return l.readAll()
}

// Close ends the watch.
func (l *Listing) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unwatch()
}

func (l *Listing) watch() (err error) {
	if l.inotify, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		return err
	}
	_, err = unix.InotifyAddWatch(l.inotify, l.store.dir, unix.IN_ONLYDIR|
		unix.IN_CREATE|unix.IN_CLOSE_WRITE|unix.IN_ATTRIB|unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_MOVED_TO)
	return err
}

func (l *Listing) unwatch() {
	if l.inotify >= 0 {
		unix.Close(l.inotify)
	}
	l.inotify, l.watched = -1, nil
}

// changed is whose records may have changed; false when the kernel has lost count.
func (l *Listing) changed() (ids map[int]bool, ok bool) {
	ids = make(map[int]bool)
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(l.inotify, buf)
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

func (l *Listing) reread(ids map[int]bool) {
	if len(ids) == 0 {
		return
	}
	for id := range ids {
		vs, err := l.store.Load(id)
		if errors.Is(err, ErrNotFound) {
			delete(l.records, id)
			continue
		}
		l.records[id] = listed{vs, err}
	}
	l.list()
}

func (l *Listing) readAll() ([]stats.Source, error) {
	entries, err := os.ReadDir(l.store.dir)
	if err != nil {
		l.unwatch()
		return nil, err
	}
	l.groups, l.records = cgroup.Find(), make(map[int]listed)
	ids := map[int]bool{}
	for _, e := range entries {
		if id, _ := RecordOf(e.Name()); id != 0 {
			ids[id] = true
		}
	}
	l.sources, l.err = nil, nil
	l.reread(ids)
	return l.sources, l.err
}

// list makes the answer of the records.
func (l *Listing) list() {
	var sources []stats.Source
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(l.records)) {
		r := l.records[id]
		if r.err != nil {
			errs = append(errs, r.err)
		} else if !r.vs.Disabled {
			sources = append(sources, l.store.source(r.vs, l.netnsDir, l.groups))
		}
	}
	l.sources, l.err = sources, errors.Join(errs...)
}

func (s *Store) source(vs VirtualServer, netnsDir string, groups *cgroup.Tree) stats.Source {
	place := plumbing.Place{Dir: netnsDir, Name: vs.Namespace()}
	return stats.Source{ID: vs.ID, Name: vs.Title(), Path: place.Path(), Groups: groups}
}
