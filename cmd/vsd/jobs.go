package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"github.com/vsrun/vsrun/runtime"
	"github.com/vsrun/vsrun/runtime/agent"
)

// A job is one of the things that vsd does, until ctx ends. What it can live with it
// logs; an error ends vsd, and systemd starts that again.
type job struct {
	name string
	run  func(ctx context.Context) error
}

// run runs all jobs until ctx ends or one of them fails. One vsd alone works on a
// state directory, and one in a run directory.
func run(ctx context.Context, r *runtime.Runtime, every time.Duration, log *slog.Logger) error {
	release, err := r.Store.BeAgent()
	if err != nil {
		return fmt.Errorf("cannot start: %w", err)
	}
	defer release()
	l, err := agent.Listen(ctx, r.RunDir)
	if err != nil {
		return fmt.Errorf("cannot start: %w", err)
	}
	defer l.Close()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // from before anybody can know that vsd is ready
	defer signal.Stop(hup)
	a := agent.New(r, log)
	jobs := []job{
		{"heal", a.Run},
		{"tell of events", func(ctx context.Context) error { return a.Serve(ctx, l) }},
		{"reload", func(ctx context.Context) error { return reload(ctx, hup, a, log) }},
		{"checkpoint", func(ctx context.Context) error { return checkpoint(ctx, r, every, log) }},
		{"watchdog", func(ctx context.Context) error { return watchdog(ctx, a) }},
		{"say the end", func(ctx context.Context) error { <-ctx.Done(); tell(daemon.SdNotifyStopping); return nil }},
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, j := range jobs {
		group.Go(func() error {
			if err := j.run(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("cannot %s: %w", j.name, err)
			}
			return nil
		})
	}
	log.Info("vsd is running", "state", r.StateDir, "run", r.RunDir, "netns", r.NetnsDir)
	tell(daemon.SdNotifyReady)
	return group.Wait()
}

// tell tells systemd, where it has started vsd (sd_notify(3)). Nobody else listens.
func tell(state string) { _, _ = daemon.SdNotify(false, state) }

// reload has everything looked at again at each SIGHUP.
func reload(ctx context.Context, hup <-chan os.Signal, a *agent.Agent, log *slog.Logger) error {
	for {
		select {
		case <-hup:
		case <-ctx.Done():
			return nil
		}
		tell(daemon.SdNotifyReloading)
		log.Info("looking at everything again")
		a.LookAtAll(ctx)
		tell(daemon.SdNotifyReady)
	}
}

// checkpoint writes down what virtual servers have counted, now, every now and then, and
// at the end. What fails is tried again at the next time.
func checkpoint(ctx context.Context, r *runtime.Runtime, every time.Duration, log *slog.Logger) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for said := ""; ; {
		err := r.Checkpoint(context.WithoutCancel(ctx))
		switch {
		case err == nil:
			said = ""
		case err.Error() != said: // once, and not at each time
			said = err.Error()
			log.Error("cannot write all that was counted", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return r.Checkpoint(context.WithoutCancel(ctx))
		}
	}
}

// watchdog tells systemd that the agent still takes what it is told, where systemd
// wants to hear that (WatchdogSec=).
func watchdog(ctx context.Context, a *agent.Agent) error {
	within, err := daemon.SdWatchdogEnabled(false)
	if err != nil || within == 0 {
		return err
	}
	tick := time.NewTicker(within / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if a.Answers(ctx) {
			tell(daemon.SdNotifyWatchdog)
		}
	}
}
