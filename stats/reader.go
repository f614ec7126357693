package stats

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil/cgroup"
)

// A Source is a virtual server to read, the file that its network namespace is
// published at, and where the host has its cgroups.
type Source struct {
	ID     int
	Name   string
	Path   string
	Groups *cgroup.Tree // nil: none
}

// Read reads the counters of a virtual server once, and keeps nothing open. Without
// its namespace the error is fs.ErrNotExist, and only then.
func Read(src Source) (Sample, error) {
	var r Reader
	defer r.Close()
	var s Sample
	if err := r.Read(src, &s); err != nil {
		return Sample{}, err
	}
	return s, nil
}

// A Reader keeps open what it has opened of each namespace, and reads that again.
// The zero value is ready. It is safe for concurrent use: several sources are read
// at the same time, one by one at a time.
//
// What it keeps open keeps the namespace alive, even when its name is gone. So who
// keeps a Reader calls Recheck at each event of nsutil.WatchMounts.
//
// It keeps as many files open as half of RLIMIT_NOFILE allows. What is beyond that is
// opened and closed each time it is read.
type Reader struct {
	bulk atomic.Pointer[Bulk]

	// Complete, where there is one, adds to each sample what its namespace does not say.
	Complete func(*Sample)

	words vocabulary

	mu    sync.Mutex
	kept  map[string]*namespace // by path; those that are closed are among them
	files int                   // open ones
	reads uint64
	spare []*parser
}

// Read reads the counters of a virtual server into s, whose memory it uses again: what
// was taken from an earlier reading into s is changed. In the steady state it allocates
// nothing. Without the namespace the error is fs.ErrNotExist, and only then. After an
// error s is of no use but for the next Read.
func (r *Reader) Read(src Source, s *Sample) error {
	return r.readBy(src, s, func(*namespace, *Sample) Parts { return 0 })
}

func (r *Reader) readBy(src Source, s *Sample, bulk func(*namespace, *Sample) Parts) error {
	if err := r.read(src, s, bulk); err != nil {
		return fmt.Errorf("cannot read the counters of vs%d: %w", src.ID, err)
	}
	if r.Complete != nil {
		r.Complete(s)
	}
	return nil
}

func (r *Reader) read(src Source, s *Sample, bulk func(*namespace, *Sample) Parts) error {
	ns, err := r.namespace(src.Path)
	if err != nil {
		return err
	}
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if err := r.open(ns); err != nil {
		return err
	}
	defer r.settle(ns)
	p := r.borrow()
	defer r.giveBack(p)
	s.ID, s.Name, s.Time = src.ID, src.Name, time.Now().UTC()
	if err := ns.read(s, p, bulk); err != nil {
		// A file that is open goes with the module that made it: EIO.
		r.close(ns)
		if err := r.open(ns); err != nil {
			return err
		}
		if err := ns.read(s, p, bulk); err != nil {
			return err
		}
	}
	s.Life = ns.life
	ns.account(s, src.Groups, p)
	return nil
}

// open opens the files, unless what is open is still what has the name.
func (r *Reader) open(ns *namespace) error {
	for !ns.current() {
		r.close(ns)
		err := ns.openFiles()
		for errors.Is(err, unix.EMFILE) && r.shed() {
			err = ns.openFiles()
		}
		if err != nil {
			return err
		}
		// The name is looked at again: a Recheck that was called when it went, just
		// now, may have found nothing open yet.
	}
	return nil
}

func (r *Reader) namespace(path string) (*namespace, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ns := r.kept[path]
	if ns == nil {
		var err error
		if ns, err = newNamespace(path); err != nil {
			return nil, err
		}
		if r.kept == nil {
			r.kept = make(map[string]*namespace)
		}
		r.kept[path] = ns
	}
	r.reads++
	ns.last = r.reads
	return ns, nil
}

// count tells the Reader how many files a namespace has open; false when they are as
// many as they were.
func (r *Reader) count(ns *namespace) bool {
	n := ns.files()
	if n == ns.held {
		return false
	}
	r.mu.Lock()
	r.files += n - ns.held
	r.mu.Unlock()
	ns.held = n
	return true
}

// settle decides whether what was read stays open. Nothing else is closed for it: where
// all are read in turn, what was not read for longest is wanted next.
func (r *Reader) settle(ns *namespace) {
	if !r.count(ns) {
		return
	}
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	r.mu.Lock()
	full := err == nil && uint64(r.files) > limit.Cur/2
	r.mu.Unlock()
	if full {
		r.close(ns)
	}
}

func (r *Reader) close(ns *namespace) {
	ns.close()
	r.count(ns)
}

// shed closes the namespace that was not read for longest, since the process has no
// descriptors left; false when there is none.
func (r *Reader) shed() bool {
	r.mu.Lock()
	all := slices.SortedFunc(maps.Values(r.kept), func(a, b *namespace) int { return cmp.Compare(a.last, b.last) })
	r.mu.Unlock()
	for _, ns := range all {
		if !ns.mu.TryLock() { // it is being read, perhaps by the caller
			continue
		}
		had := ns.files() > 0
		r.close(ns)
		ns.mu.Unlock()
		if had {
			return true
		}
	}
	return false
}

// Recheck closes the namespaces whose name is gone or leads to another one now.
func (r *Reader) Recheck() {
	r.each(func(ns *namespace) bool { return !ns.current() })
}

// Forget closes the namespace that was published at path.
func (r *Reader) Forget(path string) {
	r.each(func(ns *namespace) bool { return ns.path == path })
}

// Close closes everything. What is read after that is opened again.
func (r *Reader) Close() error {
	r.each(func(*namespace) bool { return true })
	return nil
}

// each closes what is to be closed, after a reading of it that is under way.
func (r *Reader) each(closes func(*namespace) bool) {
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.kept))
	r.mu.Unlock()
	for _, ns := range all {
		ns.mu.Lock()
		if ns.files() > 0 && closes(ns) {
			r.close(ns)
		}
		ns.mu.Unlock()
	}
}

// borrow is a parser that nobody else uses: there are as many as readings at a time.
func (r *Reader) borrow() *parser {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.spare)
	if n == 0 {
		return &parser{words: &r.words}
	}
	p := r.spare[n-1]
	r.spare = r.spare[:n-1]
	return p
}

func (r *Reader) giveBack(p *parser) {
	r.mu.Lock()
	r.spare = append(r.spare, p)
	r.mu.Unlock()
}
