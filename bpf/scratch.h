/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Working memory of one packet that does not fit BPF's stack of 512 bytes: a row
 * for each CPU, on which no packet interrupts another. Nobody else reads it, and it
 * is not pinned: each build has its own, whatever its layout.
 */
#ifndef VALKYRIE_SCRATCH_H
#define VALKYRIE_SCRATCH_H

/* What a limit took from this packet, to be given back if a later one refuses. */
struct charge {
  u64 cost;  /* 0: nothing */
  u32 where; /* set * WAYS + way, or the index of a lease */
  u32 leased;
};

struct scratch {
  struct packet packet;
  struct key key;
  struct bitmap match;
  u32 reason;
  u32 slot;   /* of the limit that dropped, or NO_SLOT */
  u32 shadow; /* of the last shadow limit that would have, or NO_SLOT */
  u32 asked;  /* limits that have passed the packet so far: charges to give back */
  struct charge charge[MAX_LIMITS];
  u16 matched[MAX_LIMITS];
};

BPF_TABLE("array", u32, struct scratch, scratch, MAX_CPUS);

static __always_inline struct scratch *scratch_of(u32 cpu) {
  return scratch.lookup(&cpu);
}

#endif
