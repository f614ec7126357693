package stats

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strconv"
)

// rtAcct is struct ip_rt_acct[256] (include/net/route.h), the whole host's in whatever
// namespace it is read.
const rtAcct = "/proc/net/rt_acct"

// Realms is what the host has received in routing realms, 1 to 255, since it was booted:
// rxBytes and rxPackets of IPv4, in a group for each. The kernel counts in 32 bits, and
// nothing that is sent. A kernel without CONFIG_IP_ROUTE_CLASSID is fs.ErrNotExist.
func Realms(realms ...int) (MIB, error) {
	b, err := os.ReadFile(rtAcct)
	if err != nil {
		return nil, fmt.Errorf("cannot read what realms have received: %w", err)
	}
	var m MIB
	slices.Sort(realms)
	for _, realm := range slices.Compact(realms) {
		const size, inBytes, inPackets = 16, 8, 12
		if len(b) < (realm+1)*size {
			return nil, fmt.Errorf("cannot read what realms have received: %s ends at %d bytes", rtAcct, len(b))
		}
		one := b[realm*size:]
		m = append(m, Group{strconv.Itoa(realm), []Counter{
			{"rxBytes", int64(binary.NativeEndian.Uint32(one[inBytes:]))},
			{"rxPackets", int64(binary.NativeEndian.Uint32(one[inPackets:]))},
		}})
	}
	return m, nil
}
