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

/* The positions of the set bits of `m`, ascending, in scratch->matched. */
static __always_inline u32 list_matched(struct scratch *s, const struct bitmap *m) {
  u64 word = m->word[0], next1 = m->word[1], next2 = m->word[2], next3 = m->word[3];
  u32 n = 0, base = 0;
#pragma clang loop unroll(disable)
  for (int i = 0; i < MAX_LIMITS + BITMAP_WORDS; i++) {
    if (!word) {
      if (base == 192 || !(next1 | next2 | next3))
        break;
      word = next1;
      next1 = next2;
      next2 = next3;
      next3 = 0;
      base += 64;
      continue;
    }
    s->matched[n & (MAX_LIMITS - 1)] = base + __builtin_ctzll(word);
    word &= word - 1;
    n++;
  }
  return n;
}

static __always_inline void explain_limit(u32 position, const struct key *k,
                                          const struct plan *plan, u64 cost, u64 now) {
  struct explanation *e = explanations.lookup(&position);
  if (!e)
    return;
  e->cost = cost;
  e->level = bucket_level(k->fingerprint, now);
  e->tau = plan->tau;
  e->fingerprint = k->fingerprint;
  e->conforms = e->level + cost <= plan->tau;
  e->matched = 1;
}

static __always_inline void undo(struct scratch *s, u32 n, const struct packet *p) {
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < MAX_LIMITS; i++) {
    if (i >= n)
      break;
    struct charge *c = &s->charge[i];
    if (c->cost)
      give_back(c);
    u32 position = p->generation * MAX_LIMITS + (s->matched[i] & (MAX_LIMITS - 1));
    struct limit *l = limits.lookup(&position);
    struct limit_stats *stats = l ? stats_of(l, p) : 0;
    if (stats)
      stats->passed--;
  }
}

/* Asks the limit at one position. 0: it passes the packet, else it drops it. */
static __always_inline int ask(u32 position, struct charge *charge, const struct packet *p,
                               const struct ruleset *r, const u64 secret[2], u32 *reason,
                               u16 *slot) {
  u32 index = p->generation * MAX_LIMITS + position;
  struct limit *l = limits.lookup(&index);
  struct table_stats *table = table_of(p);
  struct limit_stats *stats = l ? stats_of(l, p) : 0;
  charge->cost = 0;
  if (!l || !table || !stats)
    return 0;
  struct key k = {};
  key_of(&k, l, p, secret);
  const struct plan *plan = plan_of(l, p);
  u64 cost = cost_of(plan, tokens_of(l, p));
  if (p->explain) {
    explain_limit(position, &k, plan, cost, p->now);
    return 0;
  }
  stats->matched++;
  stats->matched_bytes += p->length;
  charge->cost = cost;
  enum taking taking = take(charge, &k, plan, p, r->table_full_open, table, stats);
  if (taking == TAKEN) {
    stats->passed++;
    return 0;
  }
  charge->cost = 0;
  if (taking == CONTENDED)
    table->contended++;
  if (l->action == ACTION_SHADOW) {
    stats->shadow_dropped++;
    stats->passed++;
    report(p, r, REASON_LIMIT, l->slot, 1);
    return 0;
  }
  stats->dropped++;
  stats->dropped_bytes += p->length;
  *reason = taking == CONTENDED ? REASON_CONTENDED : REASON_LIMIT;
  *slot = l->slot;
  if (l->action == ACTION_BAN && taking == REFUSED)
    ban(p, l->ban_ns, secret);
  return 1;
}

static __always_inline u32 police_limits(const struct packet *p, const struct ruleset *r,
                                         const struct bitmap *match, const u64 secret[2],
                                         u16 *slot) {
  u32 cpu = p->cpu;
  u32 reason = REASON_CONFORMS;
  struct scratch *s = scratch.lookup(&cpu);
  if (!s)
    return REASON_CONTENDED;
  u32 n = list_matched(s, match);
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < MAX_LIMITS; i++) {
    if (i >= n)
      break;
    u32 position = s->matched[i] & (MAX_LIMITS - 1);
    if (ask(position, &s->charge[i], p, r, secret, &reason, slot)) {
      undo(s, i, p);
      break;
    }
  }
  return reason;
}

#endif
