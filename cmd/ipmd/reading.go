package main

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/stats"
	"github.com/vsrun/vsrun/stats/ebpf"
	"github.com/vsrun/vsrun/stats/ipmd"
)

// reading is how counters are read, and why so.
type reading struct {
	reader *stats.Reader
	log    *slog.Logger

	loading sync.Mutex // who loads the program

	mu   sync.Mutex
	bulk *ebpf.Reader // nil: none
	err  error        // why there is none
}

var (
	errTold = errors.New("the configuration says so")
	errIdle = errors.New("nobody has asked for many yet")
)

// prepare loads the program where it must be had.
func (r *reading) prepare(how string) error {
	if how != ipmd.ReadEBPF {
		return nil
	}
	return r.load()
}

// settle has counters read so from now on: by eBPF once somebody asks for many. The kernel
// takes a tenth of a second and more to check the program, which nobody need wait for.
func (r *reading) settle(how string) {
	if how != ipmd.ReadProc {
		if way, _ := r.by(); way != ipmd.ReadEBPF {
			r.reader.Use(&first{r: r})
		}
		return
	}
	r.loading.Lock()
	defer r.loading.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != errTold {
		r.log.Info("counters are read from /proc", "why", errTold)
	}
	r.take(nil, errTold)
}

// load has the program used, unless it is already.
func (r *reading) load() error {
	r.loading.Lock()
	defer r.loading.Unlock()
	if way, _ := r.by(); way == ipmd.ReadEBPF {
		return nil
	}
	bulk, err := ebpf.Open()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.take(bulk, err)
	if err != nil {
		r.log.Info("counters are read from /proc", "why", err)
		return err
	}
	bulk.Failed = func(err error) {
		r.log.Warn("counters are read from /proc again, until ipmd is reloaded", "why", err)
	}
	r.reader.Use(bulk)
	r.log.Info("counters of many are read by eBPF, and what it does not know from /proc")
	return nil
}

// A first is used until somebody asks for many, and reads nothing.
type first struct {
	r    *reading
	once sync.Once
}

func (f *first) Want(nsutil.ID) { f.once.Do(func() { go f.r.load() }) }

func (f *first) Read(nsutil.ID, uint64, time.Time, *stats.Sample) stats.Parts { return 0 }

// take replaces the program that there is.
func (r *reading) take(bulk *ebpf.Reader, err error) {
	r.reader.Use(nil)
	if r.bulk != nil {
		r.bulk.Close()
	}
	r.bulk, r.err = bulk, err
}

// by is for ipmd.Server.
func (r *reading) by() (way, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.err
	switch {
	case r.bulk != nil:
		err = r.bulk.Err()
	case err == nil:
		err = errIdle
	}
	if err != nil {
		return ipmd.ReadProc, err.Error()
	}
	return ipmd.ReadEBPF, ""
}
