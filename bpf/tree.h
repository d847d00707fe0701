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

static __always_inline u32 child_of(const struct node *n, u64 key) {
  u64 i = NODE_KEYS;
#pragma unroll
  for (int k = 0; k < NODE_KEYS; k++)
    i -= less(key, n->key[k]);
  /* Forgetting keeps the compiler from dropping the bound that the verifier wants to see. */
  return n->child[forget(i, key) & (NODE_CHILDREN - 1)];
}

/* The leaf that `a` falls into, below `ref`; 0 when the tree is damaged. */
static __always_inline u32 tree_find(u32 ref, const struct address *a, u32 generation) {
  int v4 = is_ipv4(a);
  u64 key = v4 ? (u32)a->low : a->high;
#pragma clang loop unroll(disable)
  for (int depth = 0; depth < TREE_DEPTH; depth++) {
    if (ref & REF_LEAF)
      return ref & ~REF_LEAF;
    if (ref & REF_LOW)
      key = a->low;
    u32 index = generation * MAX_NODES + (ref & REF_MASK);
    struct node *n = nodes.lookup(&index);
    if (!n)
      return 0;
    ref = child_of(n, key);
  }
  return ref & REF_LEAF ? ref & ~REF_LEAF : 0;
}

#endif
