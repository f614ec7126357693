package cgroup

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
)

// A Meter reads what a virtual server and its services use, again and again. It keeps
// their directories open, not the files, of which there are ten times as many. While
// nothing comes or goes, reading allocates nothing.
type Meter struct {
	tree     *Tree
	name     string
	places   []nsutil.Name // in the hierarchies
	whole    *Group        // nil while there is none
	links    uint64        // of its first directory, when the services were looked up
	services []service
}

// A service is its cgroup, the nth of those that it had.
type service struct {
	name  string
	n     int
	group *Group
}

// Meter is that of a virtual server.
func (t *Tree) Meter(name string) *Meter {
	m := &Meter{tree: t, name: name}
	for _, path := range t.paths {
		if p, err := nsutil.NameOf(place(path, name)); err == nil {
			m.places = append(m.places, p)
		}
	}
	return m
}

// Of reports whether it is a meter of this tree, or of one that was found there again.
func (m *Meter) Of(t *Tree) bool { return slices.Equal(m.tree.paths, t.paths) }

// Read reads what is used, and what each service uses, by name, with a buffer of 4096
// bytes. It uses the memory again that is in use and services; they are nil and empty
// where there is no cgroup.
func (m *Meter) Read(buf []byte, use **Use, services *[]ServiceUse) {
	*services = (*services)[:0]
	for range 2 { // once more, when it was removed since, and perhaps made anew
		if m.whole == nil && !m.open() {
			break
		}
		if r := m.whole.measure(buf); r != (reading{}) {
			if *use == nil {
				*use = new(Use)
			}
			r.into(*use)
			*services = m.readServices(buf, *services)
			return
		}
		m.Close()
	}
	*use = nil
}

// readServices reads what each service uses, and looks for them again when one has gone
// meanwhile. What has come is seen by the count of directories, which is the links of the
// one above.
func (m *Meter) readServices(buf []byte, list []ServiceUse) []ServiceUse {
	if links(m.whole.dirs[0]) != m.links {
		m.lookUp()
	}
	for range 3 {
		list = list[:0]
		for _, s := range m.services {
			r := s.group.measure(buf)
			if r == (reading{}) {
				break
			}
			list = extend(list)
			last := &list[len(list)-1]
			last.Name = s.name
			r.into(&last.Use)
		}
		if len(list) == len(m.services) {
			break
		}
		m.lookUp()
	}
	return list
}

// extend adds one more, which may be one that was there before.
func extend(list []ServiceUse) []ServiceUse {
	if n := len(list); n < cap(list) {
		return list[:n+1]
	}
	return append(list, ServiceUse{})
}

// open opens the cgroup. That there is none is found out without allocating.
func (m *Meter) open() bool {
	if !slices.ContainsFunc(m.places, isThere) {
		return false
	}
	if m.whole = m.tree.Open(m.name); m.whole == nil {
		return false
	}
	m.lookUp()
	return true
}

func isThere(place nsutil.Name) bool {
	_, err := place.ID()
	return err == nil
}

// lookUp looks for the services. Of one with several cgroups the last counts: in the
// others is what was killed, and has not ended yet.
func (m *Meter) lookUp() {
	m.closeServices()
	m.links = links(m.whole.dirs[0])
	for _, group := range below(m.whole.dirs[0]) {
		name, ok := strings.CutSuffix(group, ofService)
		if !ok {
			continue
		}
		name, number, _ := strings.Cut(name, "@")
		n, _ := strconv.Atoi(number)
		k := slices.IndexFunc(m.services, func(s service) bool { return s.name == name })
		if k >= 0 && m.services[k].n > n {
			continue
		}
		g, err := m.whole.open(group)
		if err != nil { // it has just gone
			continue
		}
		if k < 0 {
			m.services = append(m.services, service{name, n, g})
			continue
		}
		m.services[k].group.Close()
		m.services[k] = service{name, n, g}
	}
	slices.SortFunc(m.services, func(a, b service) int { return strings.Compare(a.name, b.name) })
}

func links(d *os.File) uint64 {
	var st unix.Stat_t
	if unix.Fstat(int(d.Fd()), &st) != nil {
		return 0
	}
	return uint64(st.Nlink)
}

// Files is how many descriptors are open. A nil meter has none.
func (m *Meter) Files() int {
	if m == nil {
		return 0
	}
	n := len(m.whole.in())
	for _, s := range m.services {
		n += len(s.group.in())
	}
	return n
}

// Close closes all. What is read after that is opened again.
func (m *Meter) Close() {
	if m == nil {
		return
	}
	m.closeServices()
	m.whole.Close()
	m.whole = nil
}

func (m *Meter) closeServices() {
	for _, s := range m.services {
		s.group.Close()
	}
	m.services = m.services[:0]
}
