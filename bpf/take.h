/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Taking the tokens of one packet from the bucket of one limit, and giving them
 * back when a later limit refuses the packet.
 */
#ifndef VALKYRIE_TAKE_H
#define VALKYRIE_TAKE_H

static __always_inline u64 tokens_of(const struct limit *l, const struct packet *p) {
  if (l->measure == MEASURE_PACKETS)
    return 1;
  return l->measure == MEASURE_IP_BYTES ? p->length : p->frame_length;
}

static __always_inline u64 cost_of(const struct plan *plan, u64 tokens) {
  u32 shift = plan->shift & 63;
  return (tokens * plan->mult + ((1ULL << shift) - 1)) >> shift;
}

/* The plan in force for this packet: the limit's, or an override's. IPv4 inside of IPv6 has an
 * override of its IPv4 address, else of IPv6 around it: that prefix is always the shorter. */
static __always_inline const struct plan *plan_of(const struct limit *l, const struct packet *p) {
  const struct address *a = l->override_dst ? &p->dst : &p->src;
  u32 root = is_ipv4(a) ? l->override_root : l->override6_root;
  if (root == REF_LEAF)
    return &l->plan;
  u32 leaf = tree_find(root, a, p->generation);
  if (leaf & PLAN_EMBEDDED) {
    u8 embedding = l->override_dst ? p->dst_embedded : p->src_embedded;
    leaf = embedding == EMBEDDING_NONE ? 0 : leaf + (embedding == EMBEDDING_SIX_TO_FOUR);
  }
  if (!leaf)
    return &l->plan;
  u32 index = p->generation * MAX_PLANS + (leaf & (MAX_PLANS - 1));
  const struct plan *plan = plans.lookup(&index);
  return plan && plan->mult ? plan : &l->plan;
}

static __always_inline enum taking take(struct charge *charge, const struct key *k,
                                        const struct plan *plan, const struct packet *p, int open,
                                        struct limit_stats *stats) {
  struct lease *lease = 0;
  u64 cost = charge->cost;
  if (plan->batch) {
    u32 place = lease_place(k->fingerprint, p->cpu);
    lease = leases.lookup(&place);
    charge->where = place;
    charge->leased = 1;
    if (lease && spend(lease, k->fingerprint, cost, p->now))
      return TAKEN;
  }
  u32 where = 0;
  u64 *tat = bucket_of(k, p, open, &where);
  if (!tat)
    return CONTENDED;
  if (lease && buy(lease, k->fingerprint, tat, plan, cost, p->now)) {
    stats->leased++;
    return TAKEN;
  }
  charge->where = where;
  charge->leased = 0;
  u64 after;
  return charge_tat(tat, p->now, cost, plan->tau, &after);
}

static __always_inline void give_back(const struct charge *charge) {
  if (charge->leased) {
    u32 place = charge->where;
    struct lease *lease = leases.lookup(&place);
    if (lease)
      lease->left += charge->cost;
    return;
  }
  u32 index = charge->where / WAYS;
  struct bucket_set *set = buckets.lookup(&index);
  if (set)
    __sync_fetch_and_add(&set->bucket[charge->where & (WAYS - 1)].tat, -charge->cost);
}

#endif
