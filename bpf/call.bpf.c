// SPDX-License-Identifier: GPL-2.0-only
/*
 * The programs behind the calls of this host's processes, run by BPF_PROG_TEST_RUN
 * alone and attached nowhere: `call` takes tokens from the buckets that packets
 * take from, `value` keeps small values. The packet of such a run is the request
 * and becomes the answer (struct call, struct value_call).
 */
#include <uapi/linux/bpf.h>

#include "abi.h"
#include "maps.h"
#include "verifier.h"
#include "packet.h"
#include "tree.h"
#include "hash.h"
#include "count.h"
#include "key.h"
#include "scratch.h"
#include "bucket.h"
#include "lease.h"
#include "take.h"
#include "call_maps.h"
#include "call.h"
#include "value.h"

/* Entries asked in one run; more go on by tail calls. */
#define CALL_CHUNK 8

static __always_inline struct call_scratch *call_scratch_of(u32 cpu) {
  return call_scratch.lookup(&cpu);
}

/* Clock, CPU and ruleset of the request; CALL_DONE if its entries may be asked. */
static __always_inline u32 start_call(struct call_scratch *s, const struct call *c, u32 cpu,
                                      const struct control *ctl) {
  struct packet *p = &s->packet;
  if (ctl->abi != ABI_VERSION)
    return CALL_RETIRED;
  __builtin_memset(p, 0, sizeof(*p));
  p->cpu = cpu;
  p->generation = ctl->active & 1;
  p->now_ns = c->magic == ctl->test_magic ? c->now : 0;
  if (!p->now_ns)
    p->now_ns = bpf_ktime_get_ns();
  p->now = p->now_ns << TIME_SHIFT;
  u32 generation = p->generation;
  struct ruleset *rules = rulesets.lookup(&generation);
  return rules ? begin_call(s, c, rules) : CALL_WRONG;
}

/* The next CALL_CHUNK entries. Nonzero: there are more of them. */
static __always_inline int ask_entries(struct xdp_md *ctx, struct call_scratch *s, struct call *c,
                                       const u64 secret[2]) {
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < CALL_CHUNK; i++) {
    end_step();
    u64 at = c->at;
    if (at >= c->count || at >= CALL_ENTRIES)
      return 0;
    struct call_entry *e = settled((struct call_entry *)(c + 1) + (at & (CALL_ENTRIES - 1)));
    if ((void *)(e + 1) > (void *)(long)ctx->data_end)
      return 0;
    read_entry(s, e, secret);
    end_step();
    if (c->op == CALL_RESTORE)
      answer_restore(s, e);
    else
      answer_consume(s, e);
    end_step();
    c->at = at + 1;
  }
  return c->at < c->count;
}

int call(struct xdp_md *ctx) {
  u32 first = 0, cpu = bpf_get_smp_processor_id();
  struct call *c = (void *)(long)ctx->data;
  struct control *ctl = control.lookup(&first);
  struct call_scratch *s = call_scratch_of(cpu);
  if (!ctl || !s || (void *)(c + 1) > (void *)(long)ctx->data_end)
    return XDP_ABORTED;
  if (!c->at)
    c->told = start_call(s, c, cpu, ctl);
  end_step();
  if (c->told != CALL_DONE)
    return XDP_PASS;
  if (ask_entries(ctx, s, c, ctl->secret))
    call_continuation.call(ctx, CONTINUE_AT);
  end_step();
  add_sum(s);
  return XDP_PASS;
}

int value(struct xdp_md *ctx) {
  u32 first = 0, cpu = bpf_get_smp_processor_id();
  struct value_call *c = (void *)(long)ctx->data;
  struct control *ctl = control.lookup(&first);
  struct call_scratch *s = call_scratch_of(cpu);
  if (!ctl || !s || (void *)(c + 1) > (void *)(long)ctx->data_end)
    return XDP_ABORTED;
  u64 now = c->magic == ctl->test_magic ? c->now : 0;
  c->told = ask_value(c, &s->value, now ?: bpf_ktime_get_boot_ns(), (void *)(long)ctx->data_end);
  return XDP_PASS;
}
