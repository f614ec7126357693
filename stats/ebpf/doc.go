// Package ebpf reads the counters of many network namespaces at once, by a program that
// runs in the kernel when it is asked to and is attached to nothing. It is a
// [stats.Bulk].
//
// It reads what /proc prints, from where the kernel counts it: the MIB, whole, and
// interfaces that are macvlans, VLANs or ipvlans. It does not read sockets and
// connection tracking, nor other kinds of interfaces, whose drivers alone know their
// counters.
//
// It needs Linux 5.19 with a description of its types (CONFIG_DEBUG_INFO_BTF), CAP_BPF and
// CAP_PERFMON. Where a structure has what, that description says, so one object fits all
// kernels; a counter that it cannot place is a reason not to be used at all.
//
// Contract: what it reads is what /proc would have said, or it reads nothing. It pins
// nothing: all of it goes with the process.
package ebpf
