/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Everything that the kernel programs and the control plane share: sizes,
 * enumerations and the layout of every map value. control/abi.py mirrors it and
 * a test compares sizes and offsets. Change a layout here: raise ABI_VERSION.
 *
 * Two of most tables exist: the one the packets read and the one being written.
 * control.active names the generation in force; a table of n entries a
 * generation keeps entry i of generation g at g * n + i.
 *
 * Time in buckets is counted in units of 1/64 ns since boot, so that a 64-bit
 * word spans nine years of uptime and 64 bytes at 100 Gbit/s still cost 328 units.
 */
#ifndef VALKYRIE_ABI_H
#define VALKYRIE_ABI_H

#define ABI_VERSION 4

/* Sizes a build may choose; the loader passes them with -D. */
#ifndef BUCKET_SETS
#define BUCKET_SETS 131072 /* power of two; eight buckets each: a million */
#endif
#ifndef MAX_CPUS
#define MAX_CPUS 2 /* possible CPUs of the host */
#endif
#ifndef MAX_NODES
#define MAX_NODES 262144 /* search tree nodes a generation */
#endif

#ifndef CONTINUE_AT
#define CONTINUE_AT 0 /* this build's continuation: its digest modulo CONTINUATIONS */
#endif

#define CONTINUATIONS 1024
#define TIME_SHIFT 6 /* bucket time = nanoseconds << TIME_SHIFT */
#define WAYS 8       /* buckets a set */
#define SET_LOCKS 4096
#define MAX_LIMITS 256
#define BITMAP_WORDS 4 /* MAX_LIMITS bits */
#define MAX_CLASSES 65536
#define MAX_PLANS 131072
#define MAX_GUARDS 131072
#define LEASES 1024 /* a CPU, power of two */
#define EVENT_RING_BYTES 1048576
#define NO_SLOT 0xffff

/* A search tree of interval starts. A reference is a leaf value or a node
 * index; a node reference may say that from here on the low half of the
 * address is searched. An empty tree is the reference REF_LEAF | 0. */
#define REF_LEAF 0x80000000u
#define REF_LOW 0x40000000u
#define REF_MASK 0x3fffffffu
#define NODE_KEYS 7
#define NODE_CHILDREN 8
#define TREE_DEPTH 16

struct node {
  u64 key[NODE_KEYS]; /* ascending; unused ones are ~0 and never reached */
  u64 reserved;
  u32 child[NODE_CHILDREN]; /* child[i]: key[i-1] <= address < key[i] */
};

/* Small dimensions: one u16 class for each value, in one table. */
#define FIELD_PROTOCOL 0     /* 256: IP protocol after extension headers */
#define FIELD_FRAGMENT 256   /* enum fragment */
#define FIELD_DSCP 260       /* 64 */
#define FIELD_VERSION 324    /* 0: IPv4, 1: IPv6 */
#define FIELD_TCP_FLAGS 328  /* 256 flag bytes, then NO_TCP_FLAGS */
#define FIELD_ICMP 640       /* ICMP types, then 256 ICMPv6 types, then NO_ICMP */
#define FIELD_VLAN 1280      /* 4096 ids (first tag that has one), then NO_VLAN */
#define FIELD_INTERFACE 5440 /* NIC slots, 64; slot 0: not one of ours */
#define FIELD_LENGTH 5504    /* 65536: bytes of the IP packet */
#define FIELD_SPORT 71040    /* 65536 ports, then NO_PORTS, LATER_FRAGMENT */
#define FIELD_DPORT 136640   /* the same */
#define FIELDS 202240
#define FIELD_BLOCK 64 /* classes a map value */
#define FIELD_BLOCKS (FIELDS / FIELD_BLOCK)

#define NO_TCP_FLAGS 256 /* not TCP, or a later fragment */
#define NO_ICMP 512      /* neither ICMP nor ICMPv6, or a later fragment */
#define NO_VLAN 4096
#define NO_PORTS 65536 /* a protocol without ports */
#define LATER_FRAGMENT 65537
#define MAX_NICS 64

enum fragment { FRAGMENT_NONE, FRAGMENT_FIRST, FRAGMENT_LATER };

struct field_block {
  u16 class_of[FIELD_BLOCK];
};

/* Dimensions, as bits of ruleset.dimensions: only those that some limit
 * constrains are looked up. */
enum dimension {
  DIM_PROTOCOL,
  DIM_FRAGMENT,
  DIM_DSCP,
  DIM_VERSION,
  DIM_TCP_FLAGS,
  DIM_ICMP,
  DIM_VLAN,
  DIM_INTERFACE,
  DIM_LENGTH,
  DIM_SPORT,
  DIM_DPORT,
  DIM_SRC,
  DIM_DST,
};

struct bitmap {
  u64 word[BITMAP_WORDS]; /* bit i: the limit at position i */
};

/* What IPv4 is found inside of: nothing, ::ffff:0:0/96, 2002::/16. Wider prefixes hold it too. */
enum embedding { EMBEDDING_NONE, EMBEDDING_MAPPED, EMBEDDING_SIX_TO_FOUR };
#define EMBEDDINGS 2

/* A leaf of IPv4 overrides that holds for embedded addresses alone: the plan of v4-mapped ones, and
 * after it that of 6to4. A plan of zeros is none. */
#define PLAN_EMBEDDED 0x20000000u

/* What a token costs and how deep the bucket is. */
struct plan {
  u64 mult;  /* cost of n tokens = ceil(n * mult / 2^shift), in time units */
  u64 tau;   /* capacity: the burst in time units */
  u64 batch; /* time units a CPU leases at once; 0: no lease */
  u32 shift;
  u32 reserved;
};

enum action { ACTION_DROP, ACTION_SHADOW, ACTION_BAN, ACTION_OBSERVE };
enum measure { MEASURE_PACKETS, MEASURE_IP_BYTES, MEASURE_FRAME_BYTES };

#define KEY_SPORT 1
#define KEY_DPORT 2
#define KEY_PROTOCOL 4
#define KEY_SRC 8
#define KEY_DST 16

struct limit {
  struct plan plan;
  u64 mask4[4]; /* source high, low, destination high, low */
  u64 mask6[4];
  u64 ban_ns;        /* ACTION_BAN: how long; ACTION_OBSERVE: which observation */
  u32 override_root; /* IPv4 source (or destination) -> plan index; leaf 0: no override */
  u16 uid;           /* 1..32767, never reused while a bucket of it may live */
  u16 slot;          /* of its counters */
  u8 action;
  u8 measure;
  u8 key_fields;
  u8 override_dst;    /* 1: overrides are by destination */
  u32 override6_root; /* the same for IPv6 */
  u64 fingerprint;    /* key `global`: of its one bucket, kept by the first packet; 0: not yet */
};

#define GUARD_PROTECT 1 /* never dropped, whatever else holds */
#define GUARD_EXEMPT 2
#define GUARD_BAN 4

struct guard {
  u64 exempt_until; /* ns since boot; ~0: for ever */
  u64 ban_until;
  u32 flags;
  u32 reserved;
};

struct ruleset {
  u32 limits;     /* positions that packets are held against */
  u32 dimensions; /* bit per enum dimension */
  u32 src4_root;  /* leaf: class */
  u32 src6_root;
  u32 dst4_root;
  u32 dst6_root;
  u32 guard4_root; /* by source; leaf: guard index, 0 is "none" */
  u32 guard6_root;
  u32 malformed_drop;  /* 1: drop malformed packets, 0: pass them */
  u32 table_full_open; /* 1: a newcomer to a full set starts full, 0: in debt (bucket.h) */
  u32 kernel_bans;     /* 1: some limit bans, so look bans up */
  u32 event_sample;    /* one drop in this many is reported, on average; 0: none */
  u32 event_rate;      /* events a second and CPU, at most */
  u32 positions;       /* in use: after `limits`, those for calls alone (key `id`) */
  u64 serial;          /* of the ruleset, rises with every change */
  u32 observers;       /* how many of `limits`, the last of them, only observe (observe.h) */
  u16 src_embedded_class[EMBEDDINGS]; /* what IPv6 prefixes say of embedded IPv4 */
  u16 dst_embedded_class[EMBEDDINGS];
  u32 reserved;
};

struct control {
  u32 abi;
  u32 active;     /* generation that packets read: 0 or 1 */
  u64 secret[2];  /* of the bucket hash */
  u64 test_magic; /* what struct test_control must carry */
  u64 capturing;  /* 1: some capture is armed (capture.h) */
};

struct bucket {
  u64 fingerprint; /* 0: never used */
  u64 tat;         /* time units at which the bucket is full again */
};

/* A bucket set: two cache lines of four buckets each. */
struct bucket_set {
  struct bucket bucket[WAYS];
};

/* The uid that bans made by the kernel carry: a ban is a bucket whose TAT is its expiry. */
#define UID_BAN 32767
/* Buckets of limits that callers bring themselves (struct call): the key is 16 opaque bytes. */
#define UID_CALL 32766
#define UID_MASK 0x7fff
#define UID_IPV6_PAIR 0x8000 /* addr holds 8 bytes of each end */

/* Who a bucket belongs to, for people. Source or destination alone: its
 * 16 bytes (IPv4 as ::ffff:a.b.c.d). Both, IPv4: source 4, destination 4, source
 * port 2, protocol 1. Both, IPv6: source /64, then destination /64, or when the key is wider
 * than that, eight bytes of the bucket's hash. Network byte order. */
struct bucket_key {
  u16 uid;
  u16 dport;
  u8 addr[16];
};

struct bucket_key_set {
  struct bucket_key key[WAYS];
};

struct lease {
  u64 fingerprint;
  u64 left;        /* time units paid for and not spent */
  u64 valid_until; /* TAT after the purchase: later, the bucket has been full since */
  u64 reserved;
};

struct limit_stats {
  u64 matched;
  u64 passed;         /* packets of this limit that passed, in the end */
  u64 dropped;        /* dropped by this limit */
  u64 shadow_dropped; /* a shadow limit would have dropped */
  u64 matched_bytes;  /* of the IP packet */
  u64 dropped_bytes;
  u64 shadow_dropped_bytes;
  u64 undone_bytes; /* of packets that a later limit dropped: the rest of matched_bytes passed */
  /* Another cache line, of what is seldom counted. */
  u64 leased; /* purchases of leases */
  u64 reserved[7];
};

enum reason {
  REASON_NO_LIMIT,     /* passed: no limit matched */
  REASON_CONFORMS,     /* passed: every limit had tokens */
  REASON_PROTECTED,    /* passed */
  REASON_EXEMPT,       /* passed */
  REASON_CONTROL,      /* passed: ARP, neighbour discovery, DHCP */
  REASON_NOT_IP,       /* passed */
  REASON_LIMIT,        /* dropped: no tokens */
  REASON_BAN,          /* dropped: banned by a person */
  REASON_KERNEL_BAN,   /* dropped: banned by a limit */
  REASON_CONTENDED,    /* dropped: a bucket's word could not be won in CAS_TRIES */
  REASON_BAD_ETHERNET, /* malformed, from here on: dropped or passed by policy */
  REASON_BAD_VLAN,     /* truncated tag, or more than two */
  REASON_BAD_IPV4,     /* version, header length, total length */
  REASON_BAD_IPV6,
  REASON_BAD_EXTENSION, /* truncated, or more than MAX_EXTENSIONS */
  REASON_BAD_TCP,
  REASON_BAD_UDP,
  REASON_BAD_ICMP,
  REASON_BAD_SCTP,
  REASON_BAD_GRE,
  REASON_BAD_FRAGMENT, /* first fragment without its whole layer 4 header, or one past 64 KiB */
  REASONS,
};

#define MAX_EXTENSIONS 8
#define CAS_TRIES 16

struct reason_stats {
  u64 packets;
  u64 bytes;
};

/* Table and event figures, a CPU each. */
struct table_stats {
  u64 inserted;
  u64 evicted_live; /* a bucket in use was replaced, the set being full */
  u64 contended;
  u64 events_sent;
  u64 events_lost;    /* ring full */
  u64 events_limited; /* over event_rate */
  u64 drops_left;     /* until the next that is sampled */
  u64 event_window;   /* ns: start of the second that event_count counts */
  u64 event_count;
  u64 bans; /* made by limits */
  u64 reserved[6];
};

struct event {
  u64 time;   /* ns since boot */
  u64 src[2]; /* network byte order; IPv4 as ::ffff:a.b.c.d */
  u64 dst[2];
  u32 ifindex;
  u16 sport;
  u16 dport;
  u16 length; /* of the IP packet */
  u16 slot;   /* of the limit, or NO_SLOT */
  u8 protocol;
  u8 reason;
  u8 shadow;
  u8 reserved[5];
};

/* What people look at packets with: some captures and some observations at a time, armed by an id
 * that is not 0 and let go by themselves at `until`, whatever becomes of the daemon. */
#define CAPTURES 4
#define OBSERVATIONS 4
#define WATCHES 8 /* both: captures first */
#define CAPTURE_BYTES 256
#define CAPTURE_RING_BYTES 1048576
#define OBSERVE_RING_BYTES 1048576

#define CAPTURE_DROPPED 1
#define CAPTURE_PASSED 2
#define CAPTURE_SHADOWED 4 /* passed, but a shadow limit would have dropped it */

struct capture {
  u64 id;
  u64 until;  /* ns since boot */
  u64 src[2]; /* high, low, as struct address has them, masked */
  u64 mask[2];
  u32 verdicts; /* any of CAPTURE_DROPPED and so on */
  u32 reasons;  /* bit for each enum reason */
  u32 slot;     /* of the limit, or NO_SLOT: any */
  u32 sample;   /* one in so many */
  u32 rate;     /* a second and CPU, at most */
  u32 snaplen;  /* bytes of the frame, at most CAPTURE_BYTES */
};

struct observation {
  u64 id;
  u64 until;
  u64 mask; /* keys are reported whose fingerprint, without its lowest 16 bits, has none of these */
  u64 thin; /* of these a packet when a random word has none of these bits */
};

struct watch {
  struct capture capture[CAPTURES];
  struct observation observation[OBSERVATIONS];
};

/* Of a capture or observation, a CPU each. */
struct watch_stats {
  u64 seen; /* packets that were wanted */
  u64 sent;
  u64 lost;    /* ring full */
  u64 limited; /* over the rate */
  u64 left;    /* until the next that is sampled */
  u64 window;
  u64 count;
  u64 reserved;
};

struct captured {
  u64 time; /* ns since boot */
  u64 id;   /* of the capture */
  u32 ifindex;
  u32 length; /* of the frame */
  u16 slot;   /* of the limit that dropped, or would have, or NO_SLOT */
  u16 bytes;  /* that follow */
  u8 reason;
  u8 verdict; /* CAPTURE_DROPPED, or CAPTURE_PASSED and perhaps CAPTURE_SHADOWED */
  u8 reserved[2];
  u64 data[32];
};

struct observed {
  u64 time;
  u64 fingerprint;
  u64 id;
  u32 tokens;
  u32 thin; /* as the observation had it */
};

/* Answer to EXPLAIN: an entry for each position of the ruleset. */
struct explanation {
  u64 cost;
  u64 level; /* time units the bucket is short of full, before this packet */
  u64 tau;
  u64 fingerprint;
  u8 matched;
  u8 conforms;
  u8 reserved[6];
};

/* Packet metadata by which BPF_PROG_TEST_RUN sets the clock or asks for an
 * explanation, and where the program answers. Nothing from the wire gets here,
 * and test_magic is secret. */
#define TEST_EXPLAIN 1
struct test_control {
  u64 magic;
  u64 now; /* ns; 0: the clock's */
  u32 flags;
  u16 reason; /* answer: enum reason */
  u16 slot;   /* answer: of the limit that dropped, or NO_SLOT */
};

/* A call: a test run of the program `call`, whose packet is a struct call and then its entries.
 * Each entry becomes its answer in place. No more fit a packet of 3,520 bytes. */
#define CALL_ENTRIES 64
#define CALL_CONSUME 1 /* take tokens of declared limit `uid` at `position` */
#define CALL_OWN 2     /* the same of a plan that the caller brings, under UID_CALL */
#define CALL_RESTORE 3 /* see to it that buckets are at least so far from full */

#define CALL_DONE 1    /* every entry is answered */
#define CALL_STALE 2   /* another limit lies at the position: look it up again */
#define CALL_RETIRED 3 /* another table has taken over: open the pins again */
#define CALL_WRONG 4   /* no such request */

struct call {
  u64 magic; /* control.test_magic, to set the clock */
  u64 now;   /* ns since boot, if magic is right and this is not 0 */
  u64 mult;  /* CALL_OWN: the plan */
  u64 tau;
  u32 shift;
  u16 uid; /* UID_CALL and UID_BAN lie at no position */
  u16 position;
  u32 count;
  u8 op;
  u8 told; /* the answer: CALL_DONE and so on */
  u8 at;   /* entries answered; 0 in the request */
  u8 reserved;
};

#define CALL_FINGERPRINT 1 /* dst[0] is the bucket's fingerprint, in host order */
#define CALL_6TO4 2        /* the address that overrides go by was found inside of 6to4 */

/* Addresses as in struct event; an opaque key is the source. What the limit's key leaves out is not
 * read. */
struct call_entry {
  u64 src[2];
  u64 dst[2];
  u16 sport;
  u16 dport;
  u8 protocol;
  u8 flags;
  u16 reserved;
  u64 amount; /* tokens, at most 2^31 - 1; CALL_RESTORE: time units short of full */
};

#define CALL_TAKEN 1
#define CALL_REFUSED 2
#define CALL_CONTENDED 3 /* nothing was taken: ask again */

struct call_answer {
  u64 level; /* time units short of full, afterwards */
  u64 cost;  /* of what was asked for; ~0: more than any bucket holds */
  u64 mult;  /* the plan in force for this key */
  u64 tau;
  u32 shift;
  u32 verdict;
  u64 amount; /* as asked */
};

/* Values that applications keep: a test run of the program `value`, whose packet is a struct
 * value_call and then data in whole words. */
#define VALUE_BYTES 1024
#define VALUE_LOCKS 1024
#define VALUE_GET 1 /* with room for VALUE_BYTES: the data too */
#define VALUE_SET 2
#define VALUE_DELETE 3
#define VALUE_ADD 4
#define VALUE_SWEEP 5 /* delete it if it has expired */

#define VALUE_DONE 1
#define VALUE_ABSENT 2
#define VALUE_FULL 3
#define VALUE_NO_INTEGER 4 /* or the sum is none of 64 bits */
#define VALUE_CONTENDED 5  /* nothing was done: ask again */
#define VALUE_WRONG 6
#define VALUE_RETIRED 7 /* another map has taken over: open the pins again */

#define VALUE_IS_BYTES 0
#define VALUE_IS_INTEGER 1

struct value_key {
  u64 word[4]; /* BLAKE2b-256 of the key */
};

struct value {
  u64 expires; /* ns since boot, suspended time included; 0: never */
  s64 integer;
  u32 length;
  u32 kind;
  u64 data[128];
};

struct value_call {
  u64 key[4];
  u64 magic; /* as in struct call */
  u64 now;
  u64 lasts;   /* ns from now on, 0: for ever; the answer: what is left of it */
  s64 integer; /* to set or add; the answer: the value or sum */
  u32 length;
  u8 op;
  u8 told;
  u8 kind;
  u8 reserved;
};

#endif
