/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copies of packets for people who capture them, through a ring buffer of their own. Which packets:
 * those of a verdict, a reason, a limit, a source prefix; of these one in `sample` on average, and
 * no more than `rate` a second and CPU. What the rate holds back and what finds the ring full is
 * counted.
 */
#ifndef VALKYRIE_CAPTURE_H
#define VALKYRIE_CAPTURE_H

/* Whether the limit of this slot was asked about the packet and passed it. */
static __always_inline int was_asked(const struct scratch *s, u32 slot) {
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < MAX_LIMITS; i++) {
    if (i >= s->asked)
      return 0;
    u32 position = s->packet.generation * MAX_LIMITS + (s->matched[i] & (MAX_LIMITS - 1));
    struct limit *l = limits.lookup(&position);
    if (l && l->slot == slot)
      return 1;
  }
  return 0;
}

static __always_inline u32 verdict_of(const struct scratch *s, int dropped) {
  if (dropped)
    return CAPTURE_DROPPED;
  return s->shadow == NO_SLOT ? CAPTURE_PASSED : CAPTURE_PASSED | CAPTURE_SHADOWED;
}

static __always_inline int of_limit(const struct capture *c, const struct scratch *s, u32 verdict) {
  if (c->slot == NO_SLOT)
    return 1;
  if (verdict == CAPTURE_DROPPED)
    return c->slot == s->slot;
  if (c->verdicts & CAPTURE_PASSED)
    return was_asked(s, c->slot);
  return c->slot == s->shadow;
}

static __always_inline int is_wanted(const struct capture *c, const struct scratch *s,
                                     u32 verdict) {
  const struct packet *p = &s->packet;
  if (!c->id || p->now_ns >= c->until || !(c->verdicts & verdict))
    return 0;
  if (!(c->reasons >> (s->reason & 31) & 1))
    return 0;
  u64 other = (p->src.high & c->mask[0]) ^ c->src[0];
  other |= (p->src.low & c->mask[1]) ^ c->src[1];
  return !other && of_limit(c, s, verdict);
}

/* One in `sample` of those that are wanted, on average, and not above the rate. */
static __always_inline int may_capture(struct watch_stats *t, const struct capture *c, u64 now_ns) {
  t->seen++;
  if (t->left) {
    t->left--;
    return 0;
  }
  t->left = sample_gap(c->sample);
  if (now_ns - t->window >= SECOND_NS) {
    t->window = now_ns;
    t->count = 0;
  }
  if (t->count >= c->rate) {
    t->limited++;
    return 0;
  }
  t->count++;
  return 1;
}

/* The first bytes of the frame, whole words and then the bytes that are left of it; how many. */
static __always_inline u32 copy_frame(u64 *to, const u8 *from, const u8 *end, u32 most) {
  u32 words = 0;
#pragma unroll
  for (u32 i = 0; i < CAPTURE_BYTES / 8; i++) {
    if (i * 8 + 8 > most || from + i * 8 + 8 > end)
      break;
    __builtin_memcpy(&to[i], from + i * 8, 8);
    words = i + 1;
  }
  u32 at = words * 8;
#pragma unroll
  for (u32 i = 0; i < 7; i++) {
    at &= CAPTURE_BYTES - 1;
    if (words >= CAPTURE_BYTES / 8 || at >= most || from + at + 1 > end)
      break;
    ((u8 *)to)[at] = from[at];
    at++;
  }
  return words >= CAPTURE_BYTES / 8 ? CAPTURE_BYTES : at;
}

static __always_inline void capture_one(struct xdp_md *ctx, const struct scratch *s, u32 place,
                                        const struct capture *c, u32 verdict) {
  const struct packet *p = &s->packet;
  if (!is_wanted(c, s, verdict))
    return;
  struct watch_stats *t = watch_stats_of(p->cpu, place);
  if (!t || !may_capture(t, c, p->now_ns))
    return;
  struct captured *e = captured.ringbuf_reserve(sizeof(struct captured));
  if (!e) {
    t->lost++;
    return;
  }
  e->time = p->now_ns;
  e->id = c->id;
  e->ifindex = p->ifindex;
  e->length = p->frame_length;
  e->slot = verdict == CAPTURE_DROPPED ? s->slot : s->shadow;
  e->reason = s->reason;
  e->verdict = verdict;
  e->bytes = copy_frame(e->data, (void *)(long)ctx->data, (void *)(long)ctx->data_end, c->snaplen);
  captured.ringbuf_submit(e, 0);
  t->sent++;
}

static __always_inline void capture_all(struct xdp_md *ctx, const struct scratch *s, int dropped) {
  struct watch *w = watch_of();
  if (!w)
    return;
  u32 verdict = verdict_of(s, dropped);
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < CAPTURES; i++) {
    end_step();
    capture_one(ctx, s, i, &w->capture[i], verdict);
  }
}

#endif
