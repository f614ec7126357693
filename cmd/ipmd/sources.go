package main

import (
	"context"
	"log/slog"

	"github.com/vsrun/vsrun/runtime"
	"github.com/vsrun/vsrun/stats"
)

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
