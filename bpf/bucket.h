/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The exact shared table. A bucket is one 64-bit word, the theoretical arrival
 * time (TAT) of GCRA: the instant at which the bucket is full again. A packet
 * of cost c at time t moves it to max(TAT, t) + c, unless that lies more than
 * tau past t; then it is refused (ITU-T I.371, virtual scheduling).
 *
 * A hit takes no lock: find the fingerprint, compare-and-swap the TAT. An
 * insertion takes the lock of its set, looks again, and takes over an idle way if
 * there is any, else the one closest to full, whose TAT is the smallest
 * (counted as evicted_live). It takes over the TAT as well. An idle TAT is a
 * full bucket; a live one is a debt that the newcomer inherits, so that a full
 * set never opens the gate: but for undone charges the smallest TAT of a
 * set never falls, and whoever was replaced meets at least his own debt again.
 * table_full_open gives newcomers a full bucket instead.
 *
 * Races that remain, and what each can cost:
 * - A CPU that found a fingerprint just before the way was taken over charges
 *   the newcomer: one packet's cost for each CPU and takeover. It never gives
 *   tokens away.
 * - Undoing a charge (police.h) after a takeover pays the newcomer back one
 *   packet's cost.
 * - A set whose lock is not to be had in LOCK_TRIES, or a word not in CAS_TRIES,
 *   is a refusal, counted as contended.
 */
#ifndef VALKYRIE_BUCKET_H
#define VALKYRIE_BUCKET_H

#define LOCK_TRIES 32
#define NO_WAY (-1)

enum taking { TAKEN, REFUSED, CONTENDED };

/* The way that is looked at `nth`: first the one that the fingerprint names, then those beside it
 * in its cache line, then the other line. Most keys find their own way idle when they come, so that
 * most hits read one line, and the CPU guesses well where the search ends. */
static __always_inline u64 nth_way(u64 fingerprint, u64 nth) {
  return (fingerprint >> 61 ^ nth) & (WAYS - 1);
}

static __always_inline int find_way(const struct bucket_set *set, u64 fingerprint) {
#pragma unroll
  for (u64 nth = 0; nth < WAYS; nth++) {
    u64 way = nth_way(fingerprint, nth);
    if (set->bucket[way].fingerprint == fingerprint)
      return way;
  }
  return NO_WAY;
}

/* The first idle way in the order of find_way; if there is none, the one with the smallest TAT. */
static __always_inline int fullest_way(const struct bucket_set *set, u64 fingerprint, u64 now) {
  u64 best = 0;
  u64 smallest = ~0ULL;
#pragma unroll
  for (u64 nth = 0; nth < WAYS; nth++) {
    u64 tat = set->bucket[nth_way(fingerprint, nth)].tat;
    tat &= -less(now, tat); /* all idle ones alike */
    u64 better = -less(tat, smallest);
    smallest ^= (smallest ^ tat) & better;
    best ^= (best ^ nth) & better;
  }
  return opaque(nth_way(fingerprint, best)) & (WAYS - 1);
}

static __always_inline int lock_set(u64 *lock) {
#pragma clang loop unroll(disable)
  for (int i = 0; i < LOCK_TRIES; i++)
    if (__sync_val_compare_and_swap(lock, 0, 1) == 0)
      return 1;
  return 0;
}

static __always_inline void take_over(struct bucket_set *set, u32 index, int way,
                                      const struct key *k, const struct packet *p, int open) {
  u64 tat = set->bucket[way & (WAYS - 1)].tat;
  struct bucket_key_set *names = bucket_keys.lookup(&index);
  struct table_stats *stats = table_of(p);
  if (!names || !stats)
    return;
  __sync_lock_test_and_set(&set->bucket[way & (WAYS - 1)].fingerprint, 0);
  if (tat > p->now) {
    stats->evicted_live++;
    if (open)
      __sync_val_compare_and_swap(&set->bucket[way & (WAYS - 1)].tat, tat, p->now);
  }
  write_key(&names->key[way & (WAYS - 1)], k);
  __sync_lock_test_and_set(&set->bucket[way & (WAYS - 1)].fingerprint, k->fingerprint);
  stats->inserted++;
}

static __always_inline int insert_way(struct bucket_set *set, u32 index, const struct key *k,
                                      const struct packet *p, int open) {
  u32 lock_index = index & (SET_LOCKS - 1);
  u64 *lock = set_locks.lookup(&lock_index);
  if (!lock || !lock_set(lock))
    return NO_WAY;
  int way = find_way(set, k->fingerprint);
  if (way == NO_WAY) {
    way = fullest_way(set, k->fingerprint, p->now);
    take_over(set, index, way, k, p, open);
  }
  __sync_lock_test_and_set(lock, 0);
  return way;
}

static __always_inline u32 set_of(u64 fingerprint) {
  return fingerprint & (BUCKET_SETS - 1);
}

/* The word of the key's bucket, made if there is none; 0: contended. */
static __always_inline u64 *bucket_of(const struct key *k, const struct packet *p, int open,
                                      u32 *where) {
  u32 index = set_of(k->fingerprint);
  struct bucket_set *set = buckets.lookup(&index);
  if (!set)
    return 0;
  int way = find_way(set, k->fingerprint);
  if (way == NO_WAY)
    way = insert_way(set, index, k, p, open);
  if (way == NO_WAY)
    return 0;
  way = forget(way, p->now);
  *where = index * WAYS + (way & (WAYS - 1));
  return &set->bucket[way & (WAYS - 1)].tat;
}

/* How far past now the key's bucket is; 0 when full or absent. */
static __always_inline u64 bucket_level(u64 fingerprint, u64 now) {
  u32 index = set_of(fingerprint);
  struct bucket_set *set = buckets.lookup(&index);
  if (!set)
    return 0;
  int way = find_way(set, fingerprint);
  if (way == NO_WAY)
    return 0;
  u64 tat = set->bucket[forget(way, now) & (WAYS - 1)].tat;
  return tat > now ? tat - now : 0;
}

/* GCRA on one word. *after: the TAT that the charge left. */
static __always_inline enum taking charge_tat(u64 *tat, u64 now, u64 cost, u64 tau, u64 *after) {
  u64 seen = *(volatile u64 *)tat;
#pragma clang loop unroll(disable)
  for (int i = 0; i < CAS_TRIES; i++) {
    u64 next = (seen > now ? seen : now) + cost;
    if (next - now > tau)
      return REFUSED;
    u64 found = __sync_val_compare_and_swap(tat, seen, next);
    if (found == seen) {
      *after = next;
      return TAKEN;
    }
    seen = found;
  }
  return CONTENDED;
}

#endif
