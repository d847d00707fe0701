/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What one would write first: parse, an LRU hash of the source address, GCRA on
 * a 64-bit word by compare-and-swap. No classification, no counters, no events.
 */
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>

#define CAS_TRIES 16

BPF_TABLE("lru_hash", u64, u64, buckets, ENTRIES);

static __always_inline int take(u64 *tat, u64 now) {
  u64 seen = *(volatile u64 *)tat;
#pragma clang loop unroll(disable)
  for (int i = 0; i < CAS_TRIES; i++) {
    u64 next = (seen > now ? seen : now) + COST_NS;
    if (next - now > TAU_NS)
      return XDP_DROP;
    u64 found = __sync_val_compare_and_swap(tat, seen, next);
    if (found == seen)
      return XDP_PASS;
    seen = found;
  }
  return XDP_DROP;
}

int reference(struct xdp_md *ctx) {
  void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
  struct ethhdr *eth = data;
  struct iphdr *ip = data + sizeof(*eth);
  if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->version != 4 || ip->ihl < 5)
    return XDP_PASS;
  struct udphdr *udp = (void *)ip + ip->ihl * 4;
  if ((void *)(udp + 1) > end)
    return XDP_PASS;

  u64 key = ip->saddr;
  u64 now = bpf_ktime_get_ns();
  u64 *tat = buckets.lookup(&key);
  if (tat)
    return take(tat, now);
  u64 fresh = now + COST_NS;
  buckets.update(&key, &fresh);
  return XDP_PASS;
}
