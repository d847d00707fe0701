/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Holding one packet against every limit that matches it, in the order of the
 * ruleset. It passes if all enforcing limits have tokens, and then all are
 * charged; the first that refuses drops it, and what earlier ones took is given
 * back. Later limits see nothing of a dropped packet: `matched` counts the
 * packets that a limit was asked about.
 *
 * Between a charge and its undo another CPU may find the bucket emptier than it
 * is, and refuse: at most one packet a CPU, never one too many admitted.
 */
#ifndef VALKYRIE_POLICE_H
#define VALKYRIE_POLICE_H

/* Limits asked in one run of a program; the verifier's patience is what bounds it.
 * A packet that matches more goes on by tail calls: 34 runs (the kernel's limit is
 * 33 tail calls) of 8 are more than MAX_LIMITS. */
#define CHUNK 8

/* LLVM's BPF back end has no count of trailing zeros. Branches, since the same limits match most
 * packets and the CPU soon knows the way. */
static __always_inline u32 lowest_bit(u64 word) {
  u32 n = 0;
  if (word & 1)
    return 0;
#pragma unroll
  for (u32 half = 32; half; half /= 2) {
    if (!(word & ((1ULL << half) - 1))) {
      word >>= half;
      n += half;
    }
  }
  return n;
}

static __always_inline u32 first_word(const struct bitmap *m) {
  return m->word[0] ? 0 : m->word[1] ? 1 : m->word[2] ? 2 : m->word[3] ? 3 : BITMAP_WORDS;
}

/* Takes the first position out of the bitmap; MAX_LIMITS when it is empty. */
static __always_inline u32 next_matched(struct bitmap *m, u64 unknown) {
  u64 i = forget(first_word(m), unknown) & (2 * BITMAP_WORDS - 1);
  if (i >= BITMAP_WORDS)
    return MAX_LIMITS;
  u64 word = m->word[i];
  m->word[i] = word & (word - 1);
  return forget(i * 64 + lowest_bit(word), unknown) & (MAX_LIMITS - 1);
}

/* What a limit would say, and the verdict that would follow. Takes nothing. */
static __always_inline void explain_limit(u32 position, struct scratch *s, const struct limit *l,
                                          const struct plan *plan, u64 cost) {
  struct explanation *e = explanations.lookup(&position);
  if (!e)
    return;
  e->cost = cost;
  e->level = bucket_level(s->key.fingerprint, s->packet.now);
  e->tau = plan->tau;
  e->fingerprint = s->key.fingerprint;
  e->conforms = e->level + cost <= plan->tau;
  e->matched = 1;
  if (e->conforms || l->action == ACTION_SHADOW || s->reason == REASON_LIMIT)
    return;
  s->reason = REASON_LIMIT;
  s->slot = l->slot;
}

static __always_inline void undo(struct scratch *s) {
  const struct packet *p = &s->packet;
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < MAX_LIMITS; i++) {
    if (i >= s->asked)
      break;
    end_step();
    struct charge *c = &s->charge[i];
    if (c->cost)
      give_back(c);
    u32 position = p->generation * MAX_LIMITS + (s->matched[i] & (MAX_LIMITS - 1));
    struct limit *l = limits.lookup(&position);
    struct limit_stats *stats = l ? stats_of(l, p) : 0;
    if (!stats)
      continue;
    stats->passed--;
    stats->undone_bytes += p->length;
  }
}

/* Asks the limit at one position. 0: it passes the packet, else it drops it. */
static __always_inline int ask(u32 position, struct scratch *s, struct charge *charge,
                               const struct ruleset *r, const u64 secret[2]) {
  const struct packet *p = &s->packet;
  struct key *k = &s->key;
  u32 index = p->generation * MAX_LIMITS + position;
  struct limit *l = limits.lookup(&index);
  struct limit_stats *stats = l ? stats_of(l, p) : 0;
  charge->cost = 0;
  if (!l || !stats)
    return 0;
  key_of(k, l, p, secret);
  const struct plan *plan = plan_of(l, p);
  u64 cost = cost_of(plan, tokens_of(l, p));
  if (p->explain) {
    explain_limit(position, s, l, plan, cost);
    return 0;
  }
  stats->matched++;
  stats->matched_bytes += p->length;
  charge->cost = cost;
  enum taking taking = take(charge, k, plan, p, r->table_full_open, stats);
  if (taking == TAKEN) {
    stats->passed++;
    return 0;
  }
  charge->cost = 0;
  if (taking == CONTENDED)
    count_contended(p);
  if (l->action == ACTION_SHADOW) {
    stats->shadow_dropped++;
    stats->shadow_dropped_bytes += p->length;
    stats->passed++;
    s->shadow = l->slot;
    report(p, r, REASON_LIMIT, l->slot, 1);
    return 0;
  }
  stats->dropped++;
  stats->dropped_bytes += p->length;
  s->reason = taking == CONTENDED ? REASON_CONTENDED : REASON_LIMIT;
  s->slot = l->slot;
  return 1;
}

/* The limit at `position` has dropped the packet. The ban comes after the undo: in a full set it
 * may take over a place that this packet has charged, and what is given back would shorten it. */
static __always_inline void refuse(u32 position, struct scratch *s, const struct ruleset *r,
                                   const u64 secret[2]) {
  end_step();
  undo(s);
  end_step();
  u32 index = s->packet.generation * MAX_LIMITS + position;
  struct limit *l = limits.lookup(&index);
  if (l && l->action == ACTION_BAN && s->reason == REASON_LIMIT)
    ban(&s->packet, &s->key, l->ban_ns, r->table_full_open, secret);
}

/* The next CHUNK limits. Nonzero: there may be more of them. */
static __always_inline int ask_chunk(struct scratch *s, const struct ruleset *r,
                                     const u64 secret[2]) {
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < CHUNK; i++) {
    end_step();
    u32 position = next_matched(&s->match, s->packet.now);
    if (position >= MAX_LIMITS)
      return 0;
    if (s->reason == REASON_NO_LIMIT)
      s->reason = REASON_CONFORMS;
    u32 asked = s->asked & (MAX_LIMITS - 1);
    s->matched[asked] = position;
    if (ask(position, s, &s->charge[asked], r, secret)) {
      refuse(position, s, r, secret);
      return 0;
    }
    s->asked = asked + 1;
  }
  return 1;
}

#endif
