package stats

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// A MIB is the counters of a namespace's protocols, in the kernel's order. In
// JSON it is an object of objects: {"Ip":{"InReceives":12,…},"Tcp":{…},…}.
//
// Names are letters, digits and underscores, and differ within a Group.
type MIB []Group

// A Group is the counters of one protocol: Ip, Icmp, IcmpMsg, Tcp, Udp, UdpLite,
// Ip6, Icmp6, Udp6, UdpLite6, TcpExt, IpExt, MPTcpExt, or what else the kernel
// has.
type Group struct {
	Name     string
	Counters []Counter
}

// A Counter is signed for Tcp's MaxConn, which is -1 where there is no limit,
// and for gauges that the kernel adds up from per-CPU parts while they change
// (CurrEstab): it prints those below zero as 2⁶⁴ less so much.
type Counter struct {
	Name  string
	Value int64
}

// Lookup is the value of a counter, and whether the kernel has it.
func (m MIB) Lookup(group, name string) (int64, bool) {
	for _, g := range m {
		if g.Name != group {
			continue
		}
		for _, c := range g.Counters {
			if c.Name == name {
				return c.Value, true
			}
		}
	}
	return 0, false
}

// group is the group of that name, added when it is not there yet. The counters that
// an earlier reading had in its place are written over.
func (m *MIB) group(name string) *Group {
	n := len(*m)
	for i := range n {
		if g := &(*m)[i]; g.Name == name {
			return g
		}
	}
	if n == cap(*m) {
		*m = append(*m, Group{})
	}
	*m = (*m)[:n+1]
	g := &(*m)[n]
	g.Name, g.Counters = name, g.Counters[:0]
	return g
}

// check refuses names that could be neither a metric's nor a JSON key, and names
// that are there twice.
func (m MIB) check() error {
	groups := make(map[string]bool)
	counters := make(map[string]bool)
	for _, g := range m {
		if err := checkName(g.Name, groups); err != nil {
			return fmt.Errorf("group %w", err)
		}
		clear(counters)
		for _, c := range g.Counters {
			if err := checkName(c.Name, counters); err != nil {
				return fmt.Errorf("%s: counter %w", g.Name, err)
			}
		}
	}
	return nil
}

func checkName(name string, seen map[string]bool) error {
	if name == "" {
		return fmt.Errorf("without a name")
	}
	for _, c := range []byte(name) {
		if !isNameByte(c) {
			return fmt.Errorf("%.40q: not a name of letters and digits", name)
		}
	}
	if seen[name] {
		return fmt.Errorf("%.40q: there twice", name)
	}
	seen[name] = true
	return nil
}

func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

// MarshalJSON keeps the kernel's order, which a map would lose.
func (m MIB) MarshalJSON() ([]byte, error) { return m.appendJSON(nil), nil }

// UnmarshalJSON reads what MarshalJSON wrote, in its order. Values that are not
// whole numbers of 64 bits, and names that no kernel has, are errors.
func (m *MIB) UnmarshalJSON(b []byte) error {
	if string(b) == "null" { // by convention a no-op
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	read := MIB{}
	err := decodeObject(d, func(name string) error {
		g := Group{Name: name}
		err := decodeObject(d, func(name string) error {
			c := Counter{Name: name}
			err := decodeInt(d, &c.Value)
			g.Counters = append(g.Counters, c)
			return err
		})
		read = append(read, g)
		return err
	})
	if err == nil {
		err = read.check()
	}
	if err != nil {
		return fmt.Errorf("cannot decode the MIB: %w", err)
	}
	*m = read
	return nil
}

// decodeObject calls member for each key of the object that comes next; member
// decodes its value.
func decodeObject(d *json.Decoder, member func(key string) error) error {
	if t, err := d.Token(); err != nil {
		return err
	} else if t != json.Delim('{') {
		return fmt.Errorf("%v where an object should be", t)
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		if err := member(key.(string)); err != nil { // the decoder lets no other key through
			return err
		}
	}
	_, err := d.Token() // the closing brace
	return err
}

// decodeInt refuses null, which encoding/json alone would take for zero.
func decodeInt(d *json.Decoder, v *int64) error {
	var p *int64
	if err := d.Decode(&p); err != nil {
		return err
	}
	if p == nil {
		return fmt.Errorf("null where a number should be")
	}
	*v = *p
	return nil
}
