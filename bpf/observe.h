/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Observations: limits that take no tokens and drop nothing, but report the packets that match
 * them, for people who look for a rate. Keys are chosen by their fingerprints, so that what is
 * reported of a key is all of it; where even that is too much, packets are chosen at random.
 *
 * Observing limits lie behind all others that packets are held against, and see every packet that
 * those are asked about, before they are asked.
 */
#ifndef VALKYRIE_OBSERVE_H
#define VALKYRIE_OBSERVE_H

static __always_inline void observe(struct scratch *s, struct limit *l, const u64 secret[2]) {
  const struct packet *p = &s->packet;
  struct watch *w = watch_of();
  u32 place = l->ban_ns & (OBSERVATIONS - 1);
  if (!w)
    return;
  struct observation *o = &w->observation[place];
  struct watch_stats *t = watch_stats_of(p->cpu, CAPTURES + place);
  if (!t || !o->id || p->now_ns >= o->until)
    return;
  key_of(&s->key, l, p, secret);
  t->seen++;
  if (s->key.fingerprint >> 16 & o->mask)
    return;
  if (o->thin && bpf_get_prandom_u32() & o->thin)
    return;
  struct observed *e = observed.ringbuf_reserve(sizeof(struct observed));
  if (!e) {
    t->lost++;
    return;
  }
  e->time = p->now_ns;
  e->fingerprint = s->key.fingerprint;
  e->id = o->id;
  e->thin = o->thin;
  e->tokens = tokens_of(l, p);
  observed.ringbuf_submit(e, 0);
  t->sent++;
}

/* The limit that observes in the nth place: takes it out of what is asked. MAX_LIMITS: it does not
 * match. */
static __always_inline u32 next_observer(struct scratch *s, const struct ruleset *r, u32 nth) {
  u32 position = (r->limits - r->observers + nth) & (MAX_LIMITS - 1);
  u64 bit = 1ULL << (position & 63);
  u64 *word = &s->match.word[position / 64 & (BITMAP_WORDS - 1)];
  if (!(*word & bit))
    return MAX_LIMITS;
  *word &= ~bit;
  return position;
}

static __always_inline void forget_observers(struct scratch *s, const struct ruleset *r) {
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < OBSERVATIONS && i < r->observers; i++)
    next_observer(s, r, i);
}

/* Reports to every observing limit that matches, and takes it out of what is asked. */
static __always_inline void observe_all(struct scratch *s, const struct ruleset *r,
                                        const u64 secret[2]) {
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < OBSERVATIONS; i++) {
    end_step();
    if (i >= r->observers)
      break;
    u32 position = next_observer(s, r, i);
    if (position >= MAX_LIMITS)
      continue;
    u32 index = s->packet.generation * MAX_LIMITS + position;
    struct limit *l = limits.lookup(&index);
    if (l && l->action == ACTION_OBSERVE && !s->packet.explain)
      observe(s, l, secret);
  }
}

#endif
