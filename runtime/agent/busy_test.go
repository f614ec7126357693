package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/runtime/agent"
)

// However many somebody is at work on, the others are mended meanwhile, and those when he is done.
func TestWaitsForNoLock(t *testing.T) {
	s := newSite(t)
	const first, many = 101, 65 // one more than vsd sees to at once
	f, err := os.OpenFile(filepath.Join(s.StateDir, "lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: first, Len: many}); err != nil {
		t.Fatal(err)
	}
	var subjects []string
	for id := first; id < first+many; id++ {
		subjects = append(subjects, fmt.Sprintf("vs%d", id))
		if err := os.WriteFile(filepath.Join(s.StateDir, fmt.Sprintf("vs%d.json", id)), fmt.Appendf(nil, `{"id": %d}`, id), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := startVSD(t, s.Host)
	for range 2 { // the first may be looked at before all of them
		ip("-n vs8 address del 192.0.2.8/24 dev eth0")(t, s)
		d.await(t, "of one that nobody is at work on", about("vs8", agent.Mended))
	}
	f.Close()
	d.awaitAll(t, agent.Mended, subjects...)
	d.whole(t)
}
