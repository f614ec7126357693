package runtime

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/plumbing"
)

// What somebody has changed, or destroyed, since the room was found out is nobody's to give up,
// nor to give back to. All are disabled: only the records count.
func TestRoomIsOfBefore(t *testing.T) {
	dir := t.TempDir()
	r := &Runtime{Store: OpenStore(dir), StateDir: dir, RunDir: filepath.Join(dir, "run"), NetnsDir: filepath.Join(dir, "netns"), groups: cgroup.Find}
	has := func(id int, address, name string) VirtualServer {
		i := plumbing.Interface{Name: "eth0", Port: "lo", Addresses: []netip.Prefix{netip.MustParsePrefix(address)}}
		return VirtualServer{ID: id, Name: name, Disabled: true, Network: plumbing.Network{Interfaces: []plumbing.Interface{i}}}
	}
	left, right := has(8, "192.0.2.8/24", ""), has(9, "192.0.2.9/24", "")
	newLeft, newRight := has(8, "192.0.2.9/24", ""), has(9, "192.0.2.8/24", "")
	for _, tt := range []struct {
		name      string
		meanwhile func() error
		want      []VirtualServer
		refused   int
	}{
		{"nothing", func() error { return nil }, []VirtualServer{newLeft, newRight}, 0},
		{"the first is changed", func() error { return r.Store.save(has(8, "192.0.2.8/24", "other")) },
			[]VirtualServer{newLeft, newRight}, 0}, // it takes what the second has given up, and so gives its own
		{"the second is changed", func() error { return r.Store.save(has(9, "192.0.2.9/24", "other")) },
			[]VirtualServer{left, has(9, "192.0.2.9/24", "other")}, 2}, // the first gets its own back
		{"the second is destroyed", func() error { return r.Store.forget(9) }, []VirtualServer{newLeft, newRight}, 0},
		{"both are changed", func() error {
			if err := r.Store.save(has(8, "192.0.2.8/24", "other")); err != nil {
				return err
			}
			return r.Store.save(has(9, "192.0.2.9/24", "another"))
		}, []VirtualServer{has(8, "192.0.2.8/24", "other"), has(9, "192.0.2.9/24", "another")}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, vs := range []VirtualServer{left, right} {
				if err := r.Store.save(vs); err != nil {
					t.Fatal(err)
				}
			}
			room := r.Room([]VirtualServer{newLeft, newRight})
			if err := tt.meanwhile(); err != nil {
				t.Fatal(err)
			}
			refused := 0
			room.Apply(t.Context(), func(k int, did string, err error) {
				t.Log(k, did, err)
				if err != nil {
					refused++
				}
			})
			got, err := r.Store.List()
			if err != nil {
				t.Fatal(err)
			}
			words := func(list []VirtualServer) (words []string) {
				for _, vs := range list {
					words = append(words, string(vs.record()))
				}
				return words
			}
			if d := cmp.Diff(words(tt.want), words(got)); d != "" || refused != tt.refused {
				t.Errorf("%d refused, not %d (-want +got):\n%s", refused, tt.refused, d)
			}
		})
	}
}
