package agent_test

import (
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/runtime/agent"
)

// BenchmarkHeal tells for each kind of drift how long it lasts, from the end of the command
// that brings it to what vsd says is its end. docs/healing.md has the figures of
//
//	go test -run '^$' -bench Heal -benchtime 20x ./runtime/agent
func BenchmarkHeal(b *testing.B) { benchmark(b, newSite(b), drifts) }

func BenchmarkHealLimits(b *testing.B) { benchmark(b, newLimited(b), onLimits) }

func benchmark(b *testing.B, s *site, list []drift) {
	d := startVSD(b, s.Host)
	for _, one := range list {
		if one.name == "port made again" { // mended before the command has ended
			continue
		}
		b.Run(one.name, func(b *testing.B) {
			var took []time.Duration
			heal := func() time.Duration {
				one.hand(b, s)
				begin := time.Now()
				defer d.whole(b)
				return d.await(b, "of "+one.name, about(one.subject, agent.Mended)).Time.Sub(begin)
			}
			for b.Loop() {
				if len(took)%4 == 0 { // after five vsd takes it for a fight
					d.again(b)
					heal()
				}
				took = append(took, heal())
			}
			report(b, took)
		})
	}
}

// again starts vsd anew.
func (d *daemon) again(b *testing.B) {
	b.Helper()
	d.signal(syscall.SIGTERM)
	d.cmd.Wait()
	d.cmd = exec.Command(d.cmd.Path)
	d.cmd.Stderr = d.log
	if err := d.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	d.whole(b)
	for end := time.Now().Add(10 * time.Second); d.Vsrun("events").Code != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.Fatal("vsd does not answer")
		}
	}
}

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "median-ms")
	b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "worst-ms")
}
