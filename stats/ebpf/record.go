package ebpf

// A record is what the program writes of one namespace: struct record of counters.bpf.c.
type record struct {
	run, cookie                                      uint64
	_, _                                             uint64
	lacks, links, messages, settled, forwarding, ttl uint32
	value                                            [512]uint64
	message                                          [64]message
	link                                             [8]link
}

// What a record lacks.
const (
	noMIB = 1 << iota
	noMessages
	noLinks
)

// A message is how many of one type of ICMP there were: from sent on those sent, and from
// version6 on those of IPv6.
type message struct {
	kind, _ uint32
	count   uint64
}

const (
	sent     = 256
	version6 = 512
)

type link struct {
	name                                                                             [16]byte
	rxBytes, rxPackets, rxErrors, rxDropped, txBytes, txPackets, txErrors, txDropped uint64
}

// mibs are the structures that the values come from, in the order of MIBS in
// counters.bpf.c, and what the enumerators of their places begin with.
var mibs = [...]string{
	"IPSTATS_MIB_", "ICMP_MIB_", "TCP_MIB_", "UDP_MIB_", "UDP_MIB_", "LINUX_MIB_",
	"IPSTATS_MIB_", "ICMP6_MIB_", "UDP_MIB_", "UDP_MIB_", "MPTCP_MIB_",
}

// groups tell which of mibs a group of /proc is of.
var groups = map[string]int{
	"Ip": 0, "IpExt": 0, "Icmp": 1, "Tcp": 2, "Udp": 3, "UdpLite": 4, "TcpExt": 5,
	"Ip6": 6, "Icmp6": 7, "Udp6": 8, "UdpLite6": 9, "MPTcpExt": 10,
}
