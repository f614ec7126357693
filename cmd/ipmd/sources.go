package main

import (
	"context"
	"log/slog"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/runtime"
	"github.com/vsrun/vsrun/stats"
)

// keep is a reader that keeps namespaces open, but none whose name is gone. As many
// as the process may: package os has raised its soft limit of descriptors to the hard one.
func keep(ctx context.Context) (*stats.Reader, error) {
	changes, err := nsutil.WatchMounts(ctx)
	if err != nil {
		return nil, err
	}
	r := new(stats.Reader)
	go func() {
		for range changes {
			r.Recheck()
		}
	}()
	return r, nil
}

// sources lists the enabled virtual servers. A record that cannot be read takes
// only its own virtual server's figures away.
func sources(o options, log *slog.Logger) func(context.Context) ([]stats.Source, error) {
	store := runtime.OpenStore(o.stateDir)
	return func(context.Context) ([]stats.Source, error) {
		list, err := store.Sources(o.netnsDir)
		if err != nil {
			log.Warn("cannot list all virtual servers", "err", err)
		}
		return list, nil
	}
}
