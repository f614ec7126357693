package plumbing

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net"
	"slices"
)

// A MAC is an Ethernet address. The zero MAC means none was given.
type MAC [6]byte

// ParseMAC reads the usual notations of a unicast Ethernet address.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return MAC{}, fmt.Errorf("%q is not a MAC address such as 02:00:5e:10:00:08", s)
	}
	m := MAC(hw)
	switch {
	case m.IsZero():
		return MAC{}, fmt.Errorf("MAC %s is all zero", s)
	case m[0]&1 != 0:
		return MAC{}, fmt.Errorf("MAC %s is a multicast address", s)
	}
	return m, nil
}

// DeriveMAC gives an interface the same address on every enable and after every
// reboot: 46 bits of a hash over the machine's id, the namespace's name and the
// interface's, locally administered (IEEE 802, U/L bit) and unicast.
func DeriveMAC(machineID, namespace, ifname string) MAC {
	sum := sha256.Sum256([]byte("vsrun\x00" + machineID + "\x00" + namespace + "\x00" + ifname))
	m := MAC(sum[:6])
	m[0] = m[0]&^1 | 2
	return m
}

// IsZero reports whether no address was given.
func (m MAC) IsZero() bool { return m == MAC{} }

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

func sortMACs(list []MAC) {
	slices.SortFunc(list, func(a, b MAC) int { return bytes.Compare(a[:], b[:]) })
}

// MarshalText writes the colon notation, and nothing for the zero MAC.
func (m MAC) MarshalText() ([]byte, error) {
	if m.IsZero() {
		return nil, nil
	}
	return []byte(m.String()), nil
}

// UnmarshalText is ParseMAC, with empty text for the zero MAC.
func (m *MAC) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*m = MAC{}
		return nil
	}
	*m, err = ParseMAC(string(b))
	return err
}
