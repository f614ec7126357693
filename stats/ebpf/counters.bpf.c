//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

// Copies the counters of the wanted network namespaces from the kernel's per-CPU
// structures into records. It is attached to nothing: it runs when it is asked to
// (BPF_PROG_TEST_RUN), within an RCU read-side section, which keeps all that is walked
// here in memory. Where each structure has what is read here the loader finds in the
// kernel's own description of its types (CO-RE), which is why they are told only so far.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define NULL ((void *)0)

// Maps, as the loader reads them from their types.
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name
enum { BPF_MAP_TYPE_HASH = 1, BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_PERCPU_ARRAY = 6, BPF_F_MMAPABLE = 1 << 10 };

// linux uapi/linux/bpf.h
static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static u64 (*const bpf_get_current_task)(void) = (void *)35;
static long (*const bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*const bpf_probe_read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;
static long (*const bpf_loop)(u32 times, void *fn, void *context, u64 flags) = (void *)181;
static void *(*const bpf_map_lookup_percpu_elem)(void *map, const void *key, u32 cpu) = (void *)195;

#define offset_of(type, member) __builtin_preserve_field_info(((type *)0)->member, 0)
#define size_of(type, member) __builtin_preserve_field_info(((type *)0)->member, 1)
#define has(type, member) __builtin_preserve_field_info(((type *)0)->member, 2)

// read is a field of a structure of the kernel's; zero where the address is none.
#define address(pointer, member) ((void *)(pointer) + offset_of(typeof(*(pointer)), member))
#define read(pointer, member) ({                                                    \
	typeof((pointer)->member) value = 0;                                        \
	bpf_probe_read_kernel(&value, sizeof(value), address(pointer, member));     \
	value;                                                                      \
})

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct list_head {
	struct list_head *next, *prev;
};

struct ns_common {
	u32 inum;
};

struct ipstats_mib { u64 mibs[1]; };
struct icmp_mib { u64 mibs[1]; };
struct tcp_mib { u64 mibs[1]; };
struct udp_mib { u64 mibs[1]; };
struct linux_mib { u64 mibs[1]; };
struct icmpv6_mib { u64 mibs[1]; };
struct mptcp_mib { u64 mibs[1]; };

struct netns_mib {
	struct ipstats_mib *ip_statistics, *ipv6_statistics;
	struct tcp_mib *tcp_statistics;
	struct linux_mib *net_statistics;
	struct udp_mib *udp_statistics, *udp_stats_in6, *udplite_statistics, *udplite_stats_in6;
	struct icmp_mib *icmp_statistics;
	struct icmpv6_mib *icmpv6_statistics;
	struct mptcp_mib *mptcp_statistics;
	void *icmpmsg_statistics, *icmpv6msg_statistics;
};

struct ipv4_devconf {
	int data[1];
};

struct netns_ipv4 {
	struct ipv4_devconf *devconf_all;
	u8 sysctl_ip_default_ttl;
};

struct net {
	struct list_head list;
	struct ns_common ns;
	u64 net_cookie;
	struct list_head dev_base_head;
	struct netns_mib mib;
	struct netns_ipv4 ipv4;
};

struct nsproxy {
	struct net *net_ns;
};

struct task_struct {
	int pid;
	struct task_struct *real_parent;
	struct nsproxy *nsproxy;
};

struct rtnl_link_ops {
	char *kind;
};

struct net_device_core_stats {
	unsigned long rx_dropped, tx_dropped;
};

struct net_device {
	char name[16];
	struct list_head dev_list;
	struct rtnl_link_ops *rtnl_link_ops;
	struct net_device_core_stats *core_stats;
	u8 priv[0]; // since Linux 6.10
};

typedef struct {
	u64 v;
} u64_stats_t;

struct vlan_pcpu_stats {
	u64_stats_t rx_packets, rx_bytes, tx_packets, tx_bytes;
	u32 rx_errors, tx_dropped;
};

struct macvlan_dev {
	struct vlan_pcpu_stats *pcpu_stats;
};

struct vlan_dev_priv {
	struct vlan_pcpu_stats *vlan_pcpu_stats;
};

struct ipvl_pcpu_stats {
	u64_stats_t rx_pkts, rx_bytes, tx_pkts, tx_bytes;
	u32 rx_errs, tx_drps;
};

struct ipvl_dev {
	struct ipvl_pcpu_stats *pcpu_stats;
};

struct bpf_array {
	void *pptrs[0];
};

#pragma clang attribute pop

// What is exchanged with the loader: see records.go.

enum { VALUES = 512, MESSAGES = 64, LINKS = 8, CPUS = 1024 };

// MIBS are the members of struct netns_mib that have values of each CPU, by the type
// that they point to.
#define MIBS(each)                               \
	each(ip_statistics, ipstats_mib)         \
	each(icmp_statistics, icmp_mib)          \
	each(tcp_statistics, tcp_mib)            \
	each(udp_statistics, udp_mib)            \
	each(udplite_statistics, udp_mib)        \
	each(net_statistics, linux_mib)          \
	each(ipv6_statistics, ipstats_mib)       \
	each(icmpv6_statistics, icmpv6_mib)      \
	each(udp_stats_in6, udp_mib)             \
	each(udplite_stats_in6, udp_mib)         \
	each(mptcp_statistics, mptcp_mib)

#define number(member, type) MIB_##member,
enum { MIBS(number) COUNT };
#undef number

// What a record lacks: /proc has to be asked for that.
enum { NO_MIB = 1, NO_MESSAGES = 2, NO_LINKS = 4 };

struct message { // of ICMP
	u32 type; // from 256 on: those sent; from 512 on: IPv6
	u32 unused;
	u64 count;
};

union kind {
	char text[16];
	u64 word[2];
};

struct link {
	union kind name;
	u64 rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped;
};

struct record {
	u64 run; // which has written it
	u64 cookie;
	u64 sum, since; // what ICMP has counted, and when it was that at first
	u32 lacks, links, messages, settled, forwarding, ttl;
	u64 value[VALUES];
	struct message message[MESSAGES];
	struct link link[LINKS];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); // the loader says how many
	__type(key, u32);       // the namespace's inode
	__type(value, u32);     // the index of its record
} wanted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct record);
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} anchor SEC(".maps");

const volatile u32 cpus = 1;        // that are possible
const volatile u32 cpu[CPUS] = {};  // their numbers
const volatile u32 priv_offset = 0; // of a device's private data

u64 at[COUNT + 1]; // where in a record each MIB's values begin, and all end
u64 offset[CPUS];  // of each CPU's part of per-CPU memory

// What follows is of the one run that there is at a time.
static u64 run;
static u64 part[VALUES];  // the values of one CPU; zero where a MIB is not there (yet)
static u64 pointers[64]; // a struct netns_mib
static u64 mib[COUNT];    // per-CPU pointers in it
static u64 counted[512];  // messages, by type

#define values(type) (size_of(struct type, mibs) / 8)

// plain makes a number of a pointer that the verifier would let nobody calculate with.
INLINE u64 plain(void *pointer)
{
	static volatile u64 number;
	number = (u64)pointer;
	return number;
}

INLINE u64 total(void)
{
	u64 n = 0;
#define add_one(member, type) if (has(struct netns_mib, member)) n += values(type);
	MIBS(add_one)
#undef add_one
	return n;
}

// locate says where things are, once.
SEC("raw_tp")
int locate(void *context)
{
	u64 next = 0;
#define locate_one(member, type)                \
	at[MIB_##member] = next;                \
	if (has(struct netns_mib, member))      \
		next += values(type);
	MIBS(locate_one)
#undef locate_one
	at[COUNT] = next;

	// The kernel's table of these offsets has no address that is told. But a map of
	// values of each CPU says where one is on each, and where it is for all.
	u64 all = 0;
	bpf_probe_read_kernel(&all, sizeof(all), (void *)(plain(&anchor) + offset_of(struct bpf_array, pptrs)));
	u32 zero = 0;
	for (u32 k = 0; k < CPUS; k++) {
		if (k >= cpus)
			break;
		u64 one = plain(bpf_map_lookup_percpu_elem(&anchor, &zero, cpu[k]));
		if (!one)
			return 1;
		offset[k] = one - all;
	}
	return all == 0;
}

// copy copies one CPU's part of each MIB that the namespace has, and is zero when it could.
INLINE long copy(u64 *to, u64 cpu_offset)
{
	u64 next = 0;
	long failed = 0;
#define copy_one(member, type)                                                                     \
	if (has(struct netns_mib, member)) {                                                       \
		if (mib[MIB_##member])                                                             \
			failed |= bpf_probe_read_kernel(to + next, size_of(struct type, mibs),     \
							(void *)(mib[MIB_##member] + cpu_offset)); \
		next += values(type);                                                              \
	}
	MIBS(copy_one)
#undef copy_one
	return failed;
}

struct one {
	struct record *record;
	u64 stats; // a link's per-CPU pointer
};

static long add_cpu(u32 i, struct one *o)
{
	if (++i >= CPUS)
		return 1;
	if (copy(part, offset[i])) {
		o->record->lacks |= NO_MIB;
		return 1;
	}
	u64 *to = o->record->value;
	for (u64 k = 0, n = total(); k < n; k += 8) // up to seven too many, which nobody reads
#pragma clang loop unroll(full)
		for (u64 j = 0; j < 8; j++)
			to[k + j] += part[k + j];
	return 0;
}

// clear clears the values of a MIB that is not there (yet).
INLINE void clear(u64 *to, u64 n)
{
	for (u64 k = 0; k < n; k++) {
		to[k] = 0;
		asm volatile("" ::: "memory"); // or this becomes memset(), which there is none of
	}
}

INLINE void read_mib(struct record *r, struct net *net)
{
	// The pointers are read at once.
	u64 next = 0;
	if (bpf_probe_read_kernel(pointers, __builtin_preserve_type_info(*(struct netns_mib *)0, 1), address(net, mib)))
		r->lacks |= NO_MIB;
#define point(member, type)                                                                        \
	if (has(struct netns_mib, member)) {                                                       \
		mib[MIB_##member] = *(u64 *)((void *)pointers + offset_of(struct netns_mib, member)); \
		if (!mib[MIB_##member]) {                                                          \
			clear(r->value + next, values(type));                                      \
			clear(part + next, values(type)); /* of the namespace before */           \
		}                                                                                  \
		next += values(type);                                                              \
	}
	MIBS(point)
#undef point
	if (copy(r->value, offset[0]))
		r->lacks |= NO_MIB;
	struct one o = {r, 0};
	bpf_loop(cpus - 1, add_cpu, &o, 0);
	struct ipv4_devconf *all = read(net, ipv4.devconf_all);
	r->forwarding = read(all, data[0]);
	r->ttl = read(net, ipv4.sysctl_ip_default_ttl);
}

// add_messages adds the types of ICMP messages that one IP version has seen.
INLINE void add_messages(struct record *r, void *counts, u32 base)
{
	if (!counts)
		return;
	if (bpf_probe_read_kernel(counted, sizeof(counted), counts)) {
		r->lacks |= NO_MESSAGES;
		return;
	}
	for (u32 k = 0; k < 512; k += 8) {
		u64 *c = &counted[k];
		if (!(c[0] | c[1] | c[2] | c[3] | c[4] | c[5] | c[6] | c[7]))
			continue;
		for (u32 j = 0; j < 8; j++) {
			if (!c[j])
				continue;
			u32 n = r->messages;
			if (n >= MESSAGES) {
				r->lacks |= NO_MESSAGES;
				return;
			}
			r->message[n].type = base + k + j;
			r->message[n].count = c[j];
			r->messages = n + 1;
		}
	}
}

// read_messages takes the longest of all where there is much to look through and nothing
// new. So it is not done when ICMP has counted no message since: each is counted there
// and by its type, and both within the RCU read-side section that it is handled in, of
// which none takes a second.
INLINE void read_messages(struct record *r, struct net *net)
{
	u64 next = 0, sum = 0;
#define sum_one(member, type)                                                                      \
	if (has(struct netns_mib, member)) {                                                       \
		if (MIB_##member == MIB_icmp_statistics || MIB_##member == MIB_icmpv6_statistics) \
			for (u64 k = 0; k < values(type); k++)                                     \
				sum += r->value[next + k];                                         \
		next += values(type);                                                              \
	}
	MIBS(sum_one)
#undef sum_one
	u64 now = bpf_ktime_get_ns();
	if (r->sum != sum || !r->since) {
		r->sum = sum;
		r->since = now;
	} else if (r->settled) {
		return;
	}
	r->settled = now - r->since > 1000000000;
	r->messages = 0;
	r->lacks &= ~NO_MESSAGES;
	add_messages(r, read(net, mib.icmpmsg_statistics), 0);
	add_messages(r, read(net, mib.icmpv6msg_statistics), 512);
}

// add_cpu_of makes a function that adds one CPU's part of a link's counters.
#define field(width, type, member) (*(width *)((void *)part + offset_of(type, member)))
#define add_cpu_of(name, type, rxb, rxp, rxe, txb, txp, txd)                    \
	static long name(u32 i, struct one *o)                                  \
	{                                                                       \
		struct record *r = o->record;                                   \
		struct link *l = &r->link[r->links & (LINKS - 1)];              \
		if (i >= CPUS)                                                  \
			return 1;                                               \
		if (bpf_probe_read_kernel(part, __builtin_preserve_type_info(*(type *)0, 1), \
					  (void *)(o->stats + offset[i]))) {    \
			r->lacks |= NO_LINKS;                                   \
			return 1;                                               \
		}                                                               \
		l->rx_bytes += field(u64, type, rxb);                                \
		l->rx_packets += field(u64, type, rxp);                              \
		l->rx_errors += field(u32, type, rxe);                               \
		l->tx_bytes += field(u64, type, txb);                                \
		l->tx_packets += field(u64, type, txp);                              \
		l->tx_dropped += field(u32, type, txd);                              \
		return 0;                                                       \
	}
add_cpu_of(add_vlan, struct vlan_pcpu_stats, rx_bytes, rx_packets, rx_errors, tx_bytes, tx_packets, tx_dropped)
add_cpu_of(add_ipvlan, struct ipvl_pcpu_stats, rx_bytes, rx_pkts, rx_errs, tx_bytes, tx_pkts, tx_drps)

// add_core adds what dev_get_stats() does for links of all kinds (linux net/core/dev.c).
static long add_core(u32 i, struct one *o)
{
	struct link *l = &o->record->link[o->record->links & (LINKS - 1)];
	if (i >= CPUS)
		return 1;
	struct net_device_core_stats *s = (void *)(o->stats + offset[i]);
	l->rx_dropped += read(s, rx_dropped);
	l->tx_dropped += read(s, tx_dropped);
	return 0;
}

INLINE int is(union kind k, union kind other)
{
	return k.word[0] == other.word[0] && k.word[1] == other.word[1];
}

// read_link adds a link, and is false when it is of a kind whose counters are elsewhere.
INLINE int read_link(struct record *r, struct net_device *dev)
{
	struct link *l = &r->link[r->links & (LINKS - 1)];
	union kind name = {}, kind = {};
	bpf_probe_read_kernel_str(name.text, sizeof(name), address(dev, name));
	if (is(name, (union kind){"lo"}))
		return 1;
	if (r->links >= LINKS)
		return 0;
	*l = (struct link){};
	l->name = name;
	struct one o = {r, 0};
	void *priv = (void *)dev + priv_offset;
	struct rtnl_link_ops *ops = read(dev, rtnl_link_ops);
	bpf_probe_read_kernel_str(kind.text, sizeof(kind), read(ops, kind));
	if (has(struct macvlan_dev, pcpu_stats) && (is(kind, (union kind){"macvlan"}) || is(kind, (union kind){"macvtap"}))) {
		o.stats = (u64)read((struct macvlan_dev *)priv, pcpu_stats);
		bpf_loop(cpus, add_vlan, &o, 0);
		l->rx_errors = (u32)l->rx_errors; // these are of 32 bits, when they are added up, too
		l->rx_dropped = l->rx_errors;
	} else if (has(struct vlan_dev_priv, vlan_pcpu_stats) && is(kind, (union kind){"vlan"})) {
		o.stats = (u64)read((struct vlan_dev_priv *)priv, vlan_pcpu_stats);
		bpf_loop(cpus, add_vlan, &o, 0);
		l->rx_errors = (u32)l->rx_errors;
	} else if (has(struct ipvl_dev, pcpu_stats) && is(kind, (union kind){"ipvlan"})) {
		o.stats = (u64)read((struct ipvl_dev *)priv, pcpu_stats);
		bpf_loop(cpus, add_ipvlan, &o, 0);
		l->rx_errors = (u32)l->rx_errors;
		l->rx_dropped = l->rx_errors;
	} else {
		return 0;
	}
	l->tx_dropped = (u32)l->tx_dropped;
	o.stats = (u64)read(dev, core_stats);
	if (o.stats)
		bpf_loop(cpus, add_core, &o, 0);
	r->links++;
	return 1;
}

INLINE void read_links(struct record *r, struct net *net)
{
	struct list_head *head = address(net, dev_base_head), *at = read(head, next);
	for (u32 k = 0; k < LINKS + 2; k++) { // the loopback device, and one too many
		if (at == head)
			return;
		if (!read_link(r, (void *)at - offset_of(struct net_device, dev_list)))
			break;
		at = read(at, next);
	}
	r->lacks |= NO_LINKS;
}

struct walk {
	struct list_head *at, *head;
	u64 skip, most, seen;
};

static long visit(u32 i, struct walk *w)
{
	if (w->at == w->head || !w->most)
		return 1;
	struct net *net = (void *)w->at - offset_of(struct net, list);
	w->at = read(w->at, next);
	w->seen++;
	if (i < w->skip)
		return 0;
	u32 inode = read(net, ns.inum);
	u32 *index = bpf_map_lookup_elem(&wanted, &inode);
	struct record *r = index ? bpf_map_lookup_elem(&records, index) : NULL;
	if (!r)
		return 0;
	w->most--;
	u64 cookie = read(net, net_cookie);
	if (r->cookie != cookie) // of another namespace, or of none yet
		r->since = 0;
	r->cookie = cookie;
	r->lacks &= NO_MESSAGES;
	r->links = 0;
	read_mib(r, net);
	read_messages(r, net);
	read_links(r, net);
	r->run = run;
	return 0;
}

// read_counters reads at most args[2] wanted namespaces, after the first args[1] of the
// kernel's list, and returns how many of the list are behind it then; 0: all. args[0] is
// noted in the records.
SEC("raw_tp")
int read_counters(u64 *args)
{
	struct walk w = {.skip = args[1], .most = args[2]};
	run = args[0];
	// The list of namespaces has no address that is told either. The first in it is the
	// initial one, which the idle task is in, and that is everybody's ancestor.
	struct task_struct *task = (void *)bpf_get_current_task();
	for (u32 k = 0; k < 512 && read(task, pid); k++)
		task = read(task, real_parent);
	if (read(task, pid))
		return -1;
	struct nsproxy *proxy = read(task, nsproxy);
	w.at = address(read(proxy, net_ns), list);
	w.head = read(w.at, prev);
	bpf_loop(1 << 20, visit, &w, 0);
	return w.at == w.head ? 0 : w.seen;
}

char _license[] SEC("license") = "Dual BSD/GPL";
