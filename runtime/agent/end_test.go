package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/runtime"
	"github.com/vsrun/vsrun/runtime/service"
)

// newAgent has a state directory of its own, and nothing that runs.
func newAgent(t *testing.T) *Agent {
	t.Helper()
	dir := t.TempDir()
	r, err := runtime.Open(dir, filepath.Join(dir, "run"), filepath.Join(dir, "netns"))
	if err != nil {
		t.Fatal(err)
	}
	return New(r, slog.New(slog.DiscardHandler))
}

// An init that has ended after a clean look, and before it could be watched, is not missed.
// One that was not there at the look is the look's to see to.
func TestMissedEnd(t *testing.T) {
	for _, clean := range []bool{true, false} {
		a := newAgent(t)
		vs := runtime.VirtualServer{ID: 8, Services: []service.Service{{Name: "one"}}}
		a.world.servers = map[int]*server{8: {vs: vs}}
		a.watchInit(t.Context(), 8, clean)
		(<-a.asks)()
		if _, marked := a.due[subject{id: 8}]; marked != clean {
			t.Errorf("clean %v: marked %v", clean, marked)
		}
	}
}

// What was to be announced after a look that failed is announced after the next one.
func TestAnnouncesLater(t *testing.T) {
	a := newAgent(t)
	if err := os.WriteFile(filepath.Join(a.runtime.StateDir, "vs8.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := subject{id: 8}
	a.end(t.Context(), a.see(t.Context(), s, true))
	if _, marked := a.due[s]; !marked || !a.announce[s] {
		t.Errorf("looks again: %v, and announces: %v", marked, a.announce[s])
	}
}

// A record that is damaged stays so until another is there, which is heard; what the kernel
// could not do, it may be able to do in a while.
func TestDamagedRecord(t *testing.T) {
	a := newAgent(t)
	path := filepath.Join(a.runtime.StateDir, "vs8.json")
	for name, put := range map[string]func() error{
		"half":          func() error { return os.WriteFile(path, []byte("{"), 0o600) },
		"empty":         func() error { return os.WriteFile(path, nil, 0o600) },
		"directory":     func() error { return os.Mkdir(path, 0o700) },
		"symbolic link": func() error { return os.Symlink("vs9.json", path) },
	} {
		if err := put(); err != nil {
			t.Fatal(err)
		}
		a.reread([]subject{{id: 8}})
		_, err := a.runtime.Store.List()
		if a.anew != nil || err == nil || passes(err) {
			t.Errorf("%s: begins anew, %v", name, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	damaged := errors.New("it is no whole record")
	if passing := fmt.Errorf("cannot use it: %w", unix.ENOMEM); !passes(errors.Join(damaged, passing)) {
		t.Error("want of memory is for ever")
	}
	a.unread("vs8", errors.Join(damaged, &os.PathError{Op: "open", Path: path, Err: unix.EMFILE}))
	if a.anew == nil {
		t.Error("what passes is not tried again")
	}
	// A disk that cannot be read may never pass: that is tried at longer and longer times, and
	// said once.
	var log strings.Builder
	a.log = slog.New(slog.NewTextHandler(&log, nil))
	var waits []time.Duration
	for range 12 {
		a.unread("vs9", unix.EIO)
		waits = append(waits, a.limits.failed(subject{}))
	}
	if n := strings.Count(log.String(), "cannot look after vs9"); n != 1 {
		t.Errorf("it is said %d times: %s", n, log.String())
	}
	if !slices.IsSorted(waits) || waits[11] < 4*time.Minute {
		t.Errorf("it is tried again after %v", waits)
	}
}
