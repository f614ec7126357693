package lab

import (
	"errors"
	"path/filepath"
	"testing"
)

// SetJoined takes a port of the host out of the switch, or puts it back: frames go
// nowhere, and yet both ends have carrier.
func (s *Segment) SetJoined(t testing.TB, port string, on bool) {
	t.Helper()
	master := map[bool][]string{true: {"master", "switch"}, false: {"nomaster"}}[on]
	must(t, inside(s.path, append([]string{"ip", "link", "set", "dev", port}, master...)...))
}

// Remove takes a port out of the host, as a card that is pulled out of its slot.
// What it returns puts one with the same MAC address in again, up.
func (s *Segment) Remove(t testing.TB, port string) (putBack func()) {
	t.Helper()
	all, err := show("", "ip", "-d", "-j", "link", "show", "dev", port)
	if err != nil || len(all) != 1 {
		t.Fatalf("no port %s: %v", port, err)
	}
	mac, _ := all[0]["address"].(string)
	if info, ok := all[0]["linkinfo"].(object); ok {
		if data, ok := info["info_slave_data"].(object); ok { // a bond has given it its own
			mac, _ = data["perm_hwaddr"].(string)
		}
	}
	if err := deleteLink(port); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		err := s.plug(port)
		if err == nil { // down and up, for a link-local address that goes with it
			err = batch("", "link set dev "+port+" down", "link set dev "+port+" address "+mac+" up")
		}
		if err = errors.Join(err, awaitLinkLocal(port)); err != nil {
			t.Fatal(err)
		}
	}
}

// Trunk makes ports on the host, up, that all end in one other machine: its eth0 is
// a bond of them, in a mode and with further options as iproute2 has them. Between
// them is no switch, which would keep LACP's frames to itself.
func (h *Host) Trunk(name string, ports []string, mode string, addresses ...string) *Client {
	h.t.Helper()
	c := &Client{name, filepath.Join(nsDir, name)}
	h.build(
		func() error {
			if err := newNamespace(c.path); err != nil {
				return err
			}
			lines := []string{"link add name " + clientIf + " type bond mode " + mode}
			var up []string
			for _, port := range ports {
				lines = append(lines, cable(port, port, hostNetns), "link set dev "+port+" master "+clientIf)
				up = append(up, "link set dev "+port+" up")
			}
			for _, a := range addresses {
				lines = append(lines, "addr add "+a+" dev "+clientIf)
			}
			if err := batch(c.path, append(lines, "link set dev "+clientIf+" up")...); err != nil {
				return err
			}
			if err := batch("", up...); err != nil {
				return err
			}
			for _, port := range ports {
				if err := awaitLinkLocal(port); err != nil {
					return err
				}
			}
			return nil
		},
		func() error {
			var errs []error
			for _, port := range ports {
				errs = append(errs, deleteLink(port))
			}
			return errors.Join(append(errs, dropNamespace(c.path))...)
		})
	return c
}
