/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the parser learns of a packet, and what every later step reads.
 * Addresses are canonical: 128 bits in host order, IPv4 as ::ffff:a.b.c.d, and
 * an IPv6 address that embeds IPv4 (v4-mapped, 6to4) as the IPv4 it embeds, so
 * that neither is a way around a limit.
 */
#ifndef VALKYRIE_PACKET_H
#define VALKYRIE_PACKET_H

#define V4_MAPPED 0xffffULL   /* bits 32..63 of the low half of an IPv4 address */
#define SIX_TO_FOUR 0x2002ULL /* its first 16 bits */

struct address {
  u64 high;
  u64 low;
};

struct packet {
  struct address src;
  struct address dst;
  u64 now_ns;
  u64 now; /* time units */
  u32 cpu;
  u32 ifindex;
  u32 generation;
  u32 frame_length;
  u32 length; /* of the IP packet */
  u32 sport;  /* as indexes of the field table */
  u32 dport;
  u32 tcp_flags;
  u32 icmp;
  u32 vlan;
  u8 protocol;
  u8 fragment;
  u8 dscp;
  u8 version;      /* 0: IPv4, 1: IPv6 */
  u8 src_embedded; /* enum embedding */
  u8 dst_embedded;
  u8 addressed; /* src and dst are known */
  u8 control;   /* neighbour discovery or DHCP */
  u8 test;      /* a test run of ours */
  u8 explain;
  u8 capturing; /* somebody captures packets */
};

static __always_inline int is_ipv4(const struct address *a) {
  return a->high == 0 && (a->low >> 32) == V4_MAPPED;
}

/* The first address of the IPv6 prefix that an embedded IPv4 address was found in. */
static __always_inline struct address embedded_in(u8 embedding) {
  struct address a = {};
  if (embedding == EMBEDDING_SIX_TO_FOUR)
    a.high = SIX_TO_FOUR << 48;
  else
    a.low = V4_MAPPED << 32;
  return a;
}

static __always_inline u32 port_of(u32 index) {
  return index < NO_PORTS ? index : 0;
}

#endif
