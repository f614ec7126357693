package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/vsrun/vsrun/stats/ipmd"
	"github.com/vsrun/vsrun/stats/push"
)

const defaultConfig = "/etc/vsrun/ipmd.yaml"

// readConfig reads the configuration file. The one that nobody has asked for
// need not be there.
func (o options) readConfig() (ipmd.Config, error) {
	f, err := os.Open(o.config)
	if errors.Is(err, fs.ErrNotExist) && o.config == defaultConfig {
		return ipmd.DefaultConfig(), nil
	}
	if err != nil {
		return ipmd.Config{}, fmt.Errorf("cannot read the configuration: %w", err)
	}
	defer f.Close()
	config, err := ipmd.ReadConfig(f, o.config)
	if err != nil {
		return ipmd.Config{}, fmt.Errorf("cannot use the configuration: %w", err)
	}
	return config, nil
}

// onHangup calls reload at each SIGHUP until stop.
func onHangup(reload func()) (stop func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		for range hangup {
			reload()
		}
	}()
	return func() { signal.Stop(hangup); close(hangup) }
}

// reload has the server take the file as it is now. A bad one changes nothing.
func (o options) reload(server *ipmd.Server, reading *reading, pushing *pushing, log *slog.Logger) {
	config, err := o.readConfig()
	if err == nil {
		err = configure(server, reading, pushing, config, log)
	}
	if err != nil {
		log.Error("the configuration stays as it was", "err", err)
		return
	}
	log.Info("the configuration was read again", "file", o.config)
}

// configure has everything go by a configuration, or nothing.
func configure(server *ipmd.Server, reading *reading, pushing *pushing, config ipmd.Config, log *slog.Logger) error {
	pusher, err := push.New(config.Push, server.WriteMetrics, log)
	if err != nil {
		return err
	}
	if err := reading.prepare(config.Reader); err != nil {
		return err
	}
	if err := server.Configure(config); err != nil {
		return err
	}
	reading.settle(config.Reader)
	pushing.start(pusher)
	return nil
}
