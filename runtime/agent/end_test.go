package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

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
