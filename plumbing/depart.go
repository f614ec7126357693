package plumbing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A Departure is a namespace of ours that has lost its name. The kernel destroys it soon,
// with its links, unless somebody holds it: ipmd, for a moment, or who looks into it.
type Departure struct {
	place Place
	id    int    // the host's word for the namespace, which does not hold it
	links []Link // that had a MAC on a port
}

// Depart begins what [Removal] does for one namespace, for many: the kernel waits for its
// readers once for all that are dropped within some milliseconds, but for each link that
// is taken down or deleted. The addresses answer until [AwaitDepartures].
func (h *Handle) Depart(ctx context.Context, have State) (Departure, error) {
	d := Departure{place: h.place}
	for _, l := range have.Links {
		if l.Kind == Macvlan || l.Kind == Vlan {
			d.links = append(d.links, l)
		}
	}
	if err := (Plan{destroySockets{}}).Force(ctx, h); err != nil {
		return d, err
	}
	err := h.host.one(nameNamespace(h.ns.Fd()))
	if err == nil || errors.Is(err, unix.EEXIST) {
		err = h.host.get(namespaceID(h.ns.Fd()), func(b []byte) {
			eachAttr(b[min(rtgenmsgLen, len(b)):], func(typ uint16, value []byte) {
				if typ == unix.NETNSA_NSID {
					d.id = number(value)
				}
			})
		})
	}
	if err != nil {
		return d, fmt.Errorf("cannot name %s: %w", h.place.Name, err)
	}
	return d, (Plan{unpublish{}}).Force(ctx, h)
}

// hold is how long a departure may take while others go, before it is looked at: 0.4 s was
// seen at the death of a thousand. dying is how long after that the kernel, which is
// destroying it, may be about it on a busy machine.
const (
	hold     = 500 * time.Millisecond
	dying = 30 * time.Second
)

// AwaitDepartures returns when the MACs of all are off their ports. Links of a namespace
// that somebody holds are deleted.
func AwaitDepartures(ctx context.Context, list []Departure) error {
	h, err := OpenHost()
	if err != nil {
		return err
	}
	defer h.Close()
	left := list
	for last, look := time.Now(), hold; ; {
		before := len(left)
		if left, err = h.left(left); err != nil || len(left) == 0 {
			return err
		}
		if len(left) < before {
			last, look = time.Now(), hold
		}
		if time.Since(last) > dying {
			return fmt.Errorf("the kernel has not destroyed %s within %v", left[0].place.Name, dying)
		}
		if time.Since(last) > look {
			look *= 2
			if err := h.deleteHeld(left); err != nil {
				return err
			}
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// deleteHeld deletes the links of namespaces that somebody holds.
func (h *Handle) deleteHeld(list []Departure) error {
	var errs []error
	for _, d := range list {
		for _, l := range d.links {
			held, err := h.stillThere(d.id, l)
			if held {
				err = unlessGone(h.host.one(linkDeleteIn(d.id, l.Index)))
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("cannot delete interface %s of %s, which somebody holds: %w", l.Name, d.place.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// stillThere is whether the link is in the namespace of that id: one that is being
// destroyed has lost its id (cleanup_net), and it may be another one's by now.
func (h *Handle) stillThere(id int, l Link) (found bool, err error) {
	err = h.host.get(linkGetIn(id, l.Index), func(b []byte) {
		var mac MAC
		eachAttr(b[min(unix.SizeofIfInfomsg, len(b)):], func(typ uint16, value []byte) {
			if typ == unix.IFLA_ADDRESS && len(value) == len(mac) {
				mac = MAC(value)
			}
		})
		found = mac == l.MAC
	})
	if errors.Is(err, unix.EINVAL) { // nobody's
		return false, nil
	}
	return found, unlessGone(err)
}

// left are the departures that have MACs on their ports yet.
func (h *Handle) left(list []Departure) ([]Departure, error) {
	type spot struct {
		port int
		mac  MAC
	}
	busy := map[spot]bool{}
	looked := map[int]bool{}
	for _, d := range list {
		for _, l := range d.links {
			if looked[l.Parent] {
				continue
			}
			looked[l.Parent] = true
			err := h.host.get(portMACs(l.Parent), func(b []byte) {
				port, mac := decodePortMAC(b)
				busy[spot{port, mac}] = true
			})
			if unlessGone(err) != nil {
				return nil, err
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(list), func(d Departure) bool {
		return !slices.ContainsFunc(d.links, func(l Link) bool { return busy[spot{l.Parent, l.MAC}] })
	}), nil
}
