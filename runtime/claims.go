package runtime

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/vsrun/vsrun/plumbing"
)

// A claim is something that a virtual server has, and others cannot have beside it.
type claim struct {
	key   string // the same for all who want the thing
	words string
	as    string // what others are who may have it beside this one; "" for nobody
}

// meets reports whether two can have the thing, as they want it.
func (c claim) meets(as string) bool { return c.as != "" && c.as == as }

// claims are all of a virtual server, which has its MACs by now. The same address may be
// on two segments: these are two networks.
func (vs VirtualServer) claims() []claim {
	list := []claim{{key: "name " + strings.ToLower(vs.Title()), words: "name " + vs.Title()}}
	for _, i := range vs.Interfaces {
		if !i.MAC.IsZero() {
			list = append(list, claim{key: "mac " + string(i.MAC[:]), words: "MAC " + i.MAC.String()})
		}
		if i.Realm != 0 {
			realm := strconv.Itoa(i.Realm)
			list = append(list, claim{key: "realm " + realm, words: "realm " + realm + ", of which the host has one count"})
		}
		for _, p := range i.Addresses {
			addr := p.Addr().String()
			list = append(list, claim{key: "address " + addr + " " + i.Segment(), words: "address " + addr + " on " + i.On()})
		}
		for _, c := range i.Claims() {
			list = append(list, claim{c.Key, c.Words, c.As})
		}
	}
	for _, v := range vs.Volumes {
		if v.Device != "" {
			list = append(list, claim{key: "device " + v.Device, words: "device " + v.Device})
		}
	}
	return list
}

// claims are those of many virtual servers, by their keys.
type claims map[string][]claimant

type claimant struct {
	id   int
	name string
	as   string
}

func (c claims) add(vs VirtualServer, machineID string) {
	for _, one := range vs.resolved(machineID).claims() {
		c[one.key] = append(c[one.key], claimant{vs.ID, vs.String(), one.as})
	}
}

func (c claims) remove(vs VirtualServer, machineID string) {
	for _, one := range vs.resolved(machineID).claims() {
		var rest []claimant
		for _, o := range c[one.key] {
			if o.id != vs.ID {
				rest = append(rest, o)
			}
		}
		if c[one.key] = rest; rest == nil {
			delete(c, one.key)
		}
	}
}

// refuse reports whose it is when another virtual server has what vs wants.
func (c claims) refuse(vs VirtualServer, machineID string) error {
	for _, one := range vs.resolved(machineID).claims() {
		for _, o := range c[one.key] {
			if o.id != vs.ID && !one.meets(o.as) {
				return &plumbing.Refusal{
					Err:  fmt.Errorf("%s already has %s", o.name, one.words),
					Cure: fmt.Sprintf("choose another, or see it with: vsrun show %d", o.id),
				}
			}
		}
	}
	return nil
}

// A memory is what a store has read, kept up to date.
type memory struct {
	mu        sync.Mutex
	records   records
	unread    int // records that cannot be
	claims    claims
	machineID string
	settled   bool // nothing has changed since they were synced
}

// Keep has the store remember what it has read, until end: for those who do much at once.
// What others change meanwhile, it hears.
func (s *Store) Keep() (end func()) {
	s.memory.Store(&memory{records: newRecords(s)})
	return func() {
		if m := s.memory.Swap(nil); m != nil {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.records.unwatch()
		}
	}
}

func (m *memory) list() ([]VirtualServer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.update(); err != nil {
		return nil, err
	}
	return m.records.list()
}

// refuse is claims' for all that the store has.
func (m *memory) refuse(vs VirtualServer, machineID string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if machineID != m.machineID {
		m.machineID, m.claims = machineID, nil
	}
	if err := m.update(); err != nil {
		return err
	}
	if m.claims == nil {
		m.claims = claims{}
		for _, one := range m.records.byID {
			m.claim(one)
		}
	}
	if m.unread > 0 {
		_, err := m.records.list()
		return err
	}
	return m.claims.refuse(vs, machineID)
}

// settle is the store's: one sync is enough for all that has been read before.
func (m *memory) settle() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.records.watched == nil { // to sync is less than to read all
		return settle(m.records.store.dir)
	}
	if err := m.update(); err != nil || m.settled {
		return err
	}
	err := settle(m.records.store.dir)
	m.settled = err == nil
	return err
}

func (m *memory) update() error {
	old, err := m.records.update()
	m.settled = m.settled && err == nil && len(old) == 0
	for id, was := range old {
		now := m.records.byID[id]
		if was.err != nil {
			m.unread--
		} else if m.claims != nil && was.vs.ID != 0 {
			m.claims.remove(was.vs, m.machineID)
		}
		if now.err != nil {
			m.unread++
		}
		if m.claims != nil {
			m.claim(now)
		}
	}
	return err
}

func (m *memory) claim(one listed) {
	if one.err == nil && one.vs.ID != 0 {
		m.claims.add(one.vs, m.machineID)
	}
}
