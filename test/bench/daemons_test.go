package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// daemons measures ipmd and vsd with the crowd that is there.
func (b *bench) daemons(t *testing.T, size int) {
	b.ipmd(t, size)
	b.vsd(t, size)
}

func (b *bench) ipmd(t *testing.T, size int) {
	const section = "ipmd"
	socket := filepath.Join(b.RunDir, "ipmd.sock")
	p := b.Start(t, filepath.Join(lab.Programs(t), "ipmd"))
	defer p.Stop()
	client := over(socket)
	defer client.CloseIdleConnections()
	await(t, "ipmd", func() error { return get(client, "/healthz") })
	scrape := func(path string) contender {
		return func() float64 { return millis(timed(func() { must(t, get(client, path)) })) }
	}
	taken := race(b.turns(5), scrape("/metrics?maxAge=0s"), scrape("/metrics?maxAge=1m"))
	b.tell(row(section, "/metrics, all read for it", size, "ms", taken[0], "", nil, nil))
	b.tell(row(section, "/metrics, of shared samples", size, "ms", taken[1], "", nil, nil))
	const askers = 32
	rate, slowest := storm(t, socket, size, askers, b.turns(200))
	b.tell(row(section, fmt.Sprintf("/stats?id=…, by %d at once", askers), size, "a second", []float64{rate}, "", nil, nil))
	b.tell(row(section, "the slowest of a hundred of them", size, "ms", []float64{slowest}, "", nil, nil))
	b.tell(row("memory", "memory of ipmd, after thousands of questions", size, "MB", []float64{resident(t, p.Pid())}, "", nil, figure(64)))
}

// vsd has looked at all of them, and written twice what they have counted.
func (b *bench) vsd(t *testing.T, size int) {
	p := b.Start(t, filepath.Join(lab.Programs(t), "vsd"), "--checkpoint", "2s")
	defer p.Stop()
	time.Sleep(time.Duration(b.turns(5)) * time.Second)
	select {
	case <-p.Done():
		t.Fatalf("vsd has ended: %s", p.Output())
	default:
	}
	b.tell(row("memory", "memory of vsd", size, "MB", []float64{resident(t, p.Pid())}, "", nil, figure(64)))
}

// storm asks for one virtual server after the other, by several at once over
// connections of their own. The slowest of a hundred is in ms.
func storm(t *testing.T, socket string, servers, askers, each int) (rate, slowest float64) {
	var mu sync.Mutex
	var all sync.WaitGroup
	var times []time.Duration
	total := timed(func() {
		for asker := range askers {
			all.Go(func() {
				client := over(socket)
				defer client.CloseIdleConnections()
				for k := range each {
					var err error
					took := timed(func() { err = get(client, fmt.Sprintf("/stats?id=%d", (asker*each+k)%servers+1)) })
					mu.Lock()
					times = append(times, took)
					if err != nil {
						t.Error(err)
					}
					mu.Unlock()
				}
			})
		}
		all.Wait()
	})
	slices.Sort(times)
	return float64(len(times)) / total.Seconds(), millis(times[len(times)*99/100])
}

func over(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
}

func get(client *http.Client, path string) error {
	res, err := client.Get("http://ipmd" + path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, res.Status)
	}
	_, err = io.Copy(io.Discard, res.Body)
	return err
}
