/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Runs another program on the test packet under a new source address each time:
 * one packet, repeated by BPF_PROG_TEST_RUN, becomes traffic from many sources.
 */
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

struct orders {
  u32 program; /* place in `programs` */
  u32 sources; /* how many */
  u32 base;    /* IPv4 source, or the second word of the IPv6 source; host order */
  u32 stride;  /* between neighbouring sources */
  u32 shuffle; /* 1: in random order, 0: one after another */
  u32 next;
};

BPF_ARRAY(orders, struct orders, 1);
BPF_PROG_ARRAY(programs, 4);

/* A bijection of 32 bits whose result looks random (the finalizer of MurmurHash3). */
static __always_inline u32 mix(u32 x) {
  x ^= x >> 16;
  x *= 0x85ebca6b;
  x ^= x >> 13;
  x *= 0xc2b2ae35;
  return x ^ x >> 16;
}

int harness(struct xdp_md *ctx) {
  void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
  struct ethhdr *eth = data;
  struct iphdr *ip4 = data + sizeof(*eth);
  struct ipv6hdr *ip6 = data + sizeof(*eth);
  int zero = 0;
  struct orders *o = orders.lookup(&zero);

  if (!o || (void *)(ip6 + 1) > end)
    return XDP_ABORTED;
  u32 n = o->next++;
  u32 pick = o->shuffle ? (u64)mix(n) * o->sources >> 32 : n;
  u32 source = o->base + pick * o->stride;
  if (eth->h_proto == bpf_htons(ETH_P_IP))
    ip4->saddr = bpf_htonl(source);
  else
    ip6->saddr.s6_addr32[1] = bpf_htonl(source);
  programs.call(ctx, o->program);
  return XDP_ABORTED;
}

int null(struct xdp_md *ctx) {
  return XDP_DROP;
}

/* Drops like null, but has the packet's cache line come from the CPU that wrote it. */
int reads(struct xdp_md *ctx) {
  void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
  struct iphdr *ip4 = data + sizeof(struct ethhdr);
  if ((void *)(ip4 + 1) > end)
    return XDP_ABORTED;
  return ip4->saddr ? XDP_DROP : XDP_PASS;
}
