/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Longest-prefix search as a search among interval starts: prefixes, however
 * they nest, cut the address space into intervals, and the control plane keeps
 * the intervals' answers in a B-tree of eight children a node. 100,000 prefixes
 * of one family are six or seven nodes deep, as against two for ten.
 * IPv4 is searched by its 32 bits; IPv6 by its high half, and below a
 * reference marked REF_LOW by its low half.
 */
#ifndef VALKYRIE_TREE_H
#define VALKYRIE_TREE_H

/* How many of the node's keys are above `key`, whose first bit is 0: where the difference is
 * negative, or the node's key has a first bit. */
static __always_inline u64 above_low(const u64 *keys, u64 key) {
  u64 n = 0;
#pragma unroll
  for (int k = 0; k < NODE_KEYS; k++)
    n += ((key - keys[k]) | keys[k]) >> 63;
  return n;
}

/* The same of a `key` whose first bit is 1. */
static __always_inline u64 above_high(const u64 *keys, u64 key) {
  u64 n = 0;
#pragma unroll
  for (int k = 0; k < NODE_KEYS; k++)
    n += ((key - keys[k]) & keys[k]) >> 63;
  return n;
}

static __always_inline u64 child_of(const struct node *n, u64 key) {
  u64 i = NODE_KEYS - (key >> 63 ? above_high(n->key, key) : above_low(n->key, key));
  /* Forgetting keeps the compiler from dropping the bound that the verifier wants to see. */
  return n->child[forget(i, key) & (NODE_CHILDREN - 1)];
}

/* The leaf that `a` falls into, below `ref`; 0 when the tree is damaged. */
static __always_inline u32 tree_find(u64 ref, const struct address *a, u32 generation) {
  int v4 = is_ipv4(a);
  u64 key = v4 ? (u32)a->low : a->high;
#pragma clang loop unroll(disable)
  for (u64 depth = 0; depth < TREE_DEPTH; depth++) {
    if (ref >= REF_LEAF)
      return ref & REF_MASK;
    if (ref & REF_LOW)
      key = a->low;
    u32 index = generation * MAX_NODES + (ref & REF_MASK);
    struct node *n = nodes.lookup(&index);
    if (!n)
      return 0;
    ref = child_of(n, key);
  }
  return ref >= REF_LEAF ? ref & REF_MASK : 0;
}

#endif
