/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every map of the program. Each is pinned at PIN_DIR, opened when it is there
 * already: so an upgrade finds its buckets. Arrays are mapped into the control
 * plane's memory, which reads and writes them without a system call.
 */
#ifndef VALKYRIE_MAPS_H
#define VALKYRIE_MAPS_H

#define PINNED_ARRAY(type, name, entries)                                                          \
  BPF_TABLE_PINNED7("array", u32, type, name, entries, PIN_DIR "/" #name, BPF_F_MMAPABLE)

/* The ruleset: what packets are held against. */
PINNED_ARRAY(struct control, control, 1);
PINNED_ARRAY(struct ruleset, rulesets, 2);
PINNED_ARRAY(struct limit, limits, 2 * MAX_LIMITS);
PINNED_ARRAY(struct plan, plans, 2 * MAX_PLANS);
PINNED_ARRAY(struct node, nodes, 2 * MAX_NODES);
PINNED_ARRAY(struct bitmap, classes, 2 * MAX_CLASSES);
PINNED_ARRAY(struct field_block, fields, 2 * FIELD_BLOCKS);
PINNED_ARRAY(struct guard, guards, 2 * MAX_GUARDS);
BPF_TABLE_PINNED7("hash", u32, u32, nics, MAX_NICS, PIN_DIR "/nics", 0);

/* Where a packet that matches many limits goes on: each build has a place of its own. */
BPF_TABLE_PINNED7("prog", u32, u32, continuation, CONTINUATIONS, PIN_DIR "/continuation", 0);

/* The buckets. */
PINNED_ARRAY(struct bucket_set, buckets, BUCKET_SETS);
PINNED_ARRAY(struct bucket_key_set, bucket_keys, BUCKET_SETS);
PINNED_ARRAY(u64, set_locks, SET_LOCKS);
PINNED_ARRAY(struct lease, leases, (MAX_CPUS * LEASES));

/* What happened. */
PINNED_ARRAY(struct limit_stats, limit_stats, (MAX_CPUS * MAX_LIMITS));
PINNED_ARRAY(struct reason_stats, reason_stats, (MAX_CPUS * REASONS));
PINNED_ARRAY(struct table_stats, table_stats, MAX_CPUS);
PINNED_ARRAY(struct explanation, explanations, MAX_LIMITS);

/* BCC has no macro for a pinned ring buffer: this is what its BPF_RINGBUF_OUTPUT declares. */
#define PINNED_RING(name, bytes)                                                                   \
  struct name##_table_t {                                                                          \
    int key;                                                                                       \
    u32 leaf;                                                                                      \
    int (*ringbuf_output)(void *, u64, u64);                                                       \
    void *(*ringbuf_reserve)(u64);                                                                 \
    void (*ringbuf_discard)(void *, u64);                                                          \
    void (*ringbuf_submit)(void *, u64);                                                           \
    u32 max_entries;                                                                               \
  };                                                                                               \
  __attribute__((section("maps/ringbuf:" PIN_DIR "/" #name))) struct name##_table_t name = {       \
      .max_entries = bytes}

PINNED_RING(events, EVENT_RING_BYTES);

/* What people look at packets with: the programs that a packet then goes on to (each build has
 * places of its own), what is looked for, and what was found. */
BPF_TABLE_PINNED7("prog", u32, u32, watchers, 2 * CONTINUATIONS, PIN_DIR "/watchers", 0);
PINNED_ARRAY(struct watch, watch, 1);
PINNED_ARRAY(struct watch_stats, watch_stats, (MAX_CPUS * WATCHES));
PINNED_RING(captured, CAPTURE_RING_BYTES);
PINNED_RING(observed, OBSERVE_RING_BYTES);

#endif
