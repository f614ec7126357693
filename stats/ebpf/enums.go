package ebpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
)

// typesFile is the kernel's description of its types (BTF).
const typesFile = "/sys/kernel/btf/vmlinux"

// places are the values of all enumerators that say where a MIB has a counter, by name.
func places() (map[string]uint32, error) {
	raw, err := os.ReadFile(typesFile)
	if err != nil {
		return nil, fmt.Errorf("the kernel does not describe its types: %w", err)
	}
	found, err := enumerators(raw, func(name string) bool { return strings.Contains(name, "_MIB_") })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", typesFile, err)
	}
	return found, nil
}

// Kinds of types, and how many bytes they have after their head, for each of their members
// or at all (linux Documentation/bpf/btf.rst).
const btfEnum = 6

var btfEach = map[uint32]int{4: 12, 5: 12, btfEnum: 8, 13: 8, 15: 12, 19: 12}
var btfOnce = map[uint32]int{1: 4, 3: 12, 14: 4, 17: 4}

var errShort = errors.New("it ends before its end")

// enumerators goes through the types itself: most of these enumerations have no name, and
// a library finds one without by making all of the kernel's 100,000 types.
func enumerators(raw []byte, wanted func(string) bool) (map[string]uint32, error) {
	order := binary.NativeEndian
	if len(raw) < 24 || order.Uint16(raw) != 0xeb9f {
		return nil, errors.New("it is no description of types")
	}
	head := uint64(order.Uint32(raw[4:]))
	part := func(at int) []byte {
		from := head + uint64(order.Uint32(raw[at:]))
		to := from + uint64(order.Uint32(raw[at+4:]))
		if to > uint64(len(raw)) {
			return nil
		}
		return raw[from:to]
	}
	types, names := part(8), part(16)
	if types == nil || names == nil {
		return nil, errShort
	}
	found := make(map[string]uint32)
	for len(types) > 0 {
		if len(types) < 12 {
			return nil, errShort
		}
		info := order.Uint32(types[4:])
		kind, count := info>>24&0x1f, int(info&0xffff)
		size := 12 + btfEach[kind]*count + btfOnce[kind]
		if size > len(types) {
			return nil, errShort
		}
		for member := types[12:size]; kind == btfEnum && len(member) > 0; member = member[8:] {
			at := order.Uint32(member)
			if at > uint32(len(names)) {
				return nil, errShort
			}
			if name, _, ok := strings.Cut(string(names[at:min(len(names), int(at)+64)]), "\x00"); ok && wanted(name) {
				found[name] = order.Uint32(member[4:])
			}
		}
		types = types[size:]
	}
	return found, nil
}
