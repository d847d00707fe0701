// SPDX-License-Identifier: GPL-2.0-only
/*
 * The program at the XDP hook. A packet goes: parse.h, guard.h (control traffic,
 * exempt, ban), classify.h, police.h (take.h from lease.h and bucket.h), verdict.h,
 * count.h, event.h; and where somebody looks, observe.h and capture.h. The includes stand in the
 * order in which they need one another.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/tcp.h>
#include <uapi/linux/udp.h>

#include "abi.h"
#include "maps.h"
#include "verifier.h"
#include "packet.h"
#include "parse.h"
#include "tree.h"
#include "hash.h"
#include "count.h"
#include "key.h"
#include "scratch.h"
#include "bucket.h"
#include "lease.h"
#include "take.h"
#include "guard.h"
#include "classify.h"
#include "event.h"
#include "police.h"
#include "verdict.h"
#include "watch.h"
#include "capture.h"
#include "observe.h"

static __always_inline struct test_control *test_of(struct xdp_md *ctx) {
  struct test_control *test = (void *)(long)ctx->data_meta;
  return (void *)(test + 1) > (void *)(long)ctx->data ? 0 : test;
}

/* What is known before parsing; the clock is the kernel's, or a test run's. */
static __always_inline void start(struct xdp_md *ctx, struct packet *p, u32 cpu,
                                  const struct control *control) {
  struct test_control *test = test_of(ctx);
  __builtin_memset(p, 0, sizeof(*p));
  p->cpu = cpu;
  p->ifindex = ctx->ingress_ifindex;
  p->frame_length = ctx->data_end - ctx->data;
  p->generation = control->active & 1;
  p->sport = p->dport = NO_PORTS;
  p->tcp_flags = NO_TCP_FLAGS;
  p->icmp = NO_ICMP;
  p->vlan = NO_VLAN;
  p->capturing = control->capturing;
  if (test && test->magic == control->test_magic) {
    p->test = 1;
    p->explain = test->flags & TEST_EXPLAIN;
    p->now_ns = test->now;
  }
  if (!p->now_ns)
    p->now_ns = bpf_ktime_get_ns();
  p->now = p->now_ns << TIME_SHIFT;
}

static __always_inline void answer(struct xdp_md *ctx, const struct scratch *s) {
  struct test_control *test = test_of(ctx);
  if (!test)
    return;
  test->reason = s->reason;
  test->slot = s->slot;
}

/* Verdict, counters, event. */
static __always_inline int conclude(struct xdp_md *ctx, struct scratch *s,
                                    const struct ruleset *rules) {
  const struct packet *p = &s->packet;
  u32 reason = s->reason;
  int drop = drops(reason, rules);
  if (p->test)
    answer(ctx, s);
  if (!p->explain) {
    count_reason(reason, p);
    if (drop)
      report(p, rules, reason, s->slot, 0);
    if (p->capturing)
      watchers.call(ctx, WATCHER_CAPTURE);
  }
  return drop ? XDP_DROP : XDP_PASS;
}

/* Asks the limits that are left in s->match, in this program and those it calls. */
static __always_inline int ask_limits(struct xdp_md *ctx, struct scratch *s,
                                      const struct ruleset *rules, const u64 secret[2]) {
  if (ask_chunk(s, rules, secret)) {
    continuation.call(ctx, CONTINUE_AT);
    s->reason = REASON_CONTENDED; /* no continuation: unasked limits are not passed by */
    if (!s->packet.explain)
      undo(s);
  }
  end_step();
  return conclude(ctx, s, rules);
}

int police(struct xdp_md *ctx) {
  u32 first = 0, cpu = bpf_get_smp_processor_id();
  struct control *ctl = control.lookup(&first);
  struct scratch *s = scratch_of(cpu);
  if (!ctl || !s)
    return XDP_PASS;
  struct packet *p = &s->packet;
  start(ctx, p, cpu, ctl);
  u32 generation = p->generation;
  struct ruleset *rules = rulesets.lookup(&generation);
  if (!rules)
    return XDP_PASS;
  end_step();

  struct cursor c = {.at = (void *)(long)ctx->data, .end = (void *)(long)ctx->data_end};
  s->slot = s->shadow = NO_SLOT;
  s->asked = 0;
  s->reason = parse(&c, p);
  end_step();
  s->reason = decide(s->reason, s, rules, ctl->secret);
  end_step();
  if (s->reason != UNDECIDED)
    return conclude(ctx, s, rules);

  s->reason = REASON_NO_LIMIT;
  classify(&s->match, p, rules);
  end_step();
  if (rules->observers) {
    watchers.call(ctx, WATCHER_OBSERVE);
    forget_observers(s, rules);
    end_step();
  }
  return ask_limits(ctx, s, rules, ctl->secret);
}

/* The ruleset of the packet under way; 0: there is none. */
static __always_inline struct ruleset *rules_of(const struct scratch *s) {
  u32 generation = s->packet.generation;
  return rulesets.lookup(&generation);
}

/* Reports a packet to those who observe, then goes on with it. */
int police_observe(struct xdp_md *ctx) {
  u32 first = 0, cpu = bpf_get_smp_processor_id();
  struct control *ctl = control.lookup(&first);
  struct scratch *s = scratch_of(cpu);
  struct ruleset *rules = s ? rules_of(s) : 0;
  if (!ctl || !rules)
    return XDP_DROP;
  observe_all(s, rules, ctl->secret);
  continuation.call(ctx, CONTINUE_AT);
  s->reason = REASON_CONTENDED;
  return conclude(ctx, s, rules);
}

/* Copies a packet that has its verdict to those who capture. */
int police_capture(struct xdp_md *ctx) {
  struct scratch *s = scratch_of(bpf_get_smp_processor_id());
  struct ruleset *rules = s ? rules_of(s) : 0;
  if (!rules)
    return XDP_DROP;
  int dropped = drops(s->reason, rules);
  capture_all(ctx, s, dropped);
  return dropped ? XDP_DROP : XDP_PASS;
}

/* Goes on with a packet that matches more limits than one run asks. */
int police_more(struct xdp_md *ctx) {
  u32 first = 0, cpu = bpf_get_smp_processor_id();
  struct control *ctl = control.lookup(&first);
  struct scratch *s = scratch_of(cpu);
  if (!ctl || !s)
    return XDP_DROP;
  struct ruleset *rules = rules_of(s);
  if (!rules)
    return XDP_DROP;
  return ask_limits(ctx, s, rules, ctl->secret);
}
