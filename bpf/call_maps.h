/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the programs for callers have beside the maps of maps.h, pinned with them.
 * `values` is made by control/dataplane/values.py, which knows how many there may
 * be; values are allocated as they come.
 */
#ifndef VALKYRIE_CALL_MAPS_H
#define VALKYRIE_CALL_MAPS_H

BPF_TABLE_PINNED7("hash", struct value_key, struct value, values, 4096, PIN_DIR "/values",
                  BPF_F_NO_PREALLOC);

/* The last word is 1 once another map has taken over. */
PINNED_ARRAY(u64, value_locks, (VALUE_LOCKS + 1));

/* Where a call of many entries goes on: each build has a place of its own. */
BPF_TABLE_PINNED7("prog", u32, u32, call_continuation, CONTINUATIONS, PIN_DIR "/call_continuation",
                  0);

/* Working memory, as in scratch.h: a row for each CPU, each build has its own. Softirqs are off
 * during a test run since Linux 6.11; before, a packet may come in between, and it uses other rows.
 */
struct call_scratch {
  struct packet packet;
  struct key key;
  struct charge charge;
  struct limit limit;     /* a copy: one request sees one limit */
  struct limit_stats sum; /* of the request */
  u64 open;
  struct value value;
};
BPF_TABLE("array", u32, struct call_scratch, call_scratch, MAX_CPUS);

#endif
