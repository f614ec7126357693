package ebpf

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/stats"
)

//go:embed counters.bpf.o
var object []byte

// atOnce is how many namespaces are read, for each processor that has counters, before the
// kernel may do something else on this one: half a millisecond or so.
const atOnce = 1024

// A Reader reads namespaces at once. It is safe for concurrent use.
type Reader struct {
	// Failed is told, once, why nothing is read any more. It is set before the first use.
	Failed func(error)

	form *form
	most uint64 // namespaces in one run of the program

	mu     sync.RWMutex // for writing: who runs the program
	loaded *loaded
	index  map[uint32]spot // by a namespace's inode
	run    uint64          // the last one
	began  time.Time       // the last one
	failed error
}

// A spot is where a namespace is read to: the record's number, and the last run before it
// was wanted.
type spot struct {
	record uint32
	wanted uint64
}

// Open loads the program, and compares what it says of the calling process's namespace
// with what /proc says. Why it cannot be used is an error.
func Open() (*Reader, error) {
	r, err := open()
	if err != nil {
		return nil, fmt.Errorf("cannot read counters by eBPF: %w", explain(err))
	}
	return r, nil
}

// explain leaves out what only the verifier's developers understand.
func explain(err error) error {
	if errors.Is(err, unix.EPERM) {
		return errors.New("it takes the capabilities CAP_BPF and CAP_PERFMON")
	}
	if v, ok := errors.AsType[*ebpf.VerifierError](err); ok && len(v.Log) > 0 {
		return fmt.Errorf("the kernel refuses the program: %s", strings.TrimSpace(v.Log[max(0, len(v.Log)-2)]))
	}
	return err
}

func open() (*Reader, error) {
	places, err := places()
	if err != nil {
		return nil, err
	}
	l, err := load(1024)
	if err != nil {
		return nil, err
	}
	r := &Reader{loaded: l, index: make(map[uint32]spot), most: max(16, atOnce/uint64(len(l.cpus)))}
	if err := r.compare(places); err != nil {
		l.close()
		return nil, err
	}
	return r, nil
}

// Err is why it reads nothing any more; nil while it does.
func (r *Reader) Err() error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.failed
}

// Close takes the program out of the kernel. Nothing can be read afterwards.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.loaded != nil {
		r.loaded.close()
	}
	r.loaded, r.failed = nil, errors.New("it is closed")
	return nil
}

// Read is [stats.Bulk]'s.
func (r *Reader) Read(id nsutil.ID, cookie uint64, since time.Time, s *stats.Sample) (has stats.Parts) {
	r.mu.RLock()
	defer func() { r.mu.RUnlock() }()
	if r.failed != nil {
		return 0
	}
	if r.began.Before(since) {
		r.mu.RUnlock()
		r.refresh(id, since)
		r.mu.RLock()
	}
	record := r.record(id)
	if record == nil || cookie != 0 && record.cookie != cookie {
		return 0
	}
	if record.lacks&noLinks == 0 {
		fillLinks(s, record)
		has |= stats.InterfacesPart
	}
	if record.lacks&(noMIB|noMessages) == 0 {
		r.form.fill(&s.MIB, record)
		has |= stats.MIBPart
	}
	if has != 0 {
		s.Time = r.began.UTC()
	}
	return has
}

// record is what was read of a namespace in the last run, nil when that did not meet it.
func (r *Reader) record(id nsutil.ID) *record {
	if r.failed != nil {
		return nil
	}
	p, ok := r.index[uint32(id.Inode())]
	if !ok {
		return nil
	}
	if record := r.loaded.record(p.record); record.run == r.run {
		return record
	}
	return nil
}

// refresh runs the program, unless somebody has since. A namespace that it does not know it
// reads from the next run on: of many that are new each would take a run otherwise.
func (r *Reader) refresh(id nsutil.ID, since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil && r.began.Before(since) {
		r.fail(r.runAll())
	}
}

// Want has a namespace read from the next run on.
func (r *Reader) Want(id nsutil.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	inode := uint32(id.Inode())
	if _, ok := r.index[inode]; ok || r.failed != nil {
		return
	}
	r.fail(r.want(inode))
}

// fail keeps why nothing is read any more.
func (r *Reader) fail(err error) {
	r.failed = err
	if err != nil && r.Failed != nil {
		go r.Failed(err) // who may ask this Reader
	}
}

func (r *Reader) want(inode uint32) error {
	k, ok := r.loaded.unused()
	if !ok {
		r.sweep()
		k, ok = r.loaded.unused()
	}
	if !ok {
		if err := r.grow(); err != nil {
			return err
		}
		k, _ = r.loaded.unused()
	}
	if err := r.loaded.wanted.Put(inode, k); err != nil {
		return err
	}
	r.index[inode] = spot{k, r.run}
	return nil
}

// sweep wants those no more that the last run has not met.
func (r *Reader) sweep() {
	for inode, p := range r.index {
		if p.wanted < r.run && r.loaded.record(p.record).run != r.run && r.loaded.wanted.Delete(inode) == nil {
			delete(r.index, inode)
			r.loaded.free = append(r.loaded.free, p.record)
		}
	}
}

// grow has room for twice as many.
func (r *Reader) grow() error {
	l, err := load(2 * r.loaded.size)
	if err != nil {
		return err
	}
	r.loaded.close()
	r.loaded = l
	all := r.index
	r.index, r.began = make(map[uint32]spot), time.Time{}
	for inode := range all {
		if err := r.want(inode); err != nil {
			return err
		}
	}
	return nil
}

// runAll reads all that are wanted.
func (r *Reader) runAll() error {
	began := time.Now()
	r.run++
	for skip := uint64(0); ; {
		seen, err := r.loaded.run(r.run, skip, r.most)
		if err != nil {
			return err
		}
		if seen == 0 {
			break
		}
		skip = uint64(seen)
	}
	r.began = began
	return nil
}

func fillLinks(s *stats.Sample, r *record) {
	s.Interfaces, s.Total = s.Interfaces[:0], stats.Counters{}
	for k := range min(int(r.links), len(r.link)) {
		l := &r.link[k]
		name, _, _ := bytes.Cut(l.name[:], []byte{0})
		s.Add(name, stats.Counters{
			RxBytes: l.rxBytes, RxPackets: l.rxPackets, RxErrors: l.rxErrors, RxDropped: l.rxDropped,
			TxBytes: l.txBytes, TxPackets: l.txPackets, TxErrors: l.txErrors, TxDropped: l.txDropped,
		})
	}
}

const recordSize = int(unsafe.Sizeof(record{}))
