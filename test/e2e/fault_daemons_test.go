package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/fault"
	"github.com/vsrun/vsrun/test/lab"
)

// daemons go on after an error, and get over it by themselves, or end. Of one that has ended
// with an error, or was killed, it is what the next one does.
var daemons = []operation{
	{program: "vsd", work: healAndEnd, from: faultDocument, then: "vsrun shutdown; rm $VSRUN_RUN_DIR/down", halves: true, litter: true},
	{program: "ipmd", work: askAndEnd, from: faultDocument},
}

// healAndEnd has vsd mend what a reboot has taken, and what somebody changes.
func healAndEnd(t *testing.T, m *matrix, p *fault.Program) {
	mended := func(what string) {
		m.await(t, p, 20*time.Second, func() error {
			if r := m.Vsrun("diff"); r.Code != 0 {
				return fmt.Errorf("vsd has not mended %s: %v", what, r)
			}
			return nil
		})
	}
	mended("what a reboot takes")
	time.Sleep(200 * time.Millisecond)                          // vsd looks again at what it has mended: what it does not hear it would see then
	m.TryRun("ip", "-n", "vs8", "addr", "flush", "dev", "eth0") // vsd may have ended before it has made that
	mended("what somebody has changed")
	p.Signal(syscall.SIGTERM)
}

// askAndEnd has ipmd answer.
func askAndEnd(t *testing.T, m *matrix, p *fault.Program) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", ipmdSocket(m.Host))
		},
	}}
	for _, path := range []string{"/stats", "/metrics", "/stats?id=8&maxAge=0"} {
		m.await(t, p, 10*time.Second, func() error {
			resp, err := client.Get("http://ipmd" + path)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err == nil && (resp.StatusCode != http.StatusOK || !strings.Contains(string(text), "eth0")) {
				err = fmt.Errorf("%s answers %s: %s", path, resp.Status, text)
			}
			return err
		})
	}
	p.Signal(syscall.SIGTERM)
}

// await waits until holds is nil, or the program has ended.
func (m *matrix) await(t *testing.T, p *fault.Program, limit time.Duration, holds func() error) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		err := holds()
		select {
		case <-p.Done():
			return
		default:
		}
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Errorf("%s: %v\nIt is\n%s", m.what, err, lab.Whereabouts(p.Pid()))
			return
		}
	}
}
