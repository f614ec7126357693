package plumbing

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// addBond makes a bond on the host.
type addBond struct {
	dev      string
	settings []setting
}

func (s addBond) String() string { return "add bond " + s.dev }
func (s addBond) undo() Step     { return delDevice{"bond", s.dev} }

func (s addBond) Command(Place) string {
	return fmt.Sprintf("ip link add name %s group %d type bond %s", quote(s.dev), deviceGroup, optionWords(s.settings))
}

// apply may find that the name has just been taken by a bond that nobody asked
// for: loading the kernel's module makes bond0 (max_bonds).
func (s addBond) apply(_ context.Context, h *Handle) error {
	options, err := h.bondOptions(s.settings)
	if err != nil {
		return err
	}
	err = h.inside.one(newBond(s.dev, options))
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	have, lookErr := h.ObserveBond(Bond{Name: s.dev})
	if lookErr != nil || !have.Idle {
		return err
	}
	if err := h.inside.one(linkDelete(have.Device.Index)); err != nil {
		return err
	}
	return h.inside.one(newBond(s.dev, options))
}

func (s addBond) explain(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		return refuse("load it with `modprobe bonding`, or use a kernel with CONFIG_BONDING", "this kernel has no bonds")
	}
	return err
}

// setBond changes options of a bond.
type setBond struct {
	dev      string
	set, was []setting
}

func (s setBond) String() string { return fmt.Sprintf("set %s on %s", optionWords(s.set), s.dev) }
func (s setBond) undo() Step     { return setBond{s.dev, s.was, s.set} }

// Command: iproute2 has no word for no primary.
func (s setBond) Command(Place) string {
	if slices.Contains(s.set, setting{"primary", ""}) {
		return "echo >/sys/class/net/" + quote(s.dev) + "/bonding/primary"
	}
	return fmt.Sprintf("ip link set dev %s type bond %s", quote(s.dev), optionWords(s.set))
}

func (s setBond) apply(_ context.Context, h *Handle) error {
	index, err := h.index(s.dev)
	if err != nil {
		return err
	}
	options, err := h.bondOptions(s.set)
	if err != nil {
		return err
	}
	return h.inside.one(linkBond(index, options))
}

// bondOptions encodes settings, in the kernel's terms.
func (h *Handle) bondOptions(settings []setting) (options func(*message), err error) {
	var puts []func(*message)
	for _, s := range settings {
		o := optionNamed(s.name)
		n := o.number(s.value)
		switch {
		case s.name == "arp_ip_target":
			puts = append(puts, func(m *message) { m.nest(o.attr, putTargets(s.value)) })
			continue
		case s.name == "primary" && s.value == "":
			n = 0
		case s.name == "primary":
			if n, err = h.index(s.value); err != nil {
				return nil, err
			}
		}
		if o.bytes == 1 {
			puts = append(puts, func(m *message) { m.put(o.attr, []byte{byte(n)}) })
		} else {
			puts = append(puts, func(m *message) { m.putUint32(o.attr, uint32(n)) })
		}
	}
	return func(m *message) {
		for _, put := range puts {
			put(m)
		}
	}, nil
}

// putTargets puts addresses that join wrote.
func putTargets(list string) func(*message) {
	return func(m *message) {
		for k, word := range strings.Split(list, ",") {
			if a, err := netip.ParseAddr(word); err == nil {
				m.put(uint16(k), a.AsSlice())
			}
		}
	}
}

// setMaster makes a device a member, or ("") one no longer.
type setMaster struct{ dev, master, was string }

func (s setMaster) String() string {
	if s.master == "" {
		return fmt.Sprintf("take %s out of %s", s.dev, s.was)
	}
	return fmt.Sprintf("add %s to %s", s.dev, s.master)
}

func (s setMaster) undo() Step { return setMaster{s.dev, s.was, s.master} }

func (s setMaster) Command(Place) string {
	if s.master == "" {
		return fmt.Sprintf("ip link set dev %s nomaster", quote(s.dev))
	}
	return fmt.Sprintf("ip link set dev %s master %s", quote(s.dev), quote(s.master))
}

func (s setMaster) apply(ctx context.Context, h *Handle) error {
	index, err := h.index(s.dev)
	if err != nil {
		return unlessGoneOut(s, err)
	}
	master := 0
	if s.master != "" {
		if master, err = h.index(s.master); err != nil {
			return err
		}
	}
	return patiently(ctx, func() (again bool, err error) { // a macvlan on it may be dying
		err = h.inside.one(linkMaster(index, master))
		return errors.Is(err, unix.EBUSY), err
	})
}

func (s setMaster) explain(err error) error {
	if s.master != "" && errors.Is(err, unix.EBUSY) { // a link in another namespace that is down shows nowhere
		return &Refusal{err, "see what sits on it: vsrun ls -o wide; ip -all netns exec ip -d link"}
	}
	return err
}

// unlessGoneOut: a member that has vanished is out.
func unlessGoneOut(s setMaster, err error) error {
	if s.master == "" {
		return unlessGone(err)
	}
	return err
}

// addOwnAddress gives a device of the host an address of its own back, as it was.
type addOwnAddress struct {
	dev string
	OwnAddress
}

func (s addOwnAddress) String() string { return fmt.Sprintf("add address %s on %s", s.Prefix, s.dev) }
func (s addOwnAddress) undo() Step     { return delOwnAddress(s) }

// words are iproute2's for the address and its peer.
func (a OwnAddress) words() string {
	if a.Peer.IsValid() {
		return fmt.Sprintf("%s peer %s", a.Prefix.Addr(), a.Peer)
	}
	return a.Prefix.String()
}

func (s addOwnAddress) Command(Place) string {
	line := "ip address add " + s.words()
	if s.Broadcast.IsValid() {
		line += " broadcast " + s.Broadcast.String()
	}
	line += " dev " + quote(s.dev)
	if s.Label != "" {
		line += " label " + quote(s.Label)
	}
	if s.Scope != 0 {
		line += fmt.Sprintf(" scope %d", s.Scope)
	}
	if s.NoDAD {
		line += " nodad"
	}
	if s.NoPrefixRoute {
		line += " noprefixroute"
	}
	return line
}

func (s addOwnAddress) message(h *Handle) (message, error) {
	index, err := h.index(s.dev)
	return ownAddress(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, s.OwnAddress), err
}

func (s addOwnAddress) apply(_ context.Context, h *Handle) error { return send(s, h) }

// delOwnAddress takes it away.
type delOwnAddress addOwnAddress

func (s delOwnAddress) String() string {
	return fmt.Sprintf("delete address %s on %s", s.Prefix, s.dev)
}
func (s delOwnAddress) undo() Step { return addOwnAddress(s) }

func (s delOwnAddress) Command(Place) string {
	return fmt.Sprintf("ip address delete %s dev %s", s.words(), quote(s.dev))
}

func (s delOwnAddress) apply(_ context.Context, h *Handle) error {
	index, err := h.index(s.dev)
	if err == nil {
		err = h.inside.one(ownAddress(unix.RTM_DELADDR, 0, index, s.OwnAddress))
	}
	return unlessGone(err)
}

// setMAC gives a device another MAC.
type setMAC struct {
	dev      string
	mac, was MAC
}

func (s setMAC) String() string { return fmt.Sprintf("set MAC %s on %s", s.mac, s.dev) }

func (s setMAC) undo() Step {
	if s.was.IsZero() {
		return nil
	}
	return setMAC{s.dev, s.was, s.mac}
}

func (s setMAC) Command(p Place) string {
	return fmt.Sprintf("%s link set dev %s address %s", p.in("ip"), quote(s.dev), s.mac)
}

func (s setMAC) message(h *Handle) (message, error) {
	index, err := h.index(s.dev)
	return linkMAC(index, s.mac), err
}

func (s setMAC) apply(_ context.Context, h *Handle) error { return send(s, h) }

// delDevice deletes a device of the host's.
type delDevice struct{ kind, dev string }

func (s delDevice) String() string       { return fmt.Sprintf("delete %s %s", s.kind, s.dev) }
func (s delDevice) undo() Step           { return nil }
func (s delDevice) Command(Place) string { return "ip link delete dev " + quote(s.dev) }

func (s delDevice) apply(_ context.Context, h *Handle) error {
	index, err := h.index(s.dev)
	if err == nil {
		delete(h.indexes, s.dev)
		err = h.inside.one(linkDelete(index))
	}
	return unlessGone(err)
}
