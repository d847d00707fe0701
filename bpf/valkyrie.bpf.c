// SPDX-License-Identifier: GPL-2.0-only
/*
 * The program at the XDP hook. A packet goes: parse, guard (exempt, ban),
 * classify, take, verdict, count, event; a header each, in this order.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/tcp.h>
#include <uapi/linux/udp.h>

#include "abi.h"
#include "maps.h"
#include "packet.h"
#include "parse.h"
#include "tree.h"
#include "hash.h"
#include "key.h"
#include "bucket.h"
#include "lease.h"
#include "take.h"
#include "count.h"
#include "guard.h"
#include "classify.h"
#include "event.h"
#include "police.h"
#include "verdict.h"

/* The clock, or what a test run says. */
static __always_inline struct test_control *start(struct xdp_md *ctx, struct packet *p,
                                                  const struct control *control) {
  struct test_control *test = (void *)(long)ctx->data_meta;
  u32 cpu = bpf_get_smp_processor_id();
  p->cpu = cpu < MAX_CPUS ? cpu : 0;
  p->ifindex = ctx->ingress_ifindex;
  p->frame_length = ctx->data_end - ctx->data;
  p->generation = control->active & 1;
  p->sport = p->dport = NO_PORTS;
  p->tcp_flags = NO_TCP_FLAGS;
  p->icmp = NO_ICMP;
  p->vlan = NO_VLAN;
  if ((void *)(test + 1) > (void *)(long)ctx->data || test->magic != control->test_magic)
    test = 0;
  if (test && test->flags & TEST_EXPLAIN)
    p->explain = 1;
  p->now_ns = test && test->now ? test->now : bpf_ktime_get_ns();
  p->now = p->now_ns << TIME_SHIFT;
  return test;
}

static __always_inline void answer(struct xdp_md *ctx, u32 reason, u16 slot) {
  struct test_control *test = (void *)(long)ctx->data_meta;
  if ((void *)(test + 1) > (void *)(long)ctx->data)
    return;
  test->reason = reason;
  test->slot = slot;
}

int police(struct xdp_md *ctx) {
  u32 first = 0;
  struct control *ctl = control.lookup(&first);
  if (!ctl)
    return XDP_PASS;
  struct packet p = {};
  struct test_control *test = start(ctx, &p, ctl);
  u32 generation = p.generation;
  struct ruleset *rules = rulesets.lookup(&generation);
  if (!rules)
    return XDP_PASS;

  struct cursor c = {.at = (void *)(long)ctx->data, .end = (void *)(long)ctx->data_end};
  u16 slot = NO_SLOT;
  int parsed = parse(&c, &p);
  u32 reason = decide(parsed, &p, rules, ctl->secret, &slot);
  int drop = drops(reason, rules);

  if (test)
    answer(ctx, reason, slot);
  if (p.explain)
    return drop ? XDP_DROP : XDP_PASS;
  count_reason(reason, &p);
  if (drop)
    report(&p, rules, reason, slot, 0);
  return drop ? XDP_DROP : XDP_PASS;
}
