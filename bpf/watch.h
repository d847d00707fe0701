/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What people look at packets with: captures and observations. Neither costs the packet programs
 * more than a test of a word while nobody looks; then they go on by a tail call to the programs of
 * capture.h and observe.h, whose places in this array are each build's own, as in `continuation`.
 */
#ifndef VALKYRIE_WATCH_H
#define VALKYRIE_WATCH_H

#define WATCHER_OBSERVE CONTINUE_AT
#define WATCHER_CAPTURE (CONTINUATIONS + CONTINUE_AT)

static __always_inline struct watch *watch_of(void) {
  u32 first = 0;
  return watch.lookup(&first);
}

static __always_inline struct watch_stats *watch_stats_of(u32 cpu, u32 place) {
  u32 index = cpu * WATCHES + place;
  return watch_stats.lookup(&index);
}

#endif
