package plumbing

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// addLink makes a link on a port, or a VLAN of it, directly inside the namespace: no device
// shows on the host, so nothing there (udev, a network manager) takes it up.
type addLink struct {
	dev string
	form
	sources   []MAC
	port      string // the name of what it sits on
	portIndex int    // 0: it is made by the same plan
	mac       MAC
	mtu       int
	first     string // the name that a shell has to give it before, if it must
}

func (s addLink) String() string {
	if s.Kind == Vlan {
		return fmt.Sprintf("add vlan %s of port %s as %s", s.tag, s.port, s.dev)
	}
	return fmt.Sprintf("add %s %s on port %s", s.Kind, s.dev, s.port)
}

func (s addLink) undo() Step { return delLink(s) }

func (s addLink) Command(p Place) string {
	netns := p.Name
	if p.Dir != ipDir {
		netns = quote(p.Path())
	}
	line := fmt.Sprintf("ip link add link %s name %s", quote(s.port), quote(cmp.Or(s.first, s.dev)))
	if t, _ := traitOf(s.Kind, s.Mode); !t.portMAC {
		line += " address " + s.mac.String()
	}
	line += fmt.Sprintf(" mtu %d netns %s ", s.mtu, netns)
	if s.Kind == Vlan {
		line += "arp on "
	}
	line += s.form.words(s.sources)
	if s.first != "" {
		line += fmt.Sprintf("\n%s link set dev %s name %s", p.in("ip"), s.first, quote(s.dev))
	}
	return line
}

// Pasteable is the plan as a shell can run it on every kernel: where the host has a
// device of a link's name, the link gets another one first (see applyRenamed).
func (h *Handle) Pasteable(p Plan) Plan {
	p = slices.Clone(p)
	onHost := h.onHost()
	there := func(name string) bool { _, err := onHost.index(name); return err == nil }
	for k, s := range p {
		if add, ok := s.(addLink); ok && there(add.dev) {
			add.first = freeName("vsnew", there)
			p[k] = add
		}
	}
	return p
}

// apply waits for a VLAN, or a port, that is in use, as upLink does for a MAC.
func (s addLink) apply(ctx context.Context, h *Handle) error {
	if s.portIndex == 0 {
		var err error
		if s.portIndex, err = h.onHost().index(s.port); err != nil {
			return err
		}
	}
	err := h.host.one(s.message(s.dev, h))
	if s.taken(err) {
		err = patiently(ctx, func() (again bool, err error) {
			err = h.host.one(s.message(s.dev, h))
			return s.taken(err), err
		})
	}
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	return patiently(ctx, func() (again bool, err error) {
		err = s.applyRenamed(h)
		return errors.Is(err, unix.EEXIST) && s.Kind == Vlan, err
	})
}

// taken tells a port that links of other kinds or modes are on: EINVAL, without a word, where
// one of them is in mode passthru, or this one is to be (macvlan_common_newlink).
func (s addLink) taken(err error) bool {
	var refused *kernelError
	if !errors.As(err, &refused) {
		return false
	}
	return refused.errno == unix.EBUSY || refused.errno == unix.EINVAL && refused.text == "" && s.Kind == Macvlan
}

func (s addLink) message(dev string, h *Handle) message {
	return newLink(dev, s.portIndex, s.form, s.sources, s.mac, s.mtu, h.ns.Fd())
}

// applyRenamed is for kernels that look for the new name in the namespace of
// the request, the host's, and refuse one that is there (rtnl_newlink; Linux 6.1
// does, 6.18 does not): they get a name that nobody has, and the right one inside.
func (s addLink) applyRenamed(h *Handle) error {
	var b [6]byte
	rand.Read(b[:])
	temporary := fmt.Sprintf("vs%x", b)
	if err := h.host.one(s.message(temporary, h)); err != nil {
		return err
	}
	index, err := h.index(temporary)
	if err != nil {
		return err
	}
	delete(h.indexes, temporary)
	if err := h.inside.one(linkRename(index, s.dev)); err != nil {
		return errors.Join(err, h.inside.one(linkDelete(index)))
	}
	return nil
}

func (s addLink) explain(err error) error {
	switch {
	case s.Kind == Vlan:
		return explainVLAN(err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return refuse(fmt.Sprintf("load it with `modprobe %s`, or use a kernel with CONFIG_%s", s.Kind, strings.ToUpper(string(s.Kind))), "this kernel has no %s", s.Kind)
	case s.taken(err):
		return refuse("see who uses it: ip -d link show", "port %s takes no %s beside what it has", s.port, s.Kind)
	}
	return err
}

// delLink removes it. On return its MAC is free on the port.
type delLink addLink

func (s delLink) String() string         { return "delete interface " + s.dev }
func (s delLink) undo() Step             { return addLink(s) }
func (s delLink) Command(p Place) string { return p.in("ip") + " link delete dev " + quote(s.dev) }

func (s delLink) apply(ctx context.Context, h *Handle) error {
	index, err := h.index(s.dev)
	if err != nil {
		return unlessGone(err)
	}
	// Down first: the wait that a deletion begins with is then a third as long.
	if err := (silence{s.dev}).apply(ctx, h); err != nil {
		return err
	}
	delete(h.indexes, s.dev)
	if err := unlessGone(h.inside.one(linkDelete(index))); err != nil {
		return err
	}
	if h.Deleted != nil {
		h.Deleted()
	}
	return nil
}

// silence takes a macvlan down whose namespace goes, and the link with it. Its MAC is off
// the port then, and nothing is counted any more (macvlan_stop); to delete it as well
// would take twice as long.
type silence struct{ dev string }

func (s silence) String() string         { return "take down " + s.dev }
func (s silence) undo() Step             { return nil }
func (s silence) Command(p Place) string { return downLink{dev: s.dev}.Command(p) }

func (s silence) apply(_ context.Context, h *Handle) error {
	index, err := h.index(s.dev)
	if err == nil {
		err = h.inside.one(linkDown(index))
	}
	if err := unlessGone(err); err != nil {
		return err
	}
	if h.Deleting != nil {
		h.Deleting(s.dev)
	}
	return nil
}

// markLink writes whose a link is where `ip link` shows it.
type markLink struct{ dev, mark, was string }

func (s markLink) String() string { return fmt.Sprintf("mark %s as %s", s.dev, s.mark) }
func (s markLink) undo() Step     { return markLink{s.dev, s.was, s.mark} }

func (s markLink) Command(p Place) string {
	return fmt.Sprintf("%s link set dev %s alias %s", p.in("ip"), quote(s.dev), quote(s.mark))
}

func (s markLink) message(h *Handle) (message, error) {
	index, err := h.index(s.dev)
	return linkAlias(index, s.mark), err
}

func (s markLink) apply(_ context.Context, h *Handle) error { return send(s, h) }

// keptMark does nothing, but its undoing marks again a link that was deleted. It keeps its
// mark until then: else who is killed in between would leave a link that is nobody's.
type keptMark struct{ dev, mark string }

func (s keptMark) String() string                       { return "keep the mark of " + s.dev }
func (s keptMark) undo() Step                           { return markLink{s.dev, s.mark, ""} }
func (s keptMark) Command(Place) string                 { return "" }
func (s keptMark) apply(context.Context, *Handle) error { return nil }

// setSources changes whom a macvlan in mode source receives from.
type setSources struct {
	dev          string
	sources, was []MAC
}

func (s setSources) String() string { return "set the sources of " + s.dev }
func (s setSources) undo() Step     { return setSources{s.dev, s.was, s.sources} }

func (s setSources) Command(p Place) string {
	return fmt.Sprintf("%s link set dev %s %s", p.in("ip"), quote(s.dev), form{Kind: Macvlan, Mode: Source}.words(s.sources))
}

func (s setSources) message(h *Handle) (message, error) {
	index, err := h.index(s.dev)
	return linkSources(index, s.sources), err
}

func (s setSources) apply(_ context.Context, h *Handle) error { return send(s, h) }

// setMTU changes a link's largest packet, in bytes.
type setMTU struct {
	dev      string
	mtu, was int
}

func (s setMTU) String() string { return fmt.Sprintf("set mtu %d on %s", s.mtu, s.dev) }
func (s setMTU) undo() Step     { return setMTU{s.dev, s.was, s.mtu} }

func (s setMTU) Command(p Place) string {
	return fmt.Sprintf("%s link set dev %s mtu %d", p.in("ip"), quote(s.dev), s.mtu)
}

func (s setMTU) message(h *Handle) (message, error) {
	index, err := h.index(s.dev)
	return linkMTU(index, s.mtu), err
}

func (s setMTU) apply(_ context.Context, h *Handle) error { return send(s, h) }

// upLoopback brings the loopback up, for which nobody has to wait.
type upLoopback struct{}

func (s upLoopback) String() string         { return upLink{dev: "lo"}.String() }
func (s upLoopback) undo() Step             { return downLink{"lo", upLink{dev: "lo"}} }
func (s upLoopback) Command(p Place) string { return upLink{dev: "lo"}.Command(p) }

func (s upLoopback) message(h *Handle) (message, error) {
	index, err := h.index("lo")
	return linkUp(index), err
}

func (s upLoopback) apply(_ context.Context, h *Handle) error { return send(s, h) }

// upLink brings a link up.
type upLink struct {
	dev  string
	port string
	mac  MAC
}

func (s upLink) String() string         { return "bring up " + s.dev }
func (s upLink) undo() Step             { return downLink{s.dev, s} }
func (s upLink) Command(p Place) string { return p.in("ip") + " link set dev " + quote(s.dev) + " up" }

// apply waits for a MAC that is in use: its holder may be a namespace that was
// dropped a moment ago, after a crash, and whose links the kernel has not yet
// destroyed. It tells nobody when it has, so it is asked.
func (s upLink) apply(ctx context.Context, h *Handle) error {
	index, err := h.index(s.dev)
	if err != nil {
		return err
	}
	err = patiently(ctx, func() (again bool, err error) {
		err = h.inside.one(linkUp(index))
		return errors.Is(err, unix.EADDRINUSE), err
	})
	if errors.Is(err, unix.EADDRINUSE) {
		return refuse("choose another with --mac", "MAC %s is in use on port %s", s.mac, s.port)
	}
	return err
}

// patience is how long a dying namespace may hold a MAC: 0.4 s was seen at the
// death of a thousand.
const patience = 2 * time.Second

// patiently calls try until it need not be called again, or patience ends.
func patiently(ctx context.Context, try func() (again bool, err error)) error {
	return patientlyFor(ctx, patience, try)
}

func patientlyFor(ctx context.Context, limit time.Duration, try func() (again bool, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		again, err := try()
		if !again {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// downLink takes it down; it is upLink's undoing.
type downLink struct {
	dev string
	was upLink
}

func (s downLink) String() string { return "take down " + s.dev }
func (s downLink) undo() Step     { return s.was }
func (s downLink) Command(p Place) string {
	return p.in("ip") + " link set dev " + quote(s.dev) + " down"
}

func (s downLink) message(h *Handle) (message, error) {
	index, err := h.index(s.dev)
	return linkDown(index), err
}

func (s downLink) apply(_ context.Context, h *Handle) error { return send(s, h) }
