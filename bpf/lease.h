/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Leases: what a CPU has bought ahead from a shared bucket and spends without
 * atomics. Tokens are paid for before they are spent, so the sum over all CPUs
 * never passes the limit. A lease is good while the TAT that its purchase left
 * lies ahead: until then the bucket cannot have been full, and spending late is
 * the same as having spent at the purchase; from then on the tokens have been
 * refilled and the lease is void. So what idle CPUs strand is at most
 * cpus * batch, which the control plane keeps below a hundredth of the burst.
 *
 * A CPU's leases lie in a table indexed by fingerprint. A good lease is never
 * pushed out, not even a spent one, to which a refused packet may have to give
 * back: a second bucket that falls on its place goes without.
 * Packets of one CPU do not interrupt each other (softirq, or test run with
 * softirqs off), so a lease needs no lock; under PREEMPT_RT a preempted packet
 * may spend one packet's cost twice.
 */
#ifndef VALKYRIE_LEASE_H
#define VALKYRIE_LEASE_H

static __always_inline u32 lease_place(u64 fingerprint, u32 cpu) {
  return cpu * LEASES + ((fingerprint >> 40) & (LEASES - 1));
}

/* Spends from a lease. */
static __always_inline int spend(struct lease *l, u64 fingerprint, u64 cost, u64 now) {
  if (l->fingerprint != fingerprint || now >= l->valid_until || l->left < cost)
    return 0;
  l->left -= cost;
  return 1;
}

/* Buys a batch and spends `cost` of it. */
static __always_inline int buy(struct lease *l, u64 fingerprint, u64 *tat, const struct plan *plan,
                               u64 cost, u64 now) {
  int good = now < l->valid_until;
  int mine = l->fingerprint == fingerprint;
  if (cost > plan->batch || (good && !mine))
    return 0;
  u64 after;
  if (charge_tat(tat, now, plan->batch, plan->tau, &after) != TAKEN)
    return 0;
  l->left = (good && mine ? l->left : 0) + plan->batch - cost;
  l->fingerprint = fingerprint;
  l->valid_until = after;
  return 1;
}

#endif
