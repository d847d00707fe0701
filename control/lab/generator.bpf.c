/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Sends the frame it is run on out of a device, under another source address each time. Run with
 * BPF_F_TEST_XDP_LIVE_FRAMES it makes the kernel a packet generator. Frames are recycled with what was
 * written into them, so whatever is written at all is written every time. The device that the test
 * run names as the receiving one is the stream; each has orders of its own.
 */
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#define PICK_NONE 0
#define PICK_NEXT 1
#define PICK_RANDOM 2
#define LOOKS 20000 /* at the clock, for one beat: half a millisecond at least */

struct orders {
  u32 ifindex;
  u32 pick;
  u32 sources; /* how many */
  u32 base;    /* IPv4 source, or the second word of the IPv6 source; host order; a source adds to it */
  u32 sum;     /* of the IPv4 header without checksum and source, folded to 16 bits */
  u32 beat; /* ns between bursts; 0: none */
  u64 next; /* of PICK_NEXT */
  u64 sent;
  u64 due; /* when the next burst may begin */
};

BPF_HASH(orders, u32, struct orders, STREAMS);

static __always_inline u32 fold(u32 sum) {
  sum = (sum & 0xffff) + (sum >> 16);
  return (sum & 0xffff) + (sum >> 16);
}

static __always_inline u32 pick(struct orders *o) {
  if (o->pick == PICK_RANDOM)
    return bpf_get_prandom_u32() % o->sources;
  return o->next++ % o->sources;
}

static __always_inline void wait_for_beat(struct orders *o) {
  if (!o->beat || o->sent++ % BURST)
    return;
  u64 now = bpf_ktime_get_ns();
#pragma clang loop unroll(disable)
  for (int i = 0; i < LOOKS && now < o->due; i++)
    now = bpf_ktime_get_ns();
  o->due = now + o->beat;
}

int generate(struct xdp_md *ctx) {
  void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
  struct ethhdr *eth = data;
  struct iphdr *ip4 = data + sizeof(*eth);
  struct ipv6hdr *ip6 = data + sizeof(*eth);
  u32 stream = ctx->ingress_ifindex;
  struct orders *o = orders.lookup(&stream);

  if (!o || (void *)(eth + 1) > end)
    return XDP_DROP;
  wait_for_beat(o);
  if (o->pick != PICK_NONE && o->sources) {
    u32 source = o->base + pick(o);
    if (eth->h_proto == bpf_htons(ETH_P_IP) && (void *)(ip4 + 1) <= end) {
      ip4->saddr = bpf_htonl(source);
      ip4->check = bpf_htons(~fold(o->sum + (source >> 16) + (source & 0xffff)));
    } else if (eth->h_proto == bpf_htons(ETH_P_IPV6) && (void *)(ip6 + 1) <= end) {
      ip6->saddr.s6_addr32[1] = bpf_htonl(source);
    }
  }
  return bpf_redirect(o->ifindex, 0);
}
