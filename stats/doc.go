// Package stats reads the counters of virtual servers from their network
// namespaces: the interfaces' (/proc/net/dev) and the protocols'
// (/proc/net/snmp, snmp6 and netstat), and writes them as JSON and as metrics.
//
// It changes nothing, keeps nothing open and nothing in memory between two
// readings, and does not know which virtual servers there are: it is told. It
// does not make up for counters that start at zero again with their namespace.
//
// The counters are the kernel's own, under the kernel's names; which there are
// is the kernel's affair, and one that it lacks is absent, never zero. The
// loopback device is no interface of a virtual server: its interfaces and their
// total are what crossed the wire. Its packets do count in the MIB, which is the
// whole namespace's.
//
// Contract: a [Sample] is whole or it is an error, and reading one never keeps a
// namespace alive.
package stats
