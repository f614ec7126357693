package plumbing

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
)

// in is iproute2's prefix for work inside the namespace. Elsewhere than in
// /run/netns iproute2 does not look, but util-linux goes anywhere.
func (p Place) in(tool string) string {
	switch {
	case p == Place{}: // the host
		return tool
	case p.Dir != ipDir:
		return "nsenter --net=" + quote(p.Path()) + " " + tool
	case tool == "ip":
		return "ip -n " + p.Name
	}
	return "ip netns exec " + p.Name + " " + tool
}

// ipDir is where iproute2 keeps namespaces (NETNS_RUN_DIR).
const ipDir = "/run/netns"

// quote makes one word of s for a shell.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:@%+=,", r)
	}
	if s != "" && strings.TrimFunc(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// send applies a step that is one request.
func send(r request, h *Handle) error {
	m, err := r.message(h)
	if err != nil {
		return err
	}
	return h.inside.one(m)
}

// unlessGone makes success of a removal that found nothing to remove.
func unlessGone(err error) error {
	for _, gone := range []error{unix.ENODEV, unix.ESRCH, unix.EADDRNOTAVAIL, unix.ENOENT} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	return err
}

// makeNamespace makes the namespace, nameless: a crash before publish leaves
// nothing. A shell can only make it with its name.
type makeNamespace struct{}

func (makeNamespace) String() string { return "make the namespace" }
func (makeNamespace) undo() Step     { return dropNamespace{} }

func (makeNamespace) Command(p Place) string {
	if p.Dir == ipDir {
		return "ip netns add " + p.Name
	}
	path := quote(p.Path())
	return fmt.Sprintf("mkdir -p %s && touch %s && unshare --net=%s true", quote(p.Dir), path, path)
}

func (makeNamespace) apply(_ context.Context, h *Handle) error { return h.make() }

// dropNamespace lets go of a namespace that has no name.
type dropNamespace struct{}

func (dropNamespace) String() string                           { return "drop the namespace" }
func (dropNamespace) Command(Place) string                     { return "" }
func (dropNamespace) undo() Step                               { return nil }
func (dropNamespace) apply(_ context.Context, h *Handle) error { return h.leave() }

// publish gives the namespace its name: the commit point.
type publish struct{}

func (publish) String() string                           { return "publish the namespace" }
func (publish) Command(Place) string                     { return "" }
func (publish) undo() Step                               { return withdraw{} }
func (publish) apply(_ context.Context, h *Handle) error { return h.ns.Publish(h.place.Path()) }

// republish gives the namespace that a process is in its name back. That stays when
// something else cannot be mended.
type republish struct{ holder int }

func (republish) String() string { return "publish the namespace again" }
func (republish) undo() Step     { return nil }

func (s republish) Command(p Place) string {
	if p.Dir == ipDir {
		return fmt.Sprintf("ip netns attach %s %d", p.Name, s.holder)
	}
	path := quote(p.Path())
	return fmt.Sprintf("touch %s && mount --bind /proc/%d/ns/net %s", path, s.holder, path)
}

func (republish) apply(_ context.Context, h *Handle) error {
	err := h.ns.Publish(h.place.Path())
	if err == nil {
		h.holder = 0
	}
	return err
}

// withdraw takes the name away and keeps the namespace open, for what else is to
// be undone in it.
type withdraw struct{}

func (withdraw) String() string         { return "withdraw the namespace" }
func (withdraw) Command(p Place) string { return unpublish{}.Command(p) }
func (withdraw) undo() Step             { return nil }

func (withdraw) apply(_ context.Context, h *Handle) error {
	return nsutil.Unpublish(h.place.Path())
}

// unpublish takes the name away and lets go of the namespace.
type unpublish struct{}

func (unpublish) String() string { return "remove the namespace" }
func (unpublish) undo() Step     { return nil }

func (unpublish) Command(p Place) string {
	if p.Dir == ipDir {
		return "ip netns delete " + p.Name
	}
	return fmt.Sprintf("umount %s && rm %s", quote(p.Path()), quote(p.Path()))
}

func (unpublish) apply(_ context.Context, h *Handle) error { return h.unpublish() }

// setSysctls writes kernel parameters, together since each visit to the
// namespace costs more than a write.
type setSysctls struct{ set, was []sysctl }

func (s setSysctls) String() string {
	if len(s.set) > 3 {
		return fmt.Sprintf("set %d kernel parameters", len(s.set))
	}
	return "set " + s.words()
}

func (s setSysctls) undo() Step {
	if len(s.was) == 0 {
		return nil
	}
	return setSysctls{set: s.was}
}

func (s setSysctls) Command(p Place) string { return p.in("sysctl") + " -qw " + s.words() }

func (s setSysctls) words() string {
	words := make([]string, len(s.set))
	for k, c := range s.set {
		words[k] = quote(c.key + "=" + c.value)
	}
	return strings.Join(words, " ")
}

func (s setSysctls) apply(_ context.Context, h *Handle) error {
	return h.do(func() error {
		var dir sysctlDir
		defer dir.close()
		for _, c := range s.set {
			if err := dir.write(c); err != nil {
				return err
			}
		}
		return nil
	})
}

// destroySockets resets the TCP connections whose processes are gone: while
// their peers do not answer they would keep the namespace, and the peers would
// wait for an address that has left.
type destroySockets struct{}

func (destroySockets) String() string                           { return "close the connections left" }
func (destroySockets) Command(p Place) string                   { return p.in("ss") + " -K >/dev/null" }
func (destroySockets) undo() Step                               { return nil }
func (destroySockets) apply(_ context.Context, h *Handle) error { return h.destroySockets() }

// addAddress gives a link an address.
// IPv6's own duplicate address detection is left out: an address is of no use
// before its end, a second later, and the probe has asked the same question,
// unless the operator wanted none.
type addAddress struct{ Address }

func (s addAddress) String() string { return fmt.Sprintf("add address %s on %s", s.Prefix, s.Dev) }
func (s addAddress) undo() Step     { return delAddress(s) }

func (s addAddress) Command(p Place) string {
	line := fmt.Sprintf("%s address add %s ", p.in("ip"), s.Prefix)
	if s.Prefix.Addr().Is4() && s.Prefix.Bits() < 31 {
		line += "broadcast + "
	}
	line += "dev " + quote(s.Dev)
	if s.Prefix.Addr().Is6() {
		line += " nodad"
	}
	return line
}

func (s addAddress) message(h *Handle) (message, error) {
	index, err := h.index(s.Dev)
	m := address(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, s.Prefix)
	m.put(addressProtocol, []byte{routeProtocol}) // kernels before 5.18 pass over it, as iproute2 does
	return m, err
}

func (s addAddress) apply(_ context.Context, h *Handle) error { return send(s, h) }

// delAddress takes it away.
type delAddress addAddress

func (s delAddress) String() string { return fmt.Sprintf("delete address %s on %s", s.Prefix, s.Dev) }
func (s delAddress) undo() Step     { return addAddress(s) }

func (s delAddress) Command(p Place) string {
	return fmt.Sprintf("%s address delete %s dev %s", p.in("ip"), s.Prefix, quote(s.Dev))
}

func (s delAddress) apply(_ context.Context, h *Handle) error {
	index, err := h.index(s.Dev)
	if err == nil {
		err = h.inside.one(address(unix.RTM_DELADDR, 0, index, s.Prefix))
	}
	return unlessGone(err)
}

// setRoute adds a route, or puts it in the place of one with the same
// destination, table and metric.
type setRoute struct {
	Route
	was *Route
}

func (s setRoute) verb() string {
	if s.was != nil {
		return "replace"
	}
	return "add"
}

func (s setRoute) String() string { return s.verb() + " route " + s.Route.String() }
func (s setRoute) undo() Step {
	if s.was != nil {
		return setRoute{*s.was, &s.Route}
	}
	return delRoute{s.Route}
}

func (s setRoute) Command(p Place) string { return s.Route.command(p, s.verb()) }

func (r Route) command(p Place, verb string) string {
	return fmt.Sprintf("%s route %s %s proto %d", p.in("ip"), verb, r.words(), routeProtocol)
}

// words are iproute2's, which takes default for IPv4's.
func (r Route) words() string {
	r.Dev = quote(r.Dev)
	words := r.String()
	if r.To.Bits() == 0 && r.To.Addr().Is6() {
		words = "::/0" + strings.TrimPrefix(words, "default")
	}
	return words
}

func (s setRoute) message(h *Handle) (message, error) {
	index, err := h.index(s.Dev)
	flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
	if s.was != nil {
		flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	return route(unix.RTM_NEWROUTE, flags, index, s.Route), err
}

func (s setRoute) apply(_ context.Context, h *Handle) error { return send(s, h) }

func (s setRoute) explain(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return refuse("give it another metric", "another route has its destination and metric")
	}
	return err
}

// delRoute takes a route away.
type delRoute struct{ Route }

func (s delRoute) String() string         { return "delete route " + s.Route.String() }
func (s delRoute) undo() Step             { return setRoute{Route: s.Route} }
func (s delRoute) Command(p Place) string { return s.Route.exact().command(p, "delete") }

// exact says a default metric out loud: without one a deletion in IPv6 takes the
// first route to the destination, whatever its metric.
func (r Route) exact() Route {
	if r.To.Addr().Is6() && r.Metric == 0 {
		r.Metric = ip6DefaultMetric
	}
	return r
}

// apply may find that it went with an address that was deleted before.
func (s delRoute) apply(_ context.Context, h *Handle) error {
	index, err := h.index(s.Dev)
	if err == nil {
		err = h.inside.one(route(unix.RTM_DELROUTE, 0, index, s.Route.exact()))
	}
	return unlessGone(err)
}

// delRouter takes a default route away that a router has given, which comes again with what
// that says next where it may.
type delRouter struct{ Route }

func (s delRouter) String() string { return "delete route " + s.Route.String() + " of a router" }
func (delRouter) undo() Step       { return nil }

func (s delRouter) Command(p Place) string {
	return fmt.Sprintf("%s route delete %s proto ra", p.in("ip"), s.Route.exact().words())
}

func (s delRouter) apply(_ context.Context, h *Handle) error {
	index, err := h.index(s.Dev)
	if err == nil {
		m := route(unix.RTM_DELROUTE, 0, index, s.Route.exact())
		m.body[5] = unix.RTPROT_RA // rtm_protocol
		err = h.inside.one(m)
	}
	return unlessGone(err)
}

// routeKey is what the kernel tells routes apart by.
type routeKey struct {
	to            string
	table, metric int
}

func (r Route) key() routeKey { return routeKey{r.To.String(), r.Table, r.Metric} }
