package plumbing

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// onHost is a step that works on the host, not in the namespace.
type onHost struct{ Step }

func (s onHost) Command(Place) string { return s.Step.Command(Place{}) }

func (s onHost) undo() Step {
	if u := s.Step.undo(); u != nil {
		return onHost{u}
	}
	return nil
}

func (s onHost) apply(ctx context.Context, h *Handle) error { return s.Step.apply(ctx, h.onHost()) }

// addVLAN makes a VLAN device on the host, for interfaces to sit on. It is not
// undone: another namespace may use it by then, and [Handle.Leftover] knows.
type addVLAN struct {
	lower
	dev   string
	onDev string // the name of what it is on
}

func (s addVLAN) String() string { return fmt.Sprintf("add vlan %s on %s", s.tag, s.onDev) }
func (s addVLAN) undo() Step     { return nil }

func (s addVLAN) Command(Place) string {
	return fmt.Sprintf("ip link add link %s name %s group %d type vlan %s loose_binding on",
		quote(s.onDev), s.dev, deviceGroup, s.tag.words())
}

func (s addVLAN) apply(_ context.Context, h *Handle) error {
	on, err := h.index(s.onDev)
	if err != nil {
		return err
	}
	return h.inside.one(newVLAN(s.dev, on, s.tag))
}

func (s addVLAN) explain(err error) error { return explainVLAN(err) }

func explainVLAN(err error) error {
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return refuse("load it with `modprobe 8021q`, or use a kernel with CONFIG_VLAN_8021Q", "this kernel has no VLANs")
	case errors.Is(err, unix.EEXIST):
		return refuse("look for it with: ip -all netns exec ip -d link show type vlan", "another namespace has it")
	}
	return err
}

// addAltname gives a device of the host a second name, for people. One that
// another device has already is of no harm.
type addAltname struct{ dev, name string }

func (s addAltname) String() string { return fmt.Sprintf("add altname %s to %s", s.name, s.dev) }
func (s addAltname) undo() Step     { return nil }

func (s addAltname) Command(Place) string {
	return fmt.Sprintf("ip link property add dev %s altname %s", s.dev, s.name)
}

func (s addAltname) apply(_ context.Context, h *Handle) error {
	index, err := h.index(s.dev)
	if err != nil {
		return err
	}
	if err := h.inside.one(linkAltname(index, s.name)); !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// raiseMTU is for a VLAN device whose port carries more by now. It is not undone:
// what others have put on it since would shrink with it, and not grow back.
type raiseMTU struct{ setMTU }

func (s raiseMTU) undo() Step { return nil }

// markVLAN says that a VLAN device is complete, for whoever uses it next.
type markVLAN struct{ markLink }

func (s markVLAN) undo() Step { return nil }

// upVLAN brings a VLAN device up whose frames are for others alone: the host
// itself neither asks nor answers on it.
type upVLAN struct{ dev string }

func (s upVLAN) String() string       { return "bring up " + s.dev }
func (s upVLAN) undo() Step           { return nil }
func (s upVLAN) Command(Place) string { return "ip link set dev " + s.dev + " arp off up" }

func (s upVLAN) message(h *Handle) (message, error) {
	index, err := h.index(s.dev)
	return linkUpQuietly(index), err
}

func (s upVLAN) apply(_ context.Context, h *Handle) error { return send(s, h) }
