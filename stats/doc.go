// Package stats reads the counters of virtual servers from their network
// namespaces: the interfaces' (/proc/net/dev) and the protocols'
// (/proc/net/snmp, snmp6 and netstat), and writes them as JSON and as metrics.
//
// A [Reader] keeps the files open and reads them again, which takes no entering of
// namespaces and no memory. [Read] is the same, once.
//
// It changes nothing, and does not know which virtual servers there are: it is told. It
// does not make up for counters that start at zero again with their namespace; that
// they have, Sample.Life tells.
//
// The counters are the kernel's own, under the kernel's names; which there are
// is the kernel's affair, and one that it lacks is absent, never zero. The
// loopback device is no interface of a virtual server: its interfaces and their
// total are what crossed the wire. Its packets do count in the MIB, which is the
// whole namespace's.
//
// Contract: a [Sample] is whole or it is an error, and a namespace is kept alive by
// nothing but a Reader, until its Recheck after the name has gone.
package stats
