/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Counters. Each CPU has its own rows, so plain additions are exact; the control
 * plane adds the rows up.
 */
#ifndef VALKYRIE_COUNT_H
#define VALKYRIE_COUNT_H

static __always_inline void count_reason(u32 reason, const struct packet *p) {
  u32 index = p->cpu * REASONS + reason;
  struct reason_stats *stats = reason_stats.lookup(&index);
  if (!stats)
    return;
  stats->packets++;
  stats->bytes += p->frame_length;
}

static __always_inline struct limit_stats *stats_of(const struct limit *l, const struct packet *p) {
  u32 index = p->cpu * MAX_LIMITS + (l->slot & (MAX_LIMITS - 1));
  return limit_stats.lookup(&index);
}

static __always_inline struct table_stats *table_of(const struct packet *p) {
  u32 index = p->cpu;
  return table_stats.lookup(&index);
}

static __always_inline void count_contended(const struct packet *p) {
  struct table_stats *t = table_of(p);
  if (t)
    t->contended++;
}

#endif
