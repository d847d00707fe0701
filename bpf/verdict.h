/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From a parsed packet to the reason of its verdict, and from the reason to the
 * verdict.
 */
#ifndef VALKYRIE_VERDICT_H
#define VALKYRIE_VERDICT_H

static __always_inline int is_malformed(u32 reason) {
  return reason >= REASON_BAD_ETHERNET;
}

static __always_inline int drops(u32 reason, const struct ruleset *r) {
  if (is_malformed(reason))
    return r->malformed_drop;
  return reason >= REASON_LIMIT;
}

/* What precedes limits. `parsed` is PARSED or what the parser found; UNDECIDED: ask the limits. */
static __always_inline u32 decide(u32 parsed, struct scratch *s, const struct ruleset *r,
                                  const u64 secret[2]) {
  const struct packet *p = &s->packet;
  if (parsed != PARSED && !p->addressed)
    return parsed;
  u32 guarded = guard(p, r);
  if (guarded != UNDECIDED)
    return guarded;
  if (parsed != PARSED)
    return parsed;
  if (r->kernel_bans && banned_by_limit(p, &s->key, secret))
    return REASON_KERNEL_BAN;
  return UNDECIDED;
}

#endif
