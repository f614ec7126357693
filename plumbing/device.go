package plumbing

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
)

// An origin is how a device was on the host before it was given to a virtual server. It is
// written into the device's own alias, behind the mark, before anything else is done: there it
// goes where the device goes, also when the kernel gives it back by itself, and ends with it.
// The names that it has beside its own stay with it.
type origin struct {
	name  string // "": it is no such device
	mac   MAC
	mtu   int
	up    bool
	alias string
}

// maxAlias is the longest alias of a link, in bytes (IFALIASZ, less its final zero).
const maxAlias = 255

// String is the text behind the mark.
func (o origin) String() string {
	state := "down"
	if o.up {
		state = "up"
	}
	return strings.TrimSuffix(fmt.Sprintf("%s %s %d %s %s", o.name, o.mac, o.mtu, state, o.alias), " ")
}

// cutOrigin takes an alias apart.
func cutOrigin(alias string) (mark string, o origin) {
	mark, text, _ := strings.Cut(alias, " ")
	words := append(strings.SplitN(text, " ", 5), "")
	if !strings.HasPrefix(mark, "vsrun:") || len(words) < 5 {
		return alias, origin{}
	}
	var err, wrong error
	o = origin{name: words[0], up: words[3] == "up", alias: words[4]}
	if strings.HasPrefix(o.alias, "vsrun:") { // back on the host that would be another one's mark
		o.alias = ""
	}
	o.mac, err = ParseMAC(words[1])
	if o.mtu, wrong = strconv.Atoi(words[2]); err != nil || wrong != nil {
		return alias, origin{}
	}
	return mark, o
}

// asOrigin is how a device of the host is, or was before it was marked.
func (p Port) asOrigin() origin {
	if p.origin.name != "" {
		return p.origin
	}
	return origin{p.Name, p.MAC, p.MTU, p.Up, p.Alias}
}

// UsesDevice reports whether the network has a whole device of the host's.
func (n Network) UsesDevice() bool {
	return slices.ContainsFunc(n.Interfaces, func(i Interface) bool { return i.Kind == Device })
}

// withMarked is the state in which a device that bears the mark of an interface is its port.
func (s State) withMarked(place Place, want Network) State {
	for _, i := range want.Interfaces {
		for _, p := range s.Marked {
			if i.Kind == Device && p.Alias == place.mark(i.Name) && p.origin.name == i.Port {
				ports := map[string]Port{i.Port: p}
				for path, other := range s.Ports {
					if path != i.Port {
						ports[path] = other
					}
				}
				s.Ports = ports
			}
		}
	}
	return s
}

// checkDevicePort refuses what cannot be given away.
func checkDevicePort(place Place, i Interface, port Port, link Link) error {
	dev := quote(port.Name)
	hostUses := checkWithoutHost(port)
	switch {
	case port.Loopback:
		return refuse("use a device that leads to a network", "port %s is the loopback", i.Port)
	case port.Ours:
		return refuse("use a device that is not vsrun's", "port %s is vsrun's own", i.Port)
	case port.origin.name != "" && port.Alias != place.mark(i.Name):
		return refuse("see what is left of that: vsrun gc --dry-run", "port %s has been given away, as %s", i.Port, strings.TrimPrefix(port.Alias, "vsrun:"))
	case port.Master != "":
		return refuse(fmt.Sprintf("take it out: ip link set %s nomaster", dev), "%s is a member of %s %s", i.Port, port.MasterKind, port.Master)
	case hostUses != nil:
		return hostUses
	case len(port.Users) > 0:
		return refuse("delete it first, or use kind macvlan", "%s sits on %s", strings.Join(port.Users, ", "), i.Port)
	case len(place.mark(i.Name))+1+len(port.asOrigin().String()) > maxAlias:
		return refuse("give it a shorter one: ip link set "+dev+" alias …", "the alias of %s is too long to be kept", i.Port)
	}
	return checkFit(i, Port{Name: port.Name, MTU: max(port.MTU, i.MTU)}, port, link)
}

// checkWithoutHost refuses what the host would lose: it has addresses there.
func checkWithoutHost(port Port) error {
	var own []string
	for _, a := range port.Addresses {
		if !a.IsLinkLocalUnicast() {
			own = append(own, a.String())
		}
	}
	if len(own) == 0 {
		return nil
	}
	return refuse(fmt.Sprintf("if the host can do without them: ip address flush dev %s scope global", quote(port.Name)),
		"the host has addresses on %s: %s", port.Name, strings.Join(own, ", "))
}

// moveIn gives a device of the host's to the namespace. It is marked first: see origin.
type moveIn struct {
	dev, mark string
	port      string // its name on the host
	origin
}

func (s moveIn) String() string { return fmt.Sprintf("move %s in as %s", s.port, s.dev) }
func (s moveIn) undo() Step     { return moveBack{s.dev, s.mark, s.origin, s.origin.mac} }

func (s moveIn) Command(p Place) string {
	netns := p.Name
	if p.Dir != ipDir {
		netns = quote(p.Path())
	}
	return fmt.Sprintf("ip link set dev %s alias %s\nip link set dev %[1]s down netns %[3]s name %[4]s",
		quote(s.port), quote(s.mark+" "+s.origin.String()), netns, quote(s.dev))
}

func (s moveIn) apply(_ context.Context, h *Handle) error {
	onHost := h.onHost()
	index, err := onHost.index(s.port)
	if err != nil {
		return err
	}
	if err := h.host.one(linkAlias(index, s.mark+" "+s.origin.String())); err != nil {
		return err
	}
	if err := h.host.one(linkInto(index, h.ns.Fd(), s.dev)); err != nil {
		return errors.Join(err, unlessGone(h.host.one(linkAlias(index, s.origin.alias))))
	}
	return nil
}

func (s moveIn) explain(err error) error {
	if errors.Is(err, unix.EINVAL) {
		return refuse("use kind macvlan on it", "the kernel moves no device of that kind")
	}
	return err
}

// Before is what devices of the host's that a plan moves in have counted by now, by their names
// inside: the kernel goes on from there.
func (h *Handle) Before(plan Plan) (map[string]Counted, error) {
	var before map[string]Counted
	for _, s := range plan {
		s, ok := s.(moveIn)
		if !ok {
			continue
		}
		err := h.host.get(linkGet(s.port), func(b []byte) {
			if len(b) < unix.SizeofIfInfomsg {
				return
			}
			if c := decodeCounted(b); c != nil {
				if before == nil {
					before = map[string]Counted{}
				}
				before[s.dev] = *c
			}
		})
		if err != nil {
			return before, fmt.Errorf("cannot read the counters of %s: %w", s.port, err)
		}
	}
	return before, nil
}

// moveBack gives it to the host again, as it was.
type moveBack struct {
	dev, mark string
	origin
	mac MAC // that it has now
}

func (s moveBack) String() string { return fmt.Sprintf("move %s back as %s", s.dev, s.name) }
func (s moveBack) undo() Step     { return moveIn{s.dev, s.mark, s.name, s.origin} }

func (s moveBack) Command(p Place) string {
	dev := quote(s.dev)
	return fmt.Sprintf("%s link set dev %s down\n%[1]s link set dev %[2]s netns 1 %s", p.in("ip"), dev, s.words(s.mac))
}

func (o origin) words(now MAC) string {
	words := fmt.Sprintf("name %s mtu %d alias %s", quote(o.name), o.mtu, quote(o.alias))
	if now != o.mac {
		words += " address " + o.mac.String()
	}
	if o.up {
		words += " up"
	}
	return words
}

func (s moveBack) apply(ctx context.Context, h *Handle) error {
	index, err := h.index(s.dev)
	if err != nil {
		return unlessGone(err)
	}
	if err := (silence{s.dev}).apply(ctx, h); err != nil {
		return err
	}
	host, err := nsutil.Current()
	if err != nil {
		return err
	}
	defer host.Close()
	delete(h.indexes, s.dev)
	if err := unlessGone(h.inside.one(linkAgain(index, host.Fd(), s.dev, s.mac, s.origin))); err != nil {
		return err
	}
	if h.Deleted != nil {
		h.Deleted()
	}
	return nil
}

func (s moveBack) explain(err error) error { return s.origin.explain(err) }

func (o origin) explain(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return refuse("rename that one, and do this again", "the host has another device of the name %s, or of another name that it has", o.name)
	}
	return err
}

// restore makes a device what it was that is on the host already: the kernel has destroyed
// its namespace, or it had only been marked.
type restore struct {
	dev string
	origin
	mac MAC
}

func (s restore) String() string { return fmt.Sprintf("make %s what it was, %s", s.dev, s.name) }
func (s restore) undo() Step     { return nil }

func (s restore) Command(Place) string {
	return fmt.Sprintf("ip link set dev %s down\nip link set dev %[1]s %s", quote(s.dev), s.words(s.mac))
}

func (s restore) apply(_ context.Context, h *Handle) error {
	index, err := h.index(s.dev)
	if err != nil {
		return unlessGone(err)
	}
	if s.dev != s.name { // one that is up keeps its name (dev_change_name)
		if err := h.inside.one(linkDown(index)); err != nil {
			return err
		}
	}
	return h.inside.one(linkAgain(index, -1, s.dev, s.mac, s.origin))
}

func (s restore) explain(err error) error { return s.origin.explain(err) }

// awaitCarrier gives a device that was brought up the time to find the other end of its
// cable: what is sent before is lost. It never fails: a cable may be missing.
type awaitCarrier struct{ dev string }

func (s awaitCarrier) String() string       { return "wait for the carrier of " + s.dev }
func (s awaitCarrier) undo() Step           { return nil }
func (s awaitCarrier) Command(Place) string { return "# waits for the carrier of " + s.dev }

func (s awaitCarrier) apply(ctx context.Context, h *Handle) error {
	const carrier = unix.IFF_LOWER_UP | unix.IFF_RUNNING // what it sends passes, too
	return patientlyFor(ctx, 5*time.Second, func() (again bool, err error) {
		up := false
		err = h.inside.get(linkGet(s.dev), func(b []byte) {
			up = len(b) >= unix.SizeofIfInfomsg && binary.NativeEndian.Uint32(b[8:])&carrier == carrier
		})
		return err == nil && !up, err
	})
}

// linkInto moves a link, which the kernel takes down, and gives it a name there.
func linkInto(index, nsFd int, name string) message {
	m := ifinfomsg(unix.RTM_NEWLINK, 0, index, 0, unix.IFF_UP)
	m.putUint32(unix.IFLA_NET_NS_FD, uint32(nsFd))
	m.putString(unix.IFLA_IFNAME, name)
	return m
}

// linkAgain makes a link what it was, and moves it first if a namespace is given. The kernel
// does that in an order of its own (do_setlink): what it is marked by goes last but one.
func linkAgain(index, nsFd int, name string, now MAC, o origin) message {
	m := ifinfomsg(unix.RTM_NEWLINK, 0, index, 0, 0)
	if o.up {
		m = ifinfomsg(unix.RTM_NEWLINK, 0, index, unix.IFF_UP, unix.IFF_UP)
	}
	if nsFd >= 0 {
		m.putUint32(unix.IFLA_NET_NS_FD, uint32(nsFd))
	}
	if now != o.mac { // which not every device can be told
		m.put(unix.IFLA_ADDRESS, o.mac[:])
	}
	m.putUint32(unix.IFLA_MTU, uint32(o.mtu))
	if name != o.name { // older kernels (6.1 does) refuse even its own to one that is up
		m.putString(unix.IFLA_IFNAME, o.name)
	}
	m.put(unix.IFLA_IFALIAS, []byte(o.alias))
	return m
}
