package lab_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

// Tags are read as they were sent, whoever has taken them out of the data.
func TestTags(t *testing.T) {
	h := lab.New(t)
	clients := h.Segment("eth1").Clients(lab.Plug{Name: "a"}, lab.Plug{Name: "b"})
	seen := clients[1].Capture(t)
	src := []byte{2, 0, 0, 0, 0, 1}
	cases := map[string][]lab.Tag{
		"":         nil,
		"10":       {{ID: 10}},
		"ad100":    {{ID: 100, Protocol: unix.ETH_P_8021AD}},
		"ad100.10": {{ID: 100, Protocol: unix.ETH_P_8021AD}, {ID: 10}},
		"10.20":    {{ID: 10}, {ID: 20}},
		"0":        {{}},
	}
	var frames [][]byte
	for text, tags := range cases {
		frames = append(frames, lab.Tagged([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, src, 0x88b5, append([]byte(text+"|"), make([]byte, 46)...), tags...))
	}
	clients[0].Send(t, frames...)
	got := seen.Await(len(cases), 10*time.Second, lab.From("02:00:00:00:00:01"))
	if len(got) != len(cases) {
		t.Errorf("%d of %d frames came: %v", len(got), len(cases), got)
	}
	for _, f := range got {
		if _, ok := cases[f.Tags()]; !ok {
			t.Errorf("%v has tags %q", f, f.Tags())
		}
		delete(cases, f.Tags())
	}
}

// Clients are on their VLAN and on no other.
func TestClientsOnVLANs(t *testing.T) {
	lab.Require(t, "kind:vlan")
	h := lab.New(t)
	var clients []*lab.Client
	h.Together(func() {
		s := h.Segment("eth1")
		clients = s.Clients(
			lab.Plug{Name: "a10", VLAN: "10", Addresses: []string{"192.0.2.1/24"}},
			lab.Plug{Name: "b10", VLAN: "10", Addresses: []string{"192.0.2.2/24"}},
			lab.Plug{Name: "a100", VLAN: "100.10", Addresses: []string{"192.0.2.3/24"}},
			lab.Plug{Name: "b100", VLAN: "100.10", Addresses: []string{"192.0.2.4/24"}},
			lab.Plug{Name: "none", Addresses: []string{"192.0.2.5/24"}})
	})
	for _, c := range []struct {
		from    int
		to      string
		reaches bool
	}{{0, "192.0.2.2", true}, {2, "192.0.2.4", true}, {0, "192.0.2.4", false}, {4, "192.0.2.2", false}} {
		r := clients[c.from].TryRun("ping", "-n", "-c", "1", "-W", "1", c.to)
		if (r.Code == 0) != c.reaches {
			t.Errorf("client %d: %v", c.from, r)
		}
	}
}
