/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The entries of a call, held against one limit each like a packet: the same
 * key, plan, leases and buckets, so that calls and packets share one bucket.
 *
 * Counters: a call that takes tokens of a declared limit counts as matched, and as
 * passed, dropped or shadow_dropped; it has no bytes. Calls never ban.
 */
#ifndef VALKYRIE_CALL_H
#define VALKYRIE_CALL_H

#define MAX_TAU (1ULL << 62)
#define TOO_MUCH (~0ULL)

/* ceil(n * mult / 2^shift) for n below 2^32: 96 bits, which calls may need and packets never do. */
static __always_inline u64 wide_cost(const struct plan *plan, u64 n) {
  u64 shift = plan->shift & 63;
  u64 low = n * (u32)plan->mult;
  u64 middle = n * (plan->mult >> 32);
  u64 high = middle >> 32;
  u64 sum = low + (middle << 32);
  high += less(sum, low);
  low = sum + ((1ULL << shift) - 1);
  high += less(low, sum);
  if (!shift)
    return high ? TOO_MUCH : low;
  return high >> shift ? TOO_MUCH : high << (64 - shift) | low >> shift;
}

/* The entry as if a packet had brought it. */
static __always_inline void read_entry(struct call_scratch *s, const struct call_entry *e,
                                       const u64 secret[2]) {
  struct packet *p = &s->packet;
  p->src.high = bpf_ntohll(e->src[0]);
  p->src.low = bpf_ntohll(e->src[1]);
  p->dst.high = bpf_ntohll(e->dst[0]);
  p->dst.low = bpf_ntohll(e->dst[1]);
  p->sport = e->sport;
  p->dport = e->dport;
  p->protocol = e->protocol;
  p->src_embedded = p->dst_embedded = e->flags & CALL_6TO4 ? EMBEDDING_SIX_TO_FOUR : EMBEDDING_NONE;
  key_of(&s->key, &s->limit, p, secret);
  if (!(e->flags & CALL_FINGERPRINT))
    return;
  /* A wide IPv6 pair, known by its hash: these ends make write_key name it so. */
  s->key.fingerprint = e->dst[0] ?: 1;
  s->key.src.high = p->src.high;
  s->key.src.low = s->key.dst.low = 1;
  s->key.dst.high = 0;
}

/* How far from full the bucket is, less what this CPU has bought ahead. */
static __always_inline u64 level_of(const struct key *k, const struct plan *plan,
                                    const struct packet *p) {
  u64 level = bucket_level(k->fingerprint, p->now);
  if (!plan->batch)
    return level;
  u32 place = lease_place(k->fingerprint, p->cpu);
  struct lease *lease = leases.lookup(&place);
  if (!lease || lease->fingerprint != k->fingerprint || p->now >= lease->valid_until)
    return level;
  return level > lease->left ? level - lease->left : 0;
}

static __always_inline u32 consume(struct call_scratch *s, const struct plan *plan, u64 n,
                                   u64 cost) {
  const struct packet *p = &s->packet;
  if (cost > plan->tau)
    return CALL_REFUSED;
  if (!n)
    return level_of(&s->key, plan, p) > plan->tau ? CALL_REFUSED : CALL_TAKEN;
  s->charge.cost = cost;
  enum taking taking = take(&s->charge, &s->key, plan, p, s->open, &s->sum);
  return taking == TAKEN ? CALL_TAKEN : taking == REFUSED ? CALL_REFUSED : CALL_CONTENDED;
}

static __always_inline void count_call(struct call_scratch *s, u32 verdict) {
  if (verdict == CALL_CONTENDED) {
    count_contended(&s->packet);
    return;
  }
  s->sum.matched++;
  if (verdict == CALL_TAKEN)
    s->sum.passed++;
  else if (s->limit.action == ACTION_SHADOW)
    s->sum.shadow_dropped++;
  else
    s->sum.dropped++;
}

static __always_inline void answer_consume(struct call_scratch *s, struct call_entry *e) {
  struct call_answer *told = (void *)e;
  const struct plan *plan = plan_of(&s->limit, &s->packet);
  u64 n = (u32)e->amount;
  u64 cost = e->amount >> 31 ? TOO_MUCH : wide_cost(plan, n);
  end_step();
  u32 verdict = consume(s, plan, n, cost);
  told->verdict = verdict;
  told->cost = cost;
  told->mult = plan->mult;
  told->tau = plan->tau;
  told->shift = plan->shift;
  end_step();
  if (n)
    count_call(s, verdict);
  told->level = level_of(&s->key, plan, &s->packet);
}

/* The later of the two TATs stays: what was charged here in the meantime is not forgotten. */
static __always_inline u32 raise(u64 *tat, u64 until) {
  u64 seen = *(volatile u64 *)tat;
#pragma clang loop unroll(disable)
  for (int i = 0; i < CAS_TRIES; i++) {
    if (seen >= until)
      return CALL_TAKEN;
    u64 found = __sync_val_compare_and_swap(tat, seen, until);
    if (found == seen)
      return CALL_TAKEN;
    seen = found;
  }
  return CALL_CONTENDED;
}

static __always_inline void answer_restore(struct call_scratch *s, struct call_entry *e) {
  struct call_answer *told = (void *)e;
  const struct packet *p = &s->packet;
  u64 level = e->amount;
  u32 where;
  if (!level || level >= MAX_TAU) {
    told->verdict = level ? CALL_REFUSED : CALL_TAKEN;
    return;
  }
  u64 *tat = bucket_of(&s->key, p, s->open, &where);
  told->verdict = tat ? raise(tat, p->now + level) : CALL_CONTENDED;
}

/* A limit for what no ruleset knows: callers' own, and bans. */
static __always_inline void own_limit(struct call_scratch *s, const struct call *c) {
  struct limit *l = &s->limit;
  __builtin_memset(l, 0, sizeof(*l));
  l->uid = c->uid;
  l->key_fields = KEY_SRC;
  l->mask4[0] = l->mask4[1] = l->mask6[0] = l->mask6[1] = ~0ULL;
  l->override_root = l->override6_root = REF_LEAF;
  l->plan.mult = c->mult;
  l->plan.tau = c->tau;
  l->plan.shift = c->shift;
}

static __always_inline int declared_limit(struct call_scratch *s, const struct call *c,
                                          const struct ruleset *r) {
  u32 position = c->position;
  u32 index = s->packet.generation * MAX_LIMITS + (position & (MAX_LIMITS - 1));
  struct limit *l = limits.lookup(&index);
  if (!l || position >= r->positions || position >= MAX_LIMITS || l->uid != c->uid)
    return 0;
  s->limit = *l;
  return 1;
}

/* What the request is about; CALL_DONE: the entries may be asked. */
static __always_inline u32 begin_call(struct call_scratch *s, const struct call *c,
                                      const struct ruleset *r) {
  int foreign = c->uid == UID_CALL || c->uid == UID_BAN;
  __builtin_memset(&s->sum, 0, sizeof(s->sum));
  s->open = r->table_full_open;
  if (c->count > CALL_ENTRIES)
    return CALL_WRONG;
  if (c->op == CALL_OWN ? c->uid != UID_CALL || c->tau >= MAX_TAU || c->shift > 63
                        : c->op != CALL_RESTORE && c->op != CALL_CONSUME)
    return CALL_WRONG;
  if (foreign && c->op == CALL_CONSUME)
    return CALL_WRONG;
  if (foreign)
    own_limit(s, c);
  else if (!declared_limit(s, c, r))
    return CALL_STALE;
  return CALL_DONE;
}

static __always_inline void add_sum(const struct call_scratch *s) {
  struct limit_stats *stats = stats_of(&s->limit, &s->packet);
  if (!stats || s->limit.uid == UID_CALL || s->limit.uid == UID_BAN)
    return;
  stats->matched += s->sum.matched;
  stats->passed += s->sum.passed;
  stats->dropped += s->sum.dropped;
  stats->shadow_dropped += s->sum.shadow_dropped;
  stats->leased += s->sum.leased;
}

#endif
