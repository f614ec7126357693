package push

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"
)

// A Pusher pushes metrics at each interval.
type Pusher struct {
	config  Config
	client  *http.Client
	metrics func(context.Context, io.Writer) error
	log     *slog.Logger
}

// New makes one that pushes what metrics writes: all metrics, in the Prometheus text
// format, without times. The log is told when pushing begins to fail, when it works
// again, and what was lost. The errors are those of the certificates' files.
func New(c Config, metrics func(context.Context, io.Writer) error, log *slog.Logger) (*Pusher, error) {
	client, err := c.client()
	if err != nil {
		return nil, fmt.Errorf("cannot push to %s: %w", c.URL, err)
	}
	return &Pusher{c, client, metrics, log}, nil
}

// Same tells whether both push in the same way, and believe the same authorities.
func (p *Pusher) Same(other *Pusher) bool {
	return reflect.DeepEqual(p.config, other.config) && p.authorities().Equal(other.authorities())
}

func (p *Pusher) authorities() *x509.CertPool {
	return p.client.Transport.(*http.Transport).TLSClientConfig.RootCAs
}

// Run pushes until ctx ends; without a URL it returns at once. What cannot be sent
// waits, in order, in bounded memory; what the receiver refuses for good is left out.
func (p *Pusher) Run(ctx context.Context) {
	if p.config.URL == "" {
		return
	}
	defer p.client.CloseIdleConnections()
	waiting := newQueue(maxQueue)
	var both sync.WaitGroup
	both.Go(func() { p.collect(ctx, waiting) })
	both.Go(func() { (&sender{Config: p.config, client: p.client, waiting: waiting, log: p.log}).run(ctx) })
	both.Wait()
	if n := waiting.losses() + len(waiting.batches); n > 0 {
		p.log.Warn("pushes that waited are lost", "pushes", n, "url", p.config.URL)
	}
}

func (p *Pusher) collect(ctx context.Context, waiting *queue) {
	interval := p.config.Interval
	if interval == 0 {
		interval = DefaultInterval
	}
	labels := p.config.labels()
	next := time.NewTicker(interval)
	defer next.Stop()
	for {
		w := newRequestWriter(labels, time.Now())
		err := p.metrics(ctx, w)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			p.log.Error("cannot push", "err", err)
		case waiting.put(w.finish()):
			p.log.Warn("too many pushes wait: the oldest are lost from now on", "url", p.config.URL)
		}
		select {
		case <-next.C:
		case <-ctx.Done():
			return
		}
	}
}

// labels are those that are added to every series.
func (c Config) labels() []label {
	all := map[string]string{"job": "vsrun"}
	if host, err := os.Hostname(); err == nil {
		all["instance"] = host
	}
	maps.Copy(all, c.Labels)
	var list []label
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, label{[]byte(name), []byte(all[name])})
	}
	return list
}

// pause waits, somewhat more or less than d: not all hosts are to come back at the
// same moment to a receiver that was down.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d*3/4 + rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
