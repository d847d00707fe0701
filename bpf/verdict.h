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

/* `parsed` is PARSED or what the parser found. */
static __always_inline u32 decide(int parsed, const struct packet *p, const struct ruleset *r,
                                  const u64 secret[2], u16 *slot) {
  if (parsed != PARSED && !p->addressed)
    return parsed;
  int guarded = guard(p, r);
  if (guarded != UNDECIDED)
    return guarded;
  if (parsed != PARSED)
    return parsed;
  if (r->kernel_bans && banned_by_limit(p, secret))
    return REASON_KERNEL_BAN;
  struct bitmap match;
  classify(&match, p, r);
  if (!(match.word[0] | match.word[1] | match.word[2] | match.word[3]))
    return REASON_NO_LIMIT;
  return police_limits(p, r, &match, secret, slot);
}

#endif
