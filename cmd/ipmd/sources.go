package main

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/runtime"
	"github.com/vsrun/vsrun/stats"
)

// keep is a reader that keeps namespaces open, but none whose name is gone. As many
// as the process may: package os has raised its soft limit of descriptors to the hard one.
func keep(ctx context.Context, o options, log *slog.Logger) (*stats.Reader, error) {
	changes, err := nsutil.WatchMounts(ctx)
	if err != nil {
		return nil, err
	}
	r := &stats.Reader{Complete: ledgers(o, log)}
	go func() {
		for range changes {
			r.Recheck()
		}
	}()
	return r, nil
}

// ledgers adds to samples what was counted over all lives. What keeps it from that is
// logged once, until it is another thing.
func ledgers(o options, log *slog.Logger) func(*stats.Sample) {
	book := runtime.OpenStore(o.State).Ledgers()
	var said sync.Map // by the virtual server's ID
	return func(s *stats.Sample) {
		err := book.Tell(s)
		if err == nil {
			said.Delete(s.ID)
			return
		}
		if before, _ := said.Swap(s.ID, err.Error()); before != err.Error() {
			log.Error(err.Error())
		}
	}
}

// sources lists the enabled virtual servers. A record that cannot be read takes
// only its own virtual server's figures away, and is logged once.
func sources(o options, log *slog.Logger) func(context.Context) ([]stats.Source, error) {
	listing := runtime.OpenStore(o.State).Listing(o.Netns)
	var logged atomic.Pointer[string]
	return func(context.Context) ([]stats.Source, error) {
		list, err := listing.Sources()
		text := ""
		if err != nil {
			text = err.Error()
		}
		if was := logged.Swap(&text); err != nil && (was == nil || *was != text) {
			log.Warn("cannot list all virtual servers", "err", err)
		}
		return list, nil
	}
}
