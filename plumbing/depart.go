package plumbing

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A Departure is a namespace of ours that has lost its name. The kernel destroys it soon,
// with its links, unless somebody holds it: ipmd, for a moment, or who looks into it.
type Departure struct {
	Place Place
	id    int    // the host's word for the namespace, which does not hold it
	links []Link // that had a MAC on a port
}

// Depart begins what [Removal] does for one namespace, for many: the kernel waits for its
// readers once for all that are dropped within some milliseconds, but for each link that
// is taken down or deleted. The addresses answer until [AwaitDepartures].
func (h *Handle) Depart(ctx context.Context, have State) (Departure, error) {
	d := Departure{Place: h.place}
	var err error
	for _, l := range have.Links {
		how, _ := l.ending()
		step, needed := l.leaves()
		switch {
		case !needed:
		case l.Parent == 0 && how != goesBack: // it sits on another one inside, and has nothing on a port
		case how != goesDown && !(l.Kind == Vlan && l.Up): // it has no MAC on the port that shows it
			err = errors.Join(err, step.apply(ctx, h))
		default:
			d.links = append(d.links, l)
		}
	}
	if err != nil {
		return d, errors.Join(err, Removal(have).Force(ctx, h))
	}
	if d.id, err = h.named(); err != nil { // nobody could delete them without the name
		return d, errors.Join(fmt.Errorf("cannot name %s: %w", h.place.Name, err), Removal(have).Force(ctx, h))
	}
	return d, (Plan{destroySockets{}, unpublish{}}).Force(ctx, h)
}

// named is the host's id for the namespace, which is given one.
func (h *Handle) named() (id int, err error) {
	err = h.host.one(nameNamespace(h.ns.Fd()))
	if err == nil || errors.Is(err, unix.EEXIST) {
		err = h.host.get(namespaceID(h.ns.Fd()), func(b []byte) { id = decodeID(b) })
	}
	return id, err
}

func decodeID(b []byte) (id int) {
	eachAttr(b[min(rtgenmsgLen, len(b)):], func(typ uint16, value []byte) {
		if typ == unix.NETNSA_NSID {
			id = int(int32(number(value))) // -1: it has none
		}
	})
	return id
}

// hold is how long a departure may take while others go, before it is looked at: 0.4 s was
// seen at the death of a thousand. dying is how long the kernel, which is destroying it, may
// be about it on a busy machine.
const (
	hold  = 500 * time.Millisecond
	dying = 30 * time.Second
)

// AwaitDepartures returns when the MACs of all are off their ports. Links of a namespace
// that somebody holds are deleted. After an error some are left.
func AwaitDepartures(ctx context.Context, list []Departure) (left []Departure, err error) {
	h, err := OpenHost()
	if err != nil {
		return list, err
	}
	defer h.Close()
	left = list
	var held error
	for last, look := time.Now(), hold; ; {
		busy, err := h.left(left)
		if err != nil {
			return left, err
		}
		if len(busy) == 0 {
			return nil, nil
		}
		if len(busy) < len(left) {
			last, look = time.Now(), hold
		}
		left = busy
		if time.Since(last) > dying {
			return left, cmp.Or(held, fmt.Errorf("the kernel has not destroyed %s within %v", left[0].Place.Name, dying))
		}
		if time.Since(last) > look {
			look *= 2
			held = h.deleteHeld(left)
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return left, context.Cause(ctx)
		}
	}
}

// deleteNameless deletes links of the network in namespaces that lost their name to
// somebody who was killed before [AwaitDepartures], and that somebody else holds.
func (h *Handle) deleteNameless(n Network) error {
	var ids []int
	if err := h.host.all(dump(unix.RTM_GETNSID, unix.AF_UNSPEC), func(b []byte) { ids = append(ids, decodeID(b)) }); err != nil {
		return err
	}
	d := Departure{Place: h.place}
	var errs []error
	for _, d.id = range ids {
		d.links = nil
		err := h.host.all(linksIn(d.id), func(b []byte) {
			l := decodeLinkOf(b)
			if h.place.has(l) && slices.ContainsFunc(n.Interfaces, func(i Interface) bool { return i.MAC == l.MAC }) {
				d.links = append(d.links, l)
			}
		})
		if !errors.Is(err, unix.EINVAL) { // it is gone
			errs = append(errs, err)
		}
		errs = append(errs, h.deleteHeld([]Departure{d}))
	}
	return errors.Join(errs...)
}

// decodeLinkOf reads of a link whose it is.
func decodeLinkOf(b []byte) (l Link) {
	if len(b) < unix.SizeofIfInfomsg {
		return l
	}
	heard := decodeHeard(b)
	l = Link{Index: int(binary.NativeEndian.Uint32(b[4:])), Name: heard.Name, Alias: heard.Alias}
	if len(heard.MAC) == len(l.MAC) {
		l.MAC = MAC([]byte(heard.MAC))
	}
	return l
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
				errs = append(errs, fmt.Errorf("cannot delete interface %s of %s, which somebody holds: %w", l.Name, d.Place.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// stillThere is whether the link is in the namespace of that id: one that is being
// destroyed has lost its id (cleanup_net), and it may be another one's by now.
func (h *Handle) stillThere(id int, l Link) (found bool, err error) {
	err = h.host.get(linkGetIn(id, l.Index), func(b []byte) { found = decodeLinkOf(b).MAC == l.MAC })
	if errors.Is(err, unix.EINVAL) { // nobody's
		return false, nil
	}
	return found, unlessGone(err)
}

// left are the departures that have MACs on their ports yet.
func (h *Handle) left(list []Departure) ([]Departure, error) {
	var spots []spot
	for _, d := range list {
		for _, l := range d.links {
			spots = append(spots, spot{l.Parent, l.MAC})
		}
	}
	busy, err := h.taken(spots)
	return slices.DeleteFunc(slices.Clone(list), func(d Departure) bool {
		return !slices.ContainsFunc(d.links, func(l Link) bool { return busy[spot{l.Parent, l.MAC}] })
	}), err
}

// A spot is a MAC on a port's list.
type spot struct {
	port int
	mac  MAC
}

// taken are the spots that somebody has. One that is missing is looked for once more: a long
// list comes in pieces, and when others go in between the next piece begins too late
// (ndo_dflt_fdb_dump counts entries), of which the kernel says nothing.
func (h *Handle) taken(spots []spot) (map[spot]bool, error) {
	seen := map[spot]bool{}
	ports := map[int]bool{}
	for _, s := range spots {
		seen[s], ports[s.port] = false, true
	}
	for range 2 {
		for port := range ports {
			err := h.host.get(portMACs(port), func(b []byte) {
				var s spot
				s.port, s.mac = decodePortMAC(b)
				if _, asked := seen[s]; asked {
					seen[s] = true
				}
			})
			if unlessGone(err) != nil { // else the port has gone, with all on it
				return nil, err
			}
		}
		if !slices.Contains(slices.Collect(maps.Values(seen)), false) {
			break
		}
	}
	return seen, nil
}
