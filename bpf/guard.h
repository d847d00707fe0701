/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What comes before limits: control traffic, protected and exempt sources,
 * bans. An exemption of an IPv4 prefix does not extend to IPv6 addresses that
 * embed one of its addresses; a ban does, and so does one of IPv6 around them.
 */
#ifndef VALKYRIE_GUARD_H
#define VALKYRIE_GUARD_H

#define UNDECIDED REASONS

static __always_inline u32 guard_verdict(const struct packet *p, const struct guard *g) {
  if (!p->src_embedded) {
    if (g->flags & GUARD_PROTECT)
      return REASON_PROTECTED;
    if (g->flags & GUARD_EXEMPT && p->now_ns < g->exempt_until)
      return REASON_EXEMPT;
  }
  return g->flags & GUARD_BAN && p->now_ns < g->ban_until ? REASON_BAN : UNDECIDED;
}

static __always_inline u32 guarded(const struct packet *p, u32 root, const struct address *a) {
  u32 leaf = root == REF_LEAF ? 0 : tree_find(root, a, p->generation);
  if (!leaf)
    return UNDECIDED;
  u32 index = p->generation * MAX_GUARDS + (leaf & (MAX_GUARDS - 1));
  struct guard *g = guards.lookup(&index);
  return g ? guard_verdict(p, g) : UNDECIDED;
}

static __always_inline u32 guard(const struct packet *p, const struct ruleset *r) {
  if (p->control)
    return REASON_CONTROL;
  u32 found = guarded(p, is_ipv4(&p->src) ? r->guard4_root : r->guard6_root, &p->src);
  if (found != UNDECIDED || !p->src_embedded)
    return found;
  struct address around = embedded_in(p->src_embedded);
  return guarded(p, r->guard6_root, &around);
}

static __always_inline int banned_by_limit(const struct packet *p, struct key *k,
                                           const u64 secret[2]) {
  ban_key_of(k, p, secret);
  return bucket_level(k->fingerprint, p->now) > 0;
}

/* A ban is a bucket whose TAT is its expiry: it needs no table of its own. In a full set it
 * lasts as long as the debt that it inherits, if that is longer: no place's TAT is lowered. */
static __always_inline void ban(const struct packet *p, struct key *k, u64 ban_ns, int open,
                                const u64 secret[2]) {
  struct table_stats *t = table_of(p);
  u32 where;
  if (!t)
    return;
  ban_key_of(k, p, secret);
  u64 *tat = bucket_of(k, p, open, &where);
  if (!tat)
    return;
  u64 until = p->now + (ban_ns << TIME_SHIFT);
  if (*(volatile u64 *)tat < until)
    __sync_lock_test_and_set(tat, until);
  t->bans++;
}

#endif
